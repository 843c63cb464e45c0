#include "kernels/order/order.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace secateur {
namespace {

// A strict weak order also with NaN in it.
bool less(float a, float b) { return std::isnan(b) ? !std::isnan(a) : a < b; }

}  // namespace

void arg_ref(const ArgArgs& a) {
  for (int64_t o = 0; o < a.outer; ++o)
    for (int64_t i = 0; i < a.inner; ++i) {
      const float* x = a.x + o * a.axis * a.inner + i;
      int64_t best = 0;
      for (int64_t k = 1; k < a.axis; ++k) {
        const float v = x[k * a.inner], top = x[best * a.inner];
        const bool better = a.smallest ? less(v, top) : less(top, v), worse = a.smallest ? less(top, v) : less(v, top);
        if (better || (a.last && !worse)) best = k;
      }
      a.y[o * a.inner + i] = best;
    }
}

void top_k_ref(const TopKArgs& a) {
  for (int64_t o = 0; o < a.outer; ++o)
    for (int64_t i = 0; i < a.inner; ++i) {
      const float* x = a.x + o * a.axis * a.inner + i;
      std::iota(a.scratch, a.scratch + a.axis, int64_t{0});
      std::partial_sort(a.scratch, a.scratch + a.k, a.scratch + a.axis, [&](int64_t p, int64_t q) {
        const float u = x[p * a.inner], v = x[q * a.inner];
        if (a.largest ? less(v, u) : less(u, v)) return true;
        return !(a.largest ? less(u, v) : less(v, u)) && p < q;
      });
      for (int64_t k = 0; k < a.k; ++k) {
        const int64_t to = (o * a.k + k) * a.inner + i;
        if (a.values) a.values[to] = x[a.scratch[k] * a.inner];
        if (a.indices) a.indices[to] = a.scratch[k];
      }
    }
}

}  // namespace secateur
