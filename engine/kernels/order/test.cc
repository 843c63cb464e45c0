// ArgMax, ArgMin and TopK against sorting: ties, NaN, both directions, along inner and outer axes.
#include "kernels/order/order.h"

#include "kernels/testing.h"

int main() {
  using namespace secateur;
  testing::Random rng(20240702);
  int64_t n_checks = 0;
  for (int round = 0; round < 400; ++round) {
    const int64_t outer = 1 + rng.below(3), axis = 1 + rng.below(12), inner = 1 + rng.below(3),
                  k = 1 + rng.below(int(axis));
    std::vector<float> x(static_cast<size_t>(outer * axis * inner));
    for (float& v : x) v = rng.below(12) ? static_cast<float>(rng.below(5)) : std::numeric_limits<float>::quiet_NaN();
    // A number's place in the order: NaN above all.
    const auto rank = [](float v) { return std::isnan(v) ? std::numeric_limits<double>::infinity() : double(v); };
    const bool smallest = rng.below(2), last = rng.below(2), largest = rng.below(2);
    std::vector<int64_t> arg(static_cast<size_t>(outer * inner)), indices(static_cast<size_t>(outer * k * inner));
    std::vector<int64_t> scratch(static_cast<size_t>(axis));
    std::vector<float> values(indices.size());
    ArgArgs a{x.data(), arg.data(), outer, axis, inner, smallest, last};
    arg_ref(a);
    TopKArgs t{x.data(), values.data(), indices.data(), scratch.data(), outer, axis, inner, k, largest};
    top_k_ref(t);
    bool ok = true;
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t i = 0; i < inner; ++i) {
        const auto at = [&](int64_t j) { return x[static_cast<size_t>((o * axis + j) * inner + i)]; };
        int64_t want = 0;
        for (int64_t j = 1; j < axis; ++j) {
          const double d = rank(at(j)) == rank(at(want)) ? 0 : rank(at(j)) - rank(at(want));
          if (smallest ? d < 0 : d > 0) want = j;
          if (d == 0 && last) want = j;
        }
        ok &= arg[static_cast<size_t>(o * inner + i)] == want;
        std::vector<int64_t> sorted(static_cast<size_t>(axis));
        for (int64_t j = 0; j < axis; ++j) sorted[static_cast<size_t>(j)] = j;
        std::stable_sort(sorted.begin(), sorted.end(), [&](int64_t p, int64_t q) {
          return largest ? rank(at(p)) > rank(at(q)) : rank(at(p)) < rank(at(q));
        });
        for (int64_t j = 0; j < k; ++j) {
          const auto to = static_cast<size_t>((o * k + j) * inner + i);
          const float v = at(sorted[static_cast<size_t>(j)]);
          ok &= indices[to] == sorted[static_cast<size_t>(j)];
          ok &= values[to] == v || (std::isnan(values[to]) && std::isnan(v));
        }
      }
    ++n_checks;
    testing::check(ok, "round " + std::to_string(round));
  }
  return testing::finish("order", n_checks);
}
