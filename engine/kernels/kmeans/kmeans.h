// Weighted k-means on the line by dynamic programming; src/secateur/constraints/_kmeans.py names the papers.
//
// Clusters of an optimal solution are intervals of the sorted values; the cost of an interval is Monge, so layer m of
//   D[m][i] = min over a <= i of D[m-1][a] + cost(a, i)
// has argmins that grow with i and with m: O(n log n) a layer.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace secateur {

// best[i] = min over a in floor[i]..i of previous[a] + cost(a, i) and origin[i] its first argmin, for i = 1..n;
// best[0] = origin[0] = 0. cost(a, i) = s2 - s1^2 / s0 over the values a..i-1, from the sums s0, s1, s2 [n + 1] of w,
// w x, w x^2 before each position; never below 0. `floor` [n + 1]: the argmins of the layer before, which this layer's
// cannot fall below. Argmins grow with i, so midpoints halve the search.
void kmeans_layer(int64_t n, const double* s0, const double* s1, const double* s2, const double* previous,
                  const int32_t* floor, double* best, int32_t* origin);

// Optimal centres of values x with weights w, for any number of clusters; layers are made when first asked for.
class KMeans {
 public:
  // x [n] ascending and finite, w [n] >= 0, n < 2^31. Values of weight 0 do not count (all 0: they all count,
  // equally). `zero`: one more centre stands at 0, free of charge, and values of 0 do not count. Up to `exact_below`
  // distinct values the answer is exact; above, cuts are sought among some 2,048 positions and then moved by Lloyd's
  // iteration.
  KMeans(int64_t n, const double* x, const double* w, bool zero, int64_t exact_below);
  ~KMeans();
  KMeans(const KMeans&) = delete;
  KMeans& operator=(const KMeans&) = delete;

  // At most m centres, ascending, without the free zero; one centre at 0 where no value counts and zero is not free.
  std::vector<double> centres(int64_t m);

 private:
  struct Side;
  std::vector<double> values_, mass_;
  bool zero_, exact_;
  std::vector<std::unique_ptr<Side>> sides_;
};

}  // namespace secateur
