#include "kernels/resize/resize.h"

#include <cstring>

#include "kernels/table.h"

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

void resize_planes_ref(const ResizePlanes& r, const float* x, float* y) {
  const auto row = [&](const float* from, int j) {
    float sum = 0;
    for (int t = 0; t < r.taps; ++t)
      sum += (r.taps == 1 ? 1.0f : r.column_weights[t * r.out_w + j]) * from[r.columns[t * r.out_w + j]];
    return sum;
  };
  for (int64_t p = 0; p < r.planes; ++p)
    for (int i = 0; i < r.out_h; ++i)
      for (int j = 0; j < r.out_w; ++j, ++y) {
        float sum = 0;
        for (int t = 0; t < r.taps; ++t)
          sum += (r.taps == 1 ? 1.0f : r.row_weights[i * r.taps + t]) *
                 row(x + (p * r.in_h + r.rows[i * r.taps + t]) * r.in_w, j);
        *y = sum;
      }
}

namespace ref {
extern const ResizeKernels resize_row = {kIsa, resize_planes_ref};
}
SECATEUR_TABLE(SECATEUR_WITH_REF, ResizeKernels, resize_row, resize_kernels)

}  // namespace secateur
