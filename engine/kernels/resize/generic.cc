// Both axes of an image at once, once for all ISAs: compiled for every level of kernels/table.h.
#include <cstring>

#include "kernels/resize/resize.h"
#include "kernels/table.h"
#include "simd/vec_here.h"

namespace secateur {
namespace {

constexpr int kLanes = Vec::kLanes;
constexpr int kStrip = 1024;  // columns of the result at a time: two rows of them stay in the first cache

SECATEUR_INLINE void widen_twice(const float* x, float* y, int n) {
  int j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const Vec v = Vec::load(x + j);
    Vec lo, hi;
    zip(v, v, &lo, &hi);
    lo.store(y + 2 * j);
    hi.store(y + 2 * j + kLanes);
  }
  for (; j < n; ++j) y[2 * j] = y[2 * j + 1] = x[j];
}

// Columns [from, from + n) of a row.
SECATEUR_INLINE void widen(const ResizePlanes& r, const float* x, int from, int n, float* y) {
  const uint32_t *a = r.columns + from, *b = a + r.out_w;
  const float *p = r.column_weights + from, *q = p + r.out_w;
  int j = 0;
  if (r.taps == 1) {
    for (; j + 8 <= n; j += 8) Eight::pick(x, a + j).store(y + j);
    for (; j < n; ++j) y[j] = x[a[j]];
    return;
  }
  for (; j + 8 <= n; j += 8)
    fma(Eight::load(q + j), Eight::pick(x, b + j), Eight::load(p + j) * Eight::pick(x, a + j)).store(y + j);
  for (; j < n; ++j) y[j] = madd(q[j], x[b[j]], p[j] * x[a[j]]);
}

SECATEUR_INLINE void nearest(const ResizePlanes& r, const float* x, float* y) {
  for (int i = 0; i < r.out_h; ++i, y += r.out_w) {
    if (i > 0 && r.rows[i] == r.rows[i - 1]) {
      std::memcpy(y, y - r.out_w, static_cast<size_t>(r.out_w) * sizeof(float));
    } else if (r.twice) {
      widen_twice(x + int64_t{r.rows[i]} * r.in_w, y, r.in_w);
    } else {
      widen(r, x + int64_t{r.rows[i]} * r.in_w, 0, r.out_w, y);
    }
  }
}

SECATEUR_INLINE void linear(const ResizePlanes& r, const float* x, float* y, int from, int n, float (*wide)[kStrip]) {
  int held[2] = {-1, -1};  // rows of the image that lie widened in `wide`
  for (int i = 0; i < r.out_h; ++i) {
    const float* at[2];
    for (int t = 0; t < 2; ++t) {
      const int row = r.rows[2 * i + t], other = r.rows[2 * i + 1 - t];
      int k = held[0] == row ? 0 : held[1] == row ? 1 : -1;
      if (k < 0) {
        k = held[0] == other ? 1 : 0;
        held[k] = row;
        widen(r, x + int64_t{row} * r.in_w, from, n, wide[k]);
      }
      at[t] = wide[k];
    }
    const Vec p = Vec::set1(r.row_weights[2 * i]), q = Vec::set1(r.row_weights[2 * i + 1]);
    float* to = y + int64_t{i} * r.out_w + from;
    int j = 0;
    for (; j + kLanes <= n; j += kLanes) fma(q, Vec::load(at[1] + j), p * Vec::load(at[0] + j)).store(to + j);
    if (j < n) fma(q, Vec::load(at[1] + j), p * Vec::load(at[0] + j)).store_first(to + j, n - j);
  }
}

void planes(const ResizePlanes& r, const float* x, float* y) {
  alignas(64) float wide[2][kStrip];
  for (auto& row : wide)
    for (int j = 0; j < kStrip; j += kLanes) Vec::zero().store(row + j);  // a row's last vector is read whole
  for (int64_t p = 0; p < r.planes; ++p) {
    const float* image = x + p * r.in_h * r.in_w;
    float* result = y + p * r.out_h * r.out_w;
    if (r.taps == 1) {
      nearest(r, image, result);
    } else {
      for (int j = 0; j < r.out_w; j += kStrip)
        linear(r, image, result, j, r.out_w - j < kStrip ? r.out_w - j : kStrip, wide);
    }
  }
}

}  // namespace

namespace SECATEUR_LEVEL {
extern const ResizeKernels resize_row = {kIsa, planes};
}
}  // namespace secateur
