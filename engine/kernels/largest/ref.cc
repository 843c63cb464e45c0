#include <algorithm>
#include <bit>
#include <functional>
#include <vector>

#include "kernels/largest/largest.h"

namespace secateur {

namespace {

// The first 16 bits of a number whose order is that of the doubles: sign, exponent, four bits of the mantissa.
uint32_t bin(double score) {
  const auto bits = std::bit_cast<uint64_t>(score + 0.0);  // -0.0 becomes 0.0
  return static_cast<uint32_t>((bits >> 63 ? ~bits : bits | uint64_t{1} << 63) >> 48);
}

}  // namespace

void keep_largest(int64_t n, const double* scores, int64_t k, bool* kept) {
  std::fill(kept, kept + n, k >= n);
  if (k <= 0 || k >= n) return;
  std::vector<uint32_t> count(1 << 16);
  for (int64_t i = 0; i < n; ++i) ++count[bin(scores[i])];
  int64_t above = 0;  // scores in bins over that of the k-th largest
  uint32_t edge = (1 << 16) - 1;
  for (; above + count[edge] < k; --edge) above += count[edge];
  std::vector<double> near(count[edge] + 1);  // those of that bin, and a place to write the others to
  size_t n_near = 0;
  for (int64_t i = 0; i < n; ++i) near[n_near] = scores[i], n_near += bin(scores[i]) == edge;
  near.pop_back();
  const auto kth = near.begin() + (k - above - 1);
  std::nth_element(near.begin(), kth, near.end(), std::greater<>());
  const double least = *kth;
  int64_t ties = k - above - std::count_if(near.begin(), kth, [&](double s) { return s > least; });
  for (int64_t i = 0; i < n; ++i) kept[i] = scores[i] > least;
  for (int64_t i = 0; ties > 0; ++i)
    if (scores[i] == least) kept[i] = true, --ties;
}

}  // namespace secateur
