// Pooling, once for all ISAs: compiled for every level of kernels/table.h. Column strides 1 and 2 are
// vectorised over the outputs of a row; windows that leave the image, and other strides, go cell by cell.
#include "kernels/pool/pool.h"
#include "kernels/table.h"
#include "simd/vec_here.h"

namespace secateur {
namespace {

constexpr int kLanes = Vec::kLanes;

template <bool kMax>
SECATEUR_INLINE float cell(const PoolArgs& a, const float* x, int i, int j) {
  float s = kMax ? -__builtin_inff() : 0.0f;
  int inside = 0, padded = 0;
  for (int u = 0; u < a.kernel_h; ++u)
    for (int v = 0; v < a.kernel_w; ++v) {
      const int r = i * a.stride_h - a.pad_top + u * a.dilation_h, q = j * a.stride_w - a.pad_left + v * a.dilation_w;
      padded += r < a.in_h + a.pad_bottom && q < a.in_w + a.pad_right;
      if (r < 0 || r >= a.in_h || q < 0 || q >= a.in_w) continue;
      ++inside;
      const float value = x[int64_t{r} * a.in_w + q];
      s = kMax ? (value > s ? value : s) : s + value;
    }
  if (kMax) return s;
  const int cells = a.count_include_pad ? padded : inside;
  return cells ? s / static_cast<float>(cells) : 0.0f;
}

template <bool kMax, int kStride>
void planes(const PoolArgs& a, int64_t begin, int64_t end) {
  // Outputs whose whole window lies inside the image.
  int j0 = (a.pad_left + kStride - 1) / kStride;
  int j1 = (a.in_w + a.pad_left - a.dilation_w * (a.kernel_w - 1) - 1) / kStride + 1;
  if (a.in_w + a.pad_left < a.dilation_w * (a.kernel_w - 1) + 1) j1 = 0;
  if (j0 > a.out_w) j0 = a.out_w;
  if (j1 > a.out_w) j1 = a.out_w;
  if (j1 < j0) j1 = j0;
  // Divided, as cell() does: what is near the border must not differ from what is not, nor one ISA from another.
  const Vec count = Vec::set1(static_cast<float>(a.kernel_h * a.kernel_w));
  for (int64_t p = begin; p < end; ++p) {
    const float* x = a.x + p * a.in_h * a.in_w;
    float* y = a.y + p * a.out_h * a.out_w;
    for (int i = 0; i < a.out_h; ++i, y += a.out_w) {
      const int r0 = i * a.stride_h - a.pad_top;
      const bool rows_inside = r0 >= 0 && r0 + a.dilation_h * (a.kernel_h - 1) < a.in_h;
      const int from = rows_inside ? j0 : a.out_w, to = rows_inside ? j1 : a.out_w;
      for (int j = 0; j < from; ++j) y[j] = cell<kMax>(a, x, i, j);
      for (int j = from; j < to; j += kLanes) {
        const int left = to - j < kLanes ? to - j : kLanes;
        Vec s = kMax ? Vec::set1(-__builtin_inff()) : Vec::zero();
        for (int u = 0; u < a.kernel_h; ++u) {
          const float* row = x + int64_t{r0 + u * a.dilation_h} * a.in_w + j * kStride - a.pad_left;
          for (int v = 0; v < a.kernel_w; ++v) {
            const float* q = row + v * a.dilation_w;
            Vec value;
            if (kStride == 1) {
              value = Vec::load_range(q, 0, left);
            } else {
              const int last = 2 * left - 1;
              value = even(Vec::load_range(q, 0, last), Vec::load_range(q + kLanes, 0, last - kLanes));
            }
            s = kMax ? max(s, value) : s + value;
          }
        }
        (kMax ? s : s / count).store_first(y + j, left);
      }
      for (int j = to > from ? to : from; j < a.out_w; ++j) y[j] = cell<kMax>(a, x, i, j);
    }
  }
}

template <bool kMax>
SECATEUR_INLINE bool pool(const PoolArgs& a) {
  if (a.stride_w == 1) {
    planes<kMax, 1>(a, 0, a.planes);
  } else if (a.stride_w == 2) {
    planes<kMax, 2>(a, 0, a.planes);
  } else {
    return false;
  }
  return true;
}

// As global_average_pool_ref(): 32 sums side by side, halved and halved again, whatever the vector.
SECATEUR_INLINE void global_average(const PoolArgs& a) {
  constexpr int kVectors = kGlobalSums / kLanes;
  const int n = a.in_h * a.in_w;
  for (int64_t p = 0; p < a.planes; ++p) {
    const float* x = a.x + p * n;
    Vec s[kVectors];
    SECATEUR_UNROLL
    for (int k = 0; k < kVectors; ++k) s[k] = Vec::zero();
    int i = 0;
    for (; i + kGlobalSums <= n; i += kGlobalSums) {
      SECATEUR_UNROLL
      for (int k = 0; k < kVectors; ++k) s[k] = s[k] + Vec::load(x + i + k * kLanes);
    }
    SECATEUR_UNROLL
    for (int k = 0; k < kVectors; ++k)
      if (i + k * kLanes < n) s[k] = s[k] + Vec::load_range(x + i + k * kLanes, 0, n - i - k * kLanes);
    SECATEUR_UNROLL
    for (int half = kVectors / 2; half > 0; half /= 2)
      for (int k = 0; k < half; ++k) s[k] = s[k] + s[k + half];
    a.y[p] = sum(s[0]) / static_cast<float>(n);
  }
}

void max_pool(const PoolArgs& a) {
  if (!pool<true>(a)) max_pool_ref(a);
}
void average_pool(const PoolArgs& a) {
  if (!pool<false>(a)) average_pool_ref(a);
}

}  // namespace

namespace SECATEUR_LEVEL {
extern const PoolKernels pool_row = {kIsa, max_pool, average_pool, global_average};
}
}  // namespace secateur
