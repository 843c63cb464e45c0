// Softmax, once for all ISAs: compiled for every level of kernels/table.h. Along the last axis a row
// is reduced across lanes; along an earlier one, kLanes columns are done side by side.
#include "kernels/softmax/softmax.h"
#include "kernels/table.h"
#include "simd/vec_here.h"

extern "C" float logf(float);

namespace secateur {
namespace {

constexpr int kLanes = Vec::kLanes;

SECATEUR_INLINE Vec log_lanes(Vec x) {
  float t[kLanes];
  x.store(t);
  for (int i = 0; i < kLanes; ++i) t[i] = ::logf(t[i]);
  return Vec::load(t);
}

SECATEUR_INLINE void last_axis(const float* x, float* y, int64_t n, bool log) {
  float top = x[0];
  int64_t i = 0;
  if (n >= kLanes) {
    Vec m = Vec::load(x);
    for (i = kLanes; i + kLanes <= n; i += kLanes) m = max(m, Vec::load(x + i));
    top = maximum(m);
  }
  for (; i < n; ++i) top = x[i] > top ? x[i] : top;
  const Vec shift = Vec::set1(top);
  Vec total = Vec::zero();
  float rest = 0;
  for (i = 0; i < n; i += kLanes) {
    const int left = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    const Vec d = Vec::load_range(x + i, 0, left) - shift, e = exp(d);
    if (left == kLanes) {
      total = total + e;
      (log ? d : e).store(y + i);
    } else {
      float t[kLanes];
      e.store(t);
      for (int k = 0; k < left; ++k) rest += t[k];
      (log ? d : e).store_first(y + i, left);
    }
  }
  const float all = sum(total) + rest, scale = 1.0f / all, minus = log ? ::logf(all) : 0.0f;
  for (i = 0; i < n; i += kLanes) {
    const int left = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    const Vec v = Vec::load_range(y + i, 0, left);
    (log ? v - Vec::set1(minus) : v * Vec::set1(scale)).store_first(y + i, left);
  }
}

SECATEUR_INLINE void columns(const float* x, float* y, int64_t axis, int64_t inner, int left, bool log) {
  Vec top = Vec::load_range(x, 0, left);
  for (int64_t k = 1; k < axis; ++k) top = max(top, Vec::load_range(x + k * inner, 0, left));
  Vec total = Vec::zero();
  for (int64_t k = 0; k < axis; ++k) {
    const Vec d = Vec::load_range(x + k * inner, 0, left) - top, e = exp(d);
    total = total + e;
    (log ? d : e).store_first(y + k * inner, left);
  }
  const Vec scale = Vec::set1(1.0f) / total, minus = log ? log_lanes(total) : Vec::zero();
  for (int64_t k = 0; k < axis; ++k) {
    const Vec v = Vec::load_range(y + k * inner, 0, left);
    (log ? v - minus : v * scale).store_first(y + k * inner, left);
  }
}

SECATEUR_INLINE void softmax(const SoftmaxArgs& a) {
  for (int64_t o = 0; o < a.outer; ++o) {
    const float* x = a.x + o * a.axis * a.inner;
    float* y = a.y + o * a.axis * a.inner;
    if (a.inner == 1) {
      last_axis(x, y, a.axis, a.log);
    } else {
      for (int64_t i = 0; i < a.inner; i += kLanes)
        columns(x + i, y + i, a.axis, a.inner, a.inner - i < kLanes ? static_cast<int>(a.inner - i) : kLanes, a.log);
    }
  }
}

}  // namespace

namespace SECATEUR_LEVEL {
extern const SoftmaxKernels softmax_row = {kIsa, softmax};
}
}  // namespace secateur
