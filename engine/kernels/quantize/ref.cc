#include <cmath>
#include <limits>

#include "kernels/quantize/quantize.h"

namespace secateur {
namespace {

// Independent of fesetround: floor and compare, exact for |v| < 2^23 (larger floats are integers already).
inline float round_half_even(float v) {
  const float f = std::floor(v);
  const float d = v - f;
  if (d < 0.5f) return f;
  if (d > 0.5f) return f + 1.0f;
  return std::fmod(f, 2.0f) == 0.0f ? f : f + 1.0f;
}

template <class T>
void quantize(const Quant& p, const float* x, const float* scale, const T* zero, T* q) {
  constexpr float lo = static_cast<float>(std::numeric_limits<T>::min());
  constexpr float hi = static_cast<float>(std::numeric_limits<T>::max());
  for (int64_t o = 0; o < p.outer; ++o) {
    for (int64_t c = 0; c < p.channels; ++c) {
      const float s = scale[c], z = zero ? static_cast<float>(zero[c]) : 0.0f;
      for (int64_t i = 0; i < p.inner; ++i) {
        float v = round_half_even(*x++ / s) + z;
        v = v > lo ? v : lo;  // NaN has no integer and ONNX leaves it open: the lowest, as the vector kernels do
        *q++ = static_cast<T>(v < hi ? v : hi);
      }
    }
  }
}

template <class T>
void dequantize(const Quant& p, const T* q, const float* scale, const T* zero, float* x) {
  for (int64_t o = 0; o < p.outer; ++o) {
    for (int64_t c = 0; c < p.channels; ++c) {
      const float s = scale[c];
      const int64_t z = zero ? static_cast<int64_t>(zero[c]) : 0;
      for (int64_t i = 0; i < p.inner; ++i) *x++ = static_cast<float>(static_cast<int64_t>(*q++) - z) * s;
    }
  }
}

template <class F>
void with_type(QType t, F f) {
  switch (t) {
    case QType::kU8:
      return f(uint8_t{});
    case QType::kI8:
      return f(int8_t{});
    case QType::kU16:
      return f(uint16_t{});
    case QType::kI16:
      return f(int16_t{});
    case QType::kI32:
      return f(int32_t{});
  }
}

}  // namespace

void quantize_f32_ref(const Quant& p, const float* x, const float* scale, const void* zero, void* q) noexcept {
  if (p.type == QType::kI32) return;  // not an output type of QuantizeLinear
  with_type(p.type, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) <= 2) quantize(p, x, scale, static_cast<const T*>(zero), static_cast<T*>(q));
  });
}

void dequantize_f32_ref(const Quant& p, const void* q, const float* scale, const void* zero, float* x) noexcept {
  with_type(p.type, [&](auto t) {
    using T = decltype(t);
    dequantize(p, static_cast<const T*>(q), scale, static_cast<const T*>(zero), x);
  });
}

}  // namespace secateur
