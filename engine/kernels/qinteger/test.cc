// Integer products and convolutions against sums in int64, with zero points of every kind and padding.
#include "kernels/qinteger/qinteger.h"

#include "kernels/testing.h"

namespace {

using namespace secateur;

std::vector<uint8_t> bytes(int64_t n, testing::Random& rng) {
  std::vector<uint8_t> v(static_cast<size_t>(n));
  for (uint8_t& b : v) b = static_cast<uint8_t>(rng.below(256));
  return v;
}
int64_t as(const std::vector<uint8_t>& v, int64_t i, bool s8) {
  const uint8_t b = v[static_cast<size_t>(i)];
  return s8 ? int64_t{static_cast<int8_t>(b)} : int64_t{b};
}
// A zero point of none, one, or n of them.
int64_t zero_of(const ByteTensor& t, const std::vector<uint8_t>& zeros, int64_t i) {
  return t.zero ? as(zeros, t.n_zeros == 1 ? 0 : i, t.s8) : 0;
}

void products(testing::Random& rng, int round) {
  const int64_t m = 1 + rng.below(5), n = 1 + rng.below(5), k = 1 + rng.below(9);
  const auto a = bytes(m * k, rng), b = bytes(k * n, rng), za = bytes(m, rng), zb = bytes(n, rng);
  ByteTensor x{a.data(), rng.below(2) != 0, nullptr, 1}, w{b.data(), rng.below(2) != 0, nullptr, 1};
  if (rng.below(3)) x.zero = za.data(), x.n_zeros = rng.below(2) ? m : 1;
  if (rng.below(3)) w.zero = zb.data(), w.n_zeros = rng.below(2) ? n : 1;
  MatMul p;
  p.m = m, p.n = n, p.k = k, p.a_row = k, p.b_row = n;
  std::vector<int32_t> y(static_cast<size_t>(m * n));
  matmul_integer_ref(p, x, w, y.data());
  bool ok = true;
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      int64_t want = 0;
      for (int64_t c = 0; c < k; ++c)
        want += (as(a, i * k + c, x.s8) - zero_of(x, za, i)) * (as(b, c * n + j, w.s8) - zero_of(w, zb, j));
      ok &= y[static_cast<size_t>(i * n + j)] == want;
    }
  testing::check(ok, "product, round " + std::to_string(round));
}

void convolutions(testing::Random& rng, int round) {
  ConvShape s;
  s.in_c = 1 + rng.below(3), s.out_c = 1 + rng.below(3), s.in_h = 3 + rng.below(4), s.in_w = 3 + rng.below(4);
  s.kernel_h = 1 + rng.below(3), s.kernel_w = 1 + rng.below(3), s.stride_h = s.stride_w = 1 + rng.below(2);
  s.pad_top = s.pad_left = s.pad_bottom = s.pad_right = rng.below(2);
  const auto a = bytes(s.in_c * s.in_h * s.in_w, rng), b = bytes(s.weight_count(), rng), za = bytes(1, rng);
  const auto zb = bytes(s.out_c, rng);
  ByteTensor x{a.data(), rng.below(2) != 0, za.data(), 1}, w{b.data(), rng.below(2) != 0, zb.data(), s.out_c};
  std::vector<int32_t> y(static_cast<size_t>(s.out_c * s.conv_h() * s.conv_w()));
  conv_integer_ref(s, 1, x, w, y.data());
  bool ok = true;
  for (int64_t o = 0, at = 0; o < s.out_c; ++o)
    for (int64_t i = 0; i < s.conv_h(); ++i)
      for (int64_t j = 0; j < s.conv_w(); ++j, ++at) {
        int64_t want = 0;
        for (int64_t c = 0; c < s.in_c; ++c)
          for (int64_t u = 0; u < s.kernel_h; ++u)
            for (int64_t v = 0; v < s.kernel_w; ++v) {
              const int64_t row = i * s.stride_h + u - s.pad_top, col = j * s.stride_w + v - s.pad_left;
              if (row < 0 || row >= s.in_h || col < 0 || col >= s.in_w) continue;
              const int64_t weight = as(b, ((o * s.in_c + c) * s.kernel_h + u) * s.kernel_w + v, w.s8);
              want +=
                  (as(a, (c * s.in_h + row) * s.in_w + col, x.s8) - zero_of(x, za, 0)) * (weight - zero_of(w, zb, o));
            }
        ok &= y[static_cast<size_t>(at)] == want;
      }
  testing::check(ok, "convolution, round " + std::to_string(round));
}

}  // namespace

int main() {
  testing::Random rng(20240704);
  for (int round = 0; round < 300; ++round) products(rng, round), convolutions(rng, round);
  float scale;
  uint8_t zero;
  dynamic_grid(-1.0f, 4.1f, &scale, &zero);  // 5.1 / 255 = 0.02, 1 / 0.02 = 50
  testing::check(std::fabs(double(scale) - 0.02) < 1e-8 && zero == 50, "dynamic grid by hand");
  return testing::finish("qinteger", 601);
}
