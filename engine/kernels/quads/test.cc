// Borders, ranges, sums, pools and tables of quads against formulas written out here, at every ISA.
#include "kernels/quads/quads.h"

#include <cmath>

#include "kernels/testing.h"

using namespace secateur;

namespace {

int64_t n_checks = 0;

uint8_t clamped(double v, int zero, int lo, int hi) {
  return static_cast<uint8_t>(std::min<double>(std::max<double>(std::nearbyint(v) + zero, lo), hi));
}
int64_t at(const QuadsShape& s, int64_t n, int64_t c, int64_t j) {
  return ((n * ((s.channels + 3) / 4) + c / 4) * s.pixels + j) * 4 + c % 4;
}

void borders(Isa isa, const QuadsShape& s, testing::Random& rng) {
  const QuadsKernels& k = quads_kernels(isa);
  const int64_t n = s.batch * s.channels * s.pixels, bytes = s.batch * ((s.channels + 3) / 4) * 4 * s.pixels;
  std::vector<float> x(n);
  // Multiples of a quarter step: ties, and values beyond both ends.
  for (auto& v : x) v = 0.0625f * float(rng.below(4001) - 2000);
  std::vector<uint8_t> q(bytes + 4, 0xee);
  QuantizeArgs a;
  a.s = s, a.x = x.data(), a.y = q.data(), a.scale = 0.25f, a.zero = rng.below(256);
  k.quantize(a);
  testing::Guarded back(n, 1);
  DequantizeArgs d;
  d.s = s, d.x = q.data(), d.y = back.data(), d.scale = 0.3f, d.zero = a.zero;
  k.dequantize(d);
  bool ok = back.intact() && q[bytes] == 0xee && q[bytes + 3] == 0xee;
  std::vector<uint8_t> plain(n), packed(bytes), again(n);
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t j = 0; j < s.pixels; ++j) {
        const int64_t i = s.rows ? j * s.channels + c : (b * s.channels + c) * s.pixels + j;
        const uint8_t want = clamped(double(x[i]) / 0.25, a.zero, 0, 255);
        ok = ok && q[at(s, b, c, j)] == want && back[i] == float(int(want) - a.zero) * 0.3f;
        plain[i] = want ^ 128;
      }
  quads_pack(s, plain.data(), packed.data(), 128);
  quads_unpack(s, packed.data(), again.data(), 128);
  ok = ok && again == plain;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t j = 0; j < s.pixels; ++j) ok = ok && packed[at(s, b, c, j)] == q[at(s, b, c, j)];
  testing::check(ok, "borders at " + std::string(isa_name(isa)) + " of " + std::to_string(s.channels) + " x " +
                         std::to_string(s.pixels));
  ++n_checks;
}

// Values in order and words turned, with a byte or a float behind that nobody may touch.
void runs(Isa isa, int64_t n, testing::Random& rng) {
  bool ok = true;
  for (const uint8_t flip : {uint8_t{0}, uint8_t{128}}) {
    std::vector<float> x(n), back(n + 1, 99.0f);
    for (auto& v : x) v = float(rng.below(2000) - 1000) * 0.25f;
    std::vector<uint8_t> q(n + 1, 0xee);
    RunArgs a;
    a.n = n, a.x = x.data(), a.y = q.data(), a.scale = 0.5f, a.zero = 77, a.flip = flip;
    quads_kernels(isa).quantize_run(a);
    a.x = q.data(), a.y = back.data();
    quads_kernels(isa).dequantize_run(a);
    for (int64_t i = 0; i < n; ++i) {
      const uint8_t want = clamped(double(x[i]) / 0.5, 77, 0, 255);
      ok = ok && q[i] == (want ^ flip) && back[i] == float(int(want) - 77) * 0.5f;
    }
    ok = ok && q[n] == 0xee && back[n] == 99.0f;
  }
  const int64_t words = 1 + n % 37;
  std::vector<uint8_t> from(4 * n * words), to(4 * n * words + 4, 0xee);
  for (auto& v : from) v = static_cast<uint8_t>(rng.below(256));
  quads_kernels(isa).turn(n, words, from.data(), to.data());
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < words; ++j)
      ok = ok && std::memcmp(&to[4 * (j * n + i)], &from[4 * (i * words + j)], 4) == 0;
  testing::check(ok && to[4 * n * words] == 0xee, "a run of " + std::to_string(n) + " at " + isa_name(isa));
  ++n_checks;
}

void ranges(Isa isa, int64_t n, testing::Random& rng) {
  testing::Guarded x(n, 1);
  for (int64_t i = 0; i < n; ++i) x[i] = rng.normal() + (n % 3 == 0 ? 9.0f : n % 3 == 1 ? -9.0f : 0.0f);
  if (n > 4) x[n / 2] = std::nanf("");
  float lo, hi, least = 0, most = 0;
  quads_kernels(isa).range(n, x.data(), &lo, &hi);
  for (int64_t i = 0; i < n; ++i)
    if (!std::isnan(x[i])) least = std::min(least, x[i]), most = std::max(most, x[i]);
  testing::check(lo == least && hi == most && x.intact(), "range of " + std::to_string(n) + " at " + isa_name(isa));
  ++n_checks;
}

void tables(int64_t n, testing::Random& rng) {
  uint8_t table[256];
  for (auto& v : table) v = static_cast<uint8_t>(rng.below(256));
  std::vector<uint8_t> x(n), y(n + 1, 0xee);
  for (auto& v : x) v = static_cast<uint8_t>(rng.below(256));
  quads_table(n, x.data(), table, y.data());
  bool ok = y[n] == 0xee;
  for (int64_t i = 0; i < n; ++i) ok = ok && y[i] == table[x[i]];
  testing::check(ok, "table of " + std::to_string(n));
  ++n_checks;
}

