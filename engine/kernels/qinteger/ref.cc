#include "kernels/qinteger/qinteger.h"

#include <algorithm>
#include <cmath>

namespace secateur {
namespace {

int32_t number(const void* data, bool s8, int64_t i) {
  return s8 ? static_cast<const int8_t*>(data)[i] : static_cast<const uint8_t*>(data)[i];
}
int32_t number(const ByteTensor& t, int64_t i) { return number(t.data, t.s8, i); }
int32_t zero_of(const ByteTensor& t, int64_t i) { return t.zero ? number(t.zero, t.s8, t.n_zeros == 1 ? 0 : i) : 0; }

void add_product(int32_t& sum, int32_t a, int32_t b) {
  sum = static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(a * b));
}

float round_even(float v) {
  const float f = std::floor(v), d = v - f;
  if (d < 0.5f) return f;
  if (d > 0.5f) return f + 1.0f;
  return std::fmod(f, 2.0f) == 0.0f ? f : f + 1.0f;
}
uint8_t to_byte(float v) { return static_cast<uint8_t>(v > 0.0f ? v < 255.0f ? v : 255.0f : 0.0f); }

}  // namespace

void matmul_integer_ref(const MatMul& p, const ByteTensor& a, const ByteTensor& b, int32_t* y) noexcept {
  for (int64_t batch = 0; batch < matmul_batches(p); ++batch) {
    int64_t at, bt;
    matmul_offsets(p, batch, at, bt);
    for (int64_t i = 0; i < p.m; ++i) {
      int32_t* row = y + (batch * p.m + i) * p.n;
      std::fill_n(row, p.n, 0);
      for (int64_t k = 0; k < p.k; ++k) {
        const int32_t v = number(a, at + i * p.a_row + k * p.a_col) - zero_of(a, i);
        if (v == 0) continue;
        for (int64_t j = 0; j < p.n; ++j)
          add_product(row[j], v, number(b, bt + k * p.b_row + j * p.b_col) - zero_of(b, j));
      }
    }
  }
}

void conv_integer_ref(const ConvShape& s, int64_t batch, const ByteTensor& x, const ByteTensor& w,
                      int32_t* y) noexcept {
  const int group_in = s.in_c / s.groups, group_out = s.out_c / s.groups;
  const int64_t plane = int64_t{s.in_h} * s.in_w;
  for (int64_t n = 0; n < batch; ++n)
    for (int o = 0; o < s.out_c; ++o)
      for (int i = 0; i < s.conv_h(); ++i)
        for (int j = 0; j < s.conv_w(); ++j, ++y) {
          *y = 0;
          for (int c = 0; c < group_in; ++c)
            for (int u = 0; u < s.kernel_h; ++u)
              for (int v = 0; v < s.kernel_w; ++v) {
                const int r = i * s.stride_h + u * s.dilation_h - s.pad_top,
                          q = j * s.stride_w + v * s.dilation_w - s.pad_left;
                if (r < 0 || r >= s.in_h || q < 0 || q >= s.in_w) continue;
                const int64_t from =
                    (n * s.in_c + int64_t{o / group_out} * group_in + c) * plane + int64_t{r} * s.in_w + q;
                const int64_t k = ((int64_t{o} * group_in + c) * s.kernel_h + u) * s.kernel_w + v;
                add_product(*y, number(x, from) - zero_of(x, 0), number(w, k) - zero_of(w, o));
              }
        }
}

void dynamic_grid(float lo, float hi, float* scale, uint8_t* zero) noexcept {
  *scale = hi > lo ? (hi - lo) / 255.0f : 1.0f;  // of zeros only, and of nothing: 1, as ONNX Runtime has it
  *zero = *scale > 0 ? to_byte(round_even(-lo / *scale)) : uint8_t{0};
}

}  // namespace secateur
