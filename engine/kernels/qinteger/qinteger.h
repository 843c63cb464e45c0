// MatMulInteger and ConvInteger with ONNX semantics, plain loops: of two operands that come while running, so that
// nothing can be packed for a kernel. Sums are int32 and wrap.
#pragma once

#include <cstdint>

#include "kernels/conv/conv.h"  // ConvShape
#include "kernels/matmul/matmul.h"

namespace secateur {

// 8-bit numbers and their zero points: one, or one per row (of A) or column (of B) or output channel.
struct ByteTensor {
  const void* data = nullptr;
  bool s8 = false;
  const void* zero = nullptr;  // null: 0; same type
  int64_t n_zeros = 1;
};

// y [batch...][m][n] = (a - a_zero) * (b - b_zero); strides and batches as in MatMul, alpha unused.
void matmul_integer_ref(const MatMul& p, const ByteTensor& a, const ByteTensor& b, int32_t* y) noexcept;
// y [batch][O][H][W]; x and w plain. Padding counts as the zero point.
void conv_integer_ref(const ConvShape& s, int64_t batch, const ByteTensor& x, const ByteTensor& w, int32_t* y) noexcept;
// Scale and zero point of DynamicQuantizeLinear for values from lo <= 0 to hi >= 0: (hi - lo) / 255, clamp(round(-lo /
// scale)).
void dynamic_grid(float lo, float hi, float* scale, uint8_t* zero) noexcept;

}  // namespace secateur
