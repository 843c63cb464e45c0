// The best scale against trying the codes of every change; grids of members, and of what is none.
#include "kernels/uniform/uniform.h"

#include "kernels/testing.h"

namespace {

using namespace secateur;

double error_at(const std::vector<double>& a, const std::vector<double>& h, double scale, int64_t top, bool zero) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double q = scale > 0 ? std::ceil(a[i] / scale - 0.5) : 0.0;
    const double miss = a[i] - scale * std::clamp(q, zero ? 0.0 : 1.0, static_cast<double>(top));
    sum += h[i] * miss * miss;
  }
  return sum;
}

// Codes just below every change, each with its own best scale.
double least_error(const std::vector<double>& a, const std::vector<double>& h, int64_t top, bool zero) {
  double least = error_at(a, h, 0.0, top, true);
  if (!zero) least = std::numeric_limits<double>::infinity();
  for (const double v : a)
    for (int64_t t = 1; t <= top; ++t) {
      const double alpha = v / (static_cast<double>(t) - 0.5) * (1 - 1e-9);
      double s1 = 0, s2 = 0;
      for (size_t i = 0; i < a.size(); ++i) {
        const double q =
            std::clamp(alpha > 0 ? std::ceil(a[i] / alpha - 0.5) : 0.0, zero ? 0.0 : 1.0, static_cast<double>(top));
        s1 += h[i] * a[i] * q, s2 += h[i] * q * q;
      }
      if (s2 > 0) least = std::min(least, error_at(a, h, s1 / s2, top, zero));
    }
  return least;
}

}  // namespace

int main() {
  const uint32_t seed = 20261129;
  std::printf("seed %u\n", seed);
  testing::Random rng(seed);
  int64_t n_checks = 0;
  for (int n : {1, 2, 3, 9, 40, 100})
    for (int64_t top : {1, 3, 127})
      for (bool zero : {false, true})
        for (bool equal : {false, true}) {
          std::vector<double> a, h;
          double energy = 0;
          for (int i = 0; i < n; ++i) {
            a.push_back(std::fabs(rng.normal())), h.push_back(equal ? 1.0 : rng.unit());
            energy += h.back() * a.back() * a.back();
          }
          const double scale = best_scale(n, a.data(), h.data(), top, zero);
          const double least = least_error(a, h, top, zero), got = error_at(a, h, scale, top, zero);
          testing::check(scale > 0 && got <= least * (1 + 1e-9) + 1e-13 * energy,
                         "n " + std::to_string(n) + " top " + std::to_string(top) + (zero ? " zero" : ""));
          ++n_checks;
          // A grid of float32 gives its codes back.
          const auto step = static_cast<float>(0.01 + rng.unit());
          std::vector<double> x;
          std::vector<int16_t> codes(static_cast<size_t>(n)), want;
          for (int i = 0; i < n; ++i) {
            const int q = rng.below(static_cast<int>(2 * top + 1)) - static_cast<int>(top);
            want.push_back(static_cast<int16_t>(i ? q : 1));  // the smallest code stands there: no coarser grid fits
            x.push_back(static_cast<float>(step * want.back()));
          }
          double found = 0;
          bool ok = grid_of(n, x.data(), top, false, {24, -126}, codes.data(), &found) && codes == want;
          for (size_t i = 0; i < x.size(); ++i) ok &= static_cast<float>(found * codes[i]) == static_cast<float>(x[i]);
          x[0] = step * (static_cast<double>(top) + 0.6);
          ok &= n == 1 || !grid_of(n, x.data(), top, false, {24, -126}, codes.data(), &found) ||
                *std::max_element(codes.begin(), codes.end()) <= top;
          testing::check(ok, "grid of " + std::to_string(n) + " to " + std::to_string(top));
          ++n_checks;
        }
  return testing::finish("uniform", n_checks);
}
