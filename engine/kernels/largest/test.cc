// The selection against a sort by (score, index).
#include "kernels/largest/largest.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "kernels/testing.h"

int main() {
  using namespace secateur;
  const uint32_t seed = 20261128;
  std::printf("seed %u\n", seed);
  testing::Random rng(seed);
  int64_t n_checks = 0;
  for (int n : {0, 1, 2, 7, 64, 1000})
    for (int kind = 0; kind < 4; ++kind) {
      std::vector<double> scores;
      for (int i = 0; i < n; ++i) {
        const double s = rng.normal();
        const double kinds[] = {s, std::floor(2 * s), s > 0 ? 0.0 : -0.0, 1 + 1e-12 * s};
        scores.push_back(kinds[kind]);
      }
      std::vector<int> order(static_cast<size_t>(n));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[a] > scores[b]; });
      for (int k : {0, 1, n / 3, n / 2, n - 1, n}) {
        if (k < 0 || k > n) continue;
        const std::unique_ptr<bool[]> kept(new bool[static_cast<size_t>(n) + 1]);
        keep_largest(n, scores.data(), k, kept.get());
        bool ok = true;
        for (int i = 0; i < n; ++i) ok &= kept[static_cast<size_t>(order[static_cast<size_t>(i)])] == (i < k);
        testing::check(ok, "n " + std::to_string(n) + " kind " + std::to_string(kind) + " k " + std::to_string(k));
        ++n_checks;
      }
    }
  return testing::finish("largest", n_checks);
}
