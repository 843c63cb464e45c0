#include <algorithm>
#include <bit>

#include "kernels/kmeans/kmeans.h"

namespace secateur {

void kmeans_layer(int64_t n, const double* s0, const double* s1, const double* s2, const double* previous, const int64_t* floor,
                  double* best, int64_t* origin) {
  best[0] = 0;
  origin[0] = 0;
  for (int64_t stride = n > 0 ? int64_t{1} << (std::bit_width(static_cast<uint64_t>(n)) - 1) : 0; stride > 0; stride /= 2) {
    for (int64_t i = stride; i <= n; i += 2 * stride) {
      const int64_t low = std::max(origin[i - stride], floor[i]);
      const int64_t high = std::max(low, i + stride <= n ? std::min(origin[i + stride], i) : i);
      double least = 0;
      int64_t first = -1;
      for (int64_t a = low; a <= high; ++a) {
        const double mass = s0[i] - s0[a], sum = s1[i] - s1[a];
        const double within = s2[i] - s2[a] - sum * sum / (mass > 0 ? mass : 1.0);
        const double total = previous[a] + std::max(within, 0.0);
        if (first < 0 || total < least) least = total, first = a;
      }
      best[i] = least;
      origin[i] = first;
    }
  }
}

}  // namespace secateur
