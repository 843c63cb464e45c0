// Resampling with random taps against the formula in double.
#include "kernels/resize/resize.h"

#include "kernels/testing.h"

int main() {
  using namespace secateur;
  testing::Random rng(20240703);
  int64_t n_checks = 0;
  for (int taps : {1, 2, 4})
    for (int round = 0; round < 100; ++round) {
      Resample r;
      r.taps = taps, r.outer = 1 + rng.below(3), r.in = 1 + rng.below(9), r.out = 1 + rng.below(9),
      r.inner = 1 + rng.below(20);
      std::vector<int64_t> index(static_cast<size_t>(r.out * taps));
      std::vector<float> weight(index.size());
      for (int64_t& i : index) i = rng.below(static_cast<int>(r.in));
      for (float& w : weight) w = taps == 1 ? 1.0f : rng.normal();
      r.index = index.data(), r.weight = weight.data();
      testing::Guarded x(r.outer * r.in * r.inner, 1), y(r.outer * r.out * r.inner, 2);
      testing::fill_normal(x.data(), x.size(), rng);
      resample_ref(r, x.data(), y.data());
      bool ok = y.intact();
      for (int64_t o = 0; o < r.outer; ++o)
        for (int64_t j = 0; j < r.out; ++j)
          for (int64_t i = 0; i < r.inner; ++i) {
            double want = 0, size = 0;
            for (int t = 0; t < taps; ++t) {
              const double term = double(weight[static_cast<size_t>(j * taps + t)]) *
                                  x[(o * r.in + index[static_cast<size_t>(j * taps + t)]) * r.inner + i];
              want += term, size += std::fabs(term);
            }
            ok &= std::fabs(y[(o * r.out + j) * r.inner + i] - want) <= (taps + 1) * 0x1p-24 * size;
          }
      ++n_checks;
      testing::check(ok, std::to_string(taps) + " taps, round " + std::to_string(round));
    }
  return testing::finish("resize", n_checks);
}
