// QuantizeLinear and DequantizeLinear with ONNX semantics over [outer, channels, inner], contiguous.
//   q = saturate(round_half_even(x / scale[c]) + zero[c])        x' = (q - zero[c]) * scale[c]
// channels = 1 is per-tensor. Zero points may be null (0). Rounding does not depend on the caller's rounding mode.
#pragma once

#include <cstdint>

namespace secateur {

enum class QType : int32_t { kU8, kI8, kU16, kI16, kI32 };

struct Quant {
  QType type = QType::kU8;
  int64_t outer = 1, channels = 1, inner = 1;
};
void quantize_f32_ref(const Quant& p, const float* x, const float* scale, const void* zero, void* q) noexcept;
void dequantize_f32_ref(const Quant& p, const void* q, const float* scale, const void* zero, float* x) noexcept;

}  // namespace secateur
