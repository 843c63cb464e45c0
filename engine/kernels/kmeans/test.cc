// A layer against trying every cut, and layers on one another against trying every clustering.
#include "kernels/kmeans/kmeans.h"

#include "kernels/testing.h"

namespace {

using namespace secateur;

struct Sums {
  std::vector<double> s0{0}, s1{0}, s2{0};
  Sums(const std::vector<double>& x, const std::vector<double>& w) {
    for (size_t i = 0; i < x.size(); ++i) {
      s0.push_back(s0.back() + w[i]);
      s1.push_back(s1.back() + w[i] * x[i]);
      s2.push_back(s2.back() + w[i] * x[i] * x[i]);
    }
  }
  double cost(size_t a, size_t i) const {
    const double m = s0[i] - s0[a], s = s1[i] - s1[a];
    return std::max(0.0, s2[i] - s2[a] - s * s / (m > 0 ? m : 1.0));
  }
};

}  // namespace

int main() {
  const uint32_t seed = 20261128;
  std::printf("seed %u\n", seed);
  testing::Random rng(seed);
  int64_t n_checks = 0;
  for (int n : {0, 1, 2, 3, 7, 8, 9, 31, 64, 100})
    for (bool equal : {false, true}) {
      std::vector<double> x, w;
      for (int i = 0; i < n; ++i) x.push_back(rng.normal()), w.push_back(equal ? 1.0 : 0.1 + rng.unit());
      std::sort(x.begin(), x.end());
      const Sums sums(x, w);
      const auto size = static_cast<size_t>(n) + 1;
      std::vector<double> previous(size, std::numeric_limits<double>::infinity()), best(size);
      std::vector<int32_t> floor(size, 0), origin(size);
      previous[0] = 0;
      std::vector<double> brute = previous;
      for (int layer = 1; layer <= 5; ++layer) {
        kmeans_layer(n, sums.s0.data(), sums.s1.data(), sums.s2.data(), previous.data(), floor.data(), best.data(),
                     origin.data());
        bool ok = best[0] == 0 && origin[0] == 0;
        std::vector<double> next(size, 0.0);
        for (size_t i = 1; i < size; ++i) {
          next[i] = std::numeric_limits<double>::infinity();
          for (size_t a = 0; a <= i; ++a) next[i] = std::min(next[i], brute[a] + sums.cost(a, i));
          const auto from = static_cast<size_t>(origin[i]);
          ok &= from <= i && std::fabs(best[i] - next[i]) <= 1e-9 * (1 + next[i]);
          ok &= std::fabs(previous[from] + sums.cost(from, i) - best[i]) <= 1e-12 * (1 + best[i]);
        }
        testing::check(ok, "n " + std::to_string(n) + " layer " + std::to_string(layer));
        ++n_checks;
        brute = next, previous = best, floor = origin;
      }
    }
  return testing::finish("kmeans", n_checks);
}
