#include "kernels/resize/resize.h"

#include <cstring>

namespace secateur {

void resample_ref(const Resample& r, const float* x, float* y) noexcept {
  for (int64_t o = 0; o < r.outer; ++o, x += r.in * r.inner) {
    for (int64_t j = 0; j < r.out; ++j, y += r.inner) {
      const int64_t* index = r.index + j * r.taps;
      const float* w = r.weight + j * r.taps;
      const float* a = x + index[0] * r.inner;
      if (r.taps == 1) {
        if (r.inner == 1) *y = *a;
        else std::memcpy(y, a, static_cast<size_t>(r.inner) * sizeof(float));
        continue;
      }
      const float* b = x + index[1] * r.inner;
      for (int64_t i = 0; i < r.inner; ++i) y[i] = w[0] * a[i] + w[1] * b[i];
      for (int t = 2; t < r.taps; ++t) {
        const float* c = x + index[t] * r.inner;
        for (int64_t i = 0; i < r.inner; ++i) y[i] += w[t] * c[i];
      }
    }
  }
}

}  // namespace secateur
