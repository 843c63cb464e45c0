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

// The rest of a row as a whole vector; what lies beyond adds nothing that a sum would show.
SECATEUR_INLINE Vec rest_of(const float* x, int n) {
  float t[kLanes];
  Vec::set1(-3e38f).store(t);
  for (int k = 0; k < n; ++k) t[k] = x[k];
  return Vec::load(t);
}

SECATEUR_INLINE float largest(const float* x, int64_t n) {
  int64_t i = 0;
  Vec m[4];
  SECATEUR_UNROLL
  for (int k = 0; k < 4; ++k) m[k] = Vec::set1(-__builtin_inff());
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    SECATEUR_UNROLL
    for (int k = 0; k < 4; ++k) m[k] = max(m[k], Vec::load(x + i + k * kLanes));
  }
  for (; i + kLanes <= n; i += kLanes) m[0] = max(m[0], Vec::load(x + i));
  if (i < n) m[1] = max(m[1], rest_of(x + i, static_cast<int>(n - i)));
  return maximum(max(max(m[0], m[1]), max(m[2], m[3])));
}

SECATEUR_INLINE void last_axis(const float* x, float* y, int64_t n, bool log) {
  const Vec shift = Vec::set1(largest(x, n));
  Vec total[2] = {Vec::zero(), Vec::zero()};
  int64_t i = 0;
  const auto one = [&](int64_t at, Vec& sum) {
    const Vec d = Vec::load(x + at) - shift, e = exp(d);
    sum = sum + e;
    (log ? d : e).store(y + at);
  };
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    __builtin_prefetch(x + n + i);  // the next row
    one(i, total[0]);
    one(i + kLanes, total[1]);
  }
  for (; i + kLanes <= n; i += kLanes) one(i, total[0]);
  const int left = static_cast<int>(n - i);
  if (left > 0) {
    const Vec d = rest_of(x + i, left) - shift, e = exp(d);
    total[1] = total[1] + e;
    (log ? d : e).store_first(y + i, left);
  }
  const float all = sum(total[0] + total[1]);
  const Vec scale = Vec::set1(1.0f / all), minus = Vec::set1(log ? ::logf(all) : 0.0f);
  const auto finish = [&](Vec v) { return log ? v - minus : v * scale; };
  for (i = 0; i + kLanes <= n; i += kLanes) finish(Vec::load(y + i)).store(y + i);
  if (left > 0) finish(Vec::load_range(y + i, 0, left)).store_first(y + i, left);
}

// `width` columns of one axis, rows `inner` floats apart. `table`, if any, keeps them while they are worked on: rows of
// large maps lie in a few sets of the caches, which would lose them between the passes.
SECATEUR_INLINE void columns(const float* x, float* y, int64_t axis, int64_t inner, int width, float* table, bool log) {
  for (int j = 0; j < width; j += kLanes) {
    const int left = width - j < kLanes ? width - j : kLanes;
    Vec top = Vec::set1(-__builtin_inff());
    for (int64_t k = 0; k < axis; ++k) {
      const Vec v = left == kLanes ? Vec::load(x + k * inner + j) : Vec::load_range(x + k * inner + j, 0, left);
      top = max(top, v);
      if (table) v.store(table + k * kLanes);
    }
    Vec total = Vec::zero();
    for (int64_t k = 0; k < axis; ++k) {
      float* at = table ? table + k * kLanes : y + k * inner + j;
      const Vec d = (table ? Vec::load(at) : Vec::load_range(x + k * inner + j, 0, left)) - top, e = exp(d);
      total = total + e;
      if (table) (log ? d : e).store(at);
      else (log ? d : e).store_first(at, left);
    }
    const Vec scale = Vec::set1(1.0f) / total, minus = log ? log_lanes(total) : Vec::zero();
    for (int64_t k = 0; k < axis; ++k) {
      const Vec v = table ? Vec::load(table + k * kLanes) : Vec::load_range(y + k * inner + j, 0, left);
      (log ? v - minus : v * scale).store_first(y + k * inner + j, left);
    }
  }
}

SECATEUR_INLINE void softmax(const SoftmaxArgs& a) {
  constexpr int kTable = 2048;
  alignas(64) float table[kTable];
  const bool fits = a.axis * kLanes <= kTable;
  for (int64_t o = 0; o < a.outer; ++o) {
    const float* x = a.x + o * a.axis * a.inner;
    float* y = a.y + o * a.axis * a.inner;
    if (a.inner == 1) {
      last_axis(x, y, a.axis, a.log);
    } else {
      for (int64_t i = 0; i < a.inner; i += 4 * kLanes)
        columns(x + i, y + i, a.axis, a.inner, a.inner - i < 4 * kLanes ? static_cast<int>(a.inner - i) : 4 * kLanes,
                fits ? table : nullptr, a.log);
    }
  }
}

}  // namespace

namespace SECATEUR_LEVEL {
extern const SoftmaxKernels softmax_row = {kIsa, softmax};
}
}  // namespace secateur
