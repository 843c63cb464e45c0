// MatMulInteger, ConvInteger, DynamicQuantizeLinear with ONNX semantics, plain loops: zero points come while running, so nothing
// can be packed for a kernel. Sums are int32 and wrap.
#pragma once

#include <cstdint>

#include "kernels/conv/conv.h"  // ConvShape
#include "kernels/matmul/matmul.h"

namespace secateur {

// 8-bit numbers and their zero points: one, or one per row (of A) or column (of B) or output channel.
struct ByteTensor {
  const void* data = nullptr;
  bool s8 = false;
  const void* zero = nullptr;              // null: 0; same type
  int64_t n_zeros = 1;
};

// y [batch...][m][n] = (a - a_zero) * (b - b_zero); strides and batches as in MatMul, alpha unused.
void matmul_integer_ref(const MatMul& p, const ByteTensor& a, const ByteTensor& b, int32_t* y) noexcept;
// y [batch][O][H][W]; x and w plain. Padding counts as the zero point.
void conv_integer_ref(const ConvShape& s, int64_t batch, const ByteTensor& x, const ByteTensor& w, int32_t* y) noexcept;
// scale = (max(x, 0) - min(x, 0)) / 255, zero = clamp(round(-min / scale)), y = clamp(round(x / scale) + zero).
void dynamic_quantize_ref(int64_t n, const float* x, uint8_t* y, float* scale, uint8_t* zero) noexcept;
// Scale and zero point alone.
void dynamic_range(int64_t n, const float* x, float* scale, uint8_t* zero) noexcept;

}  // namespace secateur
