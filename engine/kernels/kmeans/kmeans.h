// One layer of weighted k-means on the line: the recursion of src/secateur/constraints/_kmeans.py, which names the papers.
#pragma once

#include <cstdint>

namespace secateur {

// best[i] = min over a in floor[i]..i of previous[a] + cost(a, i) and origin[i] its first argmin, for i = 1..n; best[0] =
// origin[0] = 0. cost(a, i) = s2 - s1^2 / s0 over the values a..i-1, from the sums s0, s1, s2 [n + 1] of w, w x, w x^2
// before each position; never below 0. `floor` [n + 1]: the argmins of the layer before, which this layer's cannot fall
// below. Argmins grow with i (the cost is Monge), so midpoints halve the search: O(n log n).
void kmeans_layer(int64_t n, const double* s0, const double* s1, const double* s2, const double* previous, const int64_t* floor,
                  double* best, int64_t* origin);

}  // namespace secateur