void sums(Isa isa, int64_t words, testing::Random& rng) {
  std::vector<uint8_t> x0(4 * words), x1(4 * words), y(4 * words + 4, 0xee);
  for (auto& v : x0) v = static_cast<uint8_t>(rng.below(256));
  for (auto& v : x1) v = static_cast<uint8_t>(rng.below(256));
  QAddArgs a;
  a.words = words, a.x0 = x0.data(), a.x1 = x1.data(), a.y = y.data();
  a.scale0 = 0.5f, a.scale1 = 0.25f, a.zero0 = 10, a.zero1 = 200, a.zero = 40, a.lo = 40, a.hi = 230;
  quads_kernels(isa).add(a);
  bool ok = y[4 * words] == 0xee;
  for (int64_t i = 0; i < 4 * words; ++i)
    ok = ok && y[i] == clamped((x0[i] - 10) * 0.5 + (x1[i] - 200) * 0.25, 40, 40, 230);
  testing::check(ok, "sum of " + std::to_string(words) + " words at " + isa_name(isa));
  ++n_checks;
}

void pools(Isa isa, QPoolArgs a, testing::Random& rng) {
  std::vector<uint8_t> x(a.planes * a.in_h * a.in_w * 4), y(a.planes * a.out_h * a.out_w * 4 + 4, 0xee), z(y);
  for (auto& v : x) v = static_cast<uint8_t>(rng.below(256));
  a.x = x.data(), a.y = y.data();
  quads_kernels(isa).max_pool(a);
  QAverageArgs average;
  average.p = a;
  average.p.y = z.data();
  average.scale = 0.75f, average.x_zero = 100, average.zero = 90;
  average.include_pad = a.kernel_w % 2 == 0;
  quads_average(average);
  bool ok = y[y.size() - 4] == 0xee, mean = true;
  for (int64_t p = 0; p < a.planes; ++p)
    for (int i = 0; i < a.out_h; ++i)
      for (int j = 0; j < a.out_w; ++j)
        for (int k = 0; k < 4; ++k) {
          int best = 0, sum = 0, count = 0;
          for (int u = 0; u < a.kernel_h; ++u)
            for (int v = 0; v < a.kernel_w; ++v) {
              const int r = i * a.stride_h + u * a.dilation_h - a.pad_top,
                        c = j * a.stride_w + v * a.dilation_w - a.pad_left;
              if (r < 0 || r >= a.in_h || c < 0 || c >= a.in_w) continue;
              const int q = x[((p * a.in_h + r) * a.in_w + c) * 4 + k];
              best = std::max(best, q), sum += q - 100, ++count;
            }
          const int64_t o = ((p * a.out_h + i) * a.out_w + j) * 4 + k;
          ok = ok && y[o] == best;
          mean = mean &&
                 z[o] == clamped(float(sum) * (0.75f / float(average.include_pad ? a.kernel_h * a.kernel_w : count)),
                                 90, 0, 255);
        }
  testing::check(ok,
                 "maximum " + std::to_string(a.kernel_w) + "/" + std::to_string(a.stride_w) + " at " + isa_name(isa));
  testing::check(mean, "average");
  ++n_checks;
}

}  // namespace

int main() {
  testing::Random rng(3);
  for (Isa isa : available_isas()) {
    for (int64_t channels : {1, 3, 4, 10, 33})
      for (int64_t pixels : {1, 2, 15, 16, 17, 49, 100})
        for (int64_t batch : {1, 3}) borders(isa, {batch, channels, pixels, batch == 1 && pixels % 2 == 1}, rng);
    for (int64_t channels : {1, 16, 63, 64, 65, 130})
      for (int64_t rows : {1, 15, 16, 33}) borders(isa, {1, channels, rows, true}, rng);
    for (int64_t n : {1, 3, 4, 7, 8, 9, 15, 16, 17, 33, 68, 100}) runs(isa, n, rng);
    for (int64_t n : {1, 2, 3, 15, 16, 17, 63, 64, 65, 66, 200}) ranges(isa, n, rng), tables(n, rng);
    for (int64_t words : {1, 7, 8, 16, 31, 32, 33, 200}) sums(isa, words, rng);
    for (int stride : {1, 2, 3})
      for (int kernel : {2, 3})
        for (int pad : {0, 1})
          for (int width : {4, 9, 16, 37, 70}) {
            QPoolArgs a;
            a.planes = 3, a.in_h = 7, a.in_w = width;
            a.kernel_h = a.kernel_w = kernel, a.stride_h = a.stride_w = stride, a.pad_top = a.pad_left = pad;
            a.out_h = (a.in_h + 2 * pad - kernel) / stride + 1, a.out_w = (a.in_w + 2 * pad - kernel) / stride + 1;
            pools(isa, a, rng);
          }
    for (int width : {8, 16, 32, 64})
      for (int height : {4, 6, 8, 9}) {
        QPoolArgs a;
        a.planes = 3, a.in_h = height, a.in_w = width, a.out_h = height / 2, a.out_w = width / 2;
        a.kernel_h = a.kernel_w = a.stride_h = a.stride_w = 2;
        pools(isa, a, rng);
      }
    for (int width : {1, 7, 30}) {
      QPoolArgs whole;
      whole.planes = 2, whole.in_h = whole.kernel_h = 20, whole.in_w = whole.kernel_w = width;
      pools(isa, whole, rng);
    }
  }
  return testing::finish("quads", n_checks);
}
