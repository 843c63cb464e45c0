// The oracle, and the path for windows no fast kernel covers.
#include <algorithm>
#include <limits>

#include "kernels/pool/pool.h"
#include "kernels/table.h"

namespace secateur {

void max_pool_ref(const PoolArgs& a) {
  for (int64_t p = 0; p < a.planes; ++p)
    for (int i = 0; i < a.out_h; ++i)
      for (int j = 0; j < a.out_w; ++j) {
        float best = -std::numeric_limits<float>::infinity();
        for (int u = 0; u < a.kernel_h; ++u)
          for (int v = 0; v < a.kernel_w; ++v) {
            const int r = i * a.stride_h - a.pad_top + u * a.dilation_h,
                      q = j * a.stride_w - a.pad_left + v * a.dilation_w;
            if (r < 0 || r >= a.in_h || q < 0 || q >= a.in_w) continue;
            best = std::max(best, a.x[(p * a.in_h + r) * a.in_w + q]);
          }
        a.y[(p * a.out_h + i) * a.out_w + j] = best;
      }
}

void average_pool_ref(const PoolArgs& a) {
  for (int64_t p = 0; p < a.planes; ++p)
    for (int i = 0; i < a.out_h; ++i)
      for (int j = 0; j < a.out_w; ++j) {
        float sum = 0;
        int inside = 0, padded = 0;
        for (int v = 0; v < a.kernel_w; ++v) {
          float column = 0;
          for (int u = 0; u < a.kernel_h; ++u) {
            const int r = i * a.stride_h - a.pad_top + u * a.dilation_h,
                      q = j * a.stride_w - a.pad_left + v * a.dilation_w;
            padded += r < a.in_h + a.pad_bottom && q < a.in_w + a.pad_right;
            if (r < 0 || r >= a.in_h || q < 0 || q >= a.in_w) continue;
            ++inside;
            column += a.x[(p * a.in_h + r) * a.in_w + q];
          }
          sum += column;
        }
        const int cells = a.count_include_pad ? padded : inside;
        a.y[(p * a.out_h + i) * a.out_w + j] = cells ? sum / float(cells) : 0.0f;
      }
}

void global_average_pool_ref(const PoolArgs& a) {
  const int64_t plane = int64_t{a.in_h} * a.in_w;
  for (int64_t p = 0; p < a.planes; ++p) {
    float sums[kGlobalSums] = {};
    for (int64_t k = 0; k < plane; ++k) sums[k % kGlobalSums] += a.x[p * plane + k];
    for (int half = kGlobalSums / 2; half > 0; half /= 2)
      for (int k = 0; k < half; ++k) sums[k] += sums[k + half];
    a.y[p] = sums[0] / float(plane);
  }
}

namespace ref {
extern const PoolKernels pool_row = {kIsa, max_pool_ref, average_pool_ref, global_average_pool_ref};
}
SECATEUR_TABLE(SECATEUR_WITH_REF, PoolKernels, pool_row, pool_kernels)

}  // namespace secateur
