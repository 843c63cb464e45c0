// Quantization of every type by hand (halves go to the even one, ends saturate) and there and back on its own grid.
#include "kernels/quantize/quantize.h"

#include "kernels/testing.h"

namespace {

using namespace secateur;

template <class T>
void type(QType which, const char* name) {
  const float x[] = {-1e30f, -1.5f, -0.5f, 0.0f, 0.5f, 1.5f, 2.5f, 1e30f};
  const float one = 1.0f;
  T q[8];
  Quant p;
  p.type = which, p.inner = 8;
  quantize_f32_ref(p, x, &one, nullptr, q);
  const double lo = double(std::numeric_limits<T>::min()), hi = double(std::numeric_limits<T>::max());
  const double halves[] = {-2, 0, 0, 0, 2, 2};  // of -1.5 to 2.5
  bool ok = double(q[0]) == lo && (sizeof(T) == 4 || double(q[7]) == hi);
  for (int i = 0; i < 6; ++i) ok &= double(q[i + 1]) == std::max(lo, halves[i]);
  testing::check(ok, std::string("by hand, ") + name);

  // Two channels with scales and zero points of their own.
  const float scale[] = {0.5f, 0.25f};
  const T zero[] = {T(3), T(100)};
  p.outer = 2, p.channels = 2, p.inner = 5;
  T start[20], back[20];
  float real[20];
  for (int i = 0; i < 20; ++i) start[i] = static_cast<T>(i * 6);
  dequantize_f32_ref(p, start, scale, zero, real);
  ok = true;
  for (int i = 0; i < 20; ++i) {
    const int c = i / 5 % 2;
    ok &= double(real[i]) == (double(start[i]) - double(zero[c])) * double(scale[c]);
  }
  quantize_f32_ref(p, real, scale, zero, back);
  testing::check(ok && std::equal(start, start + 20, back), std::string("there and back, ") + name);
}

}  // namespace

int main() {
  type<uint8_t>(QType::kU8, "u8");
  type<int8_t>(QType::kI8, "s8");
  type<uint16_t>(QType::kU16, "u16");
  type<int16_t>(QType::kI16, "s16");
  return testing::finish("quantize", 8);
}
