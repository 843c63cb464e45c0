// Weaving, once for all ISAs: compiled for every level of kernels/table.h. Two phases a row are zipped in registers.
#include <cstring>

#include "kernels/table.h"
#include "kernels/weave/weave.h"
#include "simd/vec_here.h"

namespace secateur {
namespace {

constexpr int kLanes = Vec::kLanes;

// y[0..n) = a[0] b[0] a[1] b[1] ...
SECATEUR_INLINE void zip_row(const float* a, const float* b, float* y, int n) {
  int j = 0;
  for (; 2 * (j + kLanes) <= n; j += kLanes) {
    Vec lo, hi;
    zip(Vec::load(a + j), Vec::load(b + j), &lo, &hi);
    lo.store(y + 2 * j);
    hi.store(y + 2 * j + kLanes);
  }
  for (; 2 * j < n; ++j) {
    y[2 * j] = a[j];
    if (2 * j + 1 < n) y[2 * j + 1] = b[j];
  }
}

void weave(const Weave& w, const float* x, float* y) {
  const int64_t plane = int64_t{w.in_h} * w.in_w;
  for (int64_t p = 0; p < w.planes; ++p) {
    for (int i = w.top; i < w.top + w.out_h; ++i, y += w.out_w) {
      // Phase 0 of the row; phase b is b planes further.
      const float* row = x + (p * w.stride_h + i % w.stride_h) * w.stride_w * plane + int64_t{i / w.stride_h} * w.in_w;
      if (w.stride_w == 1) {
        std::memcpy(y, row + w.left, static_cast<size_t>(w.out_w) * sizeof(float));
      } else if (w.stride_w == 2) {
        const float *even = row + w.left / 2, *odd = even + plane;
        if (w.left % 2 == 0) {
          zip_row(even, odd, y, w.out_w);
        } else {
          zip_row(odd, even + 1, y, w.out_w);
        }
      } else {
        for (int j = 0; j < w.out_w; ++j) {
          const int at = j + w.left;
          y[j] = row[at % w.stride_w * plane + at / w.stride_w];
        }
      }
    }
  }
}

}  // namespace

namespace SECATEUR_LEVEL {
extern const WeaveKernels weave_row = {kIsa, weave};
}
}  // namespace secateur
