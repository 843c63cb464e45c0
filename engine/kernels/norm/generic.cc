// Normalisation, once for all ISAs: compiled for every level of kernels/table.h.
#include "kernels/norm/norm.h"
#include "kernels/table.h"
#include "simd/vec_here.h"

extern "C" float sqrtf(float);

namespace secateur {
namespace {

constexpr int kLanes = Vec::kLanes;

// f(vector, index of its first element, lanes that count, k) along n floats, k = 0, 1, 2, 3, 0, ... known when compiled
// for sums of their own; lanes beyond n hold 0.
template <class F>
SECATEUR_INLINE void along(const float* x, int64_t n, F f) {
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    SECATEUR_UNROLL
    for (int k = 0; k < 4; ++k) f(Vec::load(x + i + k * kLanes), i + k * kLanes, kLanes, k);
  }
  for (; i + kLanes <= n; i += kLanes) f(Vec::load(x + i), i, kLanes, 0);
  if (i < n) f(Vec::load_range(x + i, 0, static_cast<int>(n - i)), i, static_cast<int>(n - i), 0);
}

// Nearly all vectors are whole: masked moves are slower.
SECATEUR_INLINE Vec first(const float* p, int n) { return n == kLanes ? Vec::load(p) : Vec::load_range(p, 0, n); }
SECATEUR_INLINE void put(Vec v, float* p, int n) {
  if (n == kLanes) {
    v.store(p);
  } else {
    v.store_first(p, n);
  }
}

struct Moments {
  float mean, inv_std;
};

// Lanes beyond the end would add mean^2 each: the last, partial vector is summed apart.
SECATEUR_INLINE Moments moments(const float* x, int64_t n, float eps, bool rms) {
  float mean = 0;
  if (!rms) {
    Vec total[4] = {Vec::zero(), Vec::zero(), Vec::zero(), Vec::zero()};
    along(x, n, [&](Vec v, int64_t, int, int k) { total[k] = total[k] + v; });
    mean = sum((total[0] + total[1]) + (total[2] + total[3])) / static_cast<float>(n);
  }
  const Vec shift = Vec::set1(mean);
  Vec squares[4] = {Vec::zero(), Vec::zero(), Vec::zero(), Vec::zero()};
  float rest = 0;
  along(x, n, [&](Vec v, int64_t, int left, int k) {
    const Vec d = v - shift;
    if (left == kLanes) {
      squares[k] = fma(d, d, squares[k]);
    } else {
      float t[kLanes];
      (d * d).store(t);
      for (int k = 0; k < left; ++k) rest += t[k];
    }
  });
  const float variance = (sum((squares[0] + squares[1]) + (squares[2] + squares[3])) + rest) / static_cast<float>(n);
  return {mean, 1.0f / ::sqrtf(variance + eps)};
}

SECATEUR_INLINE void layer_row(const LayerNormArgs& a, int64_t r) {
  const float* x = a.x + r * a.n;
  float* y = a.y + r * a.n;
  if (a.residual) {
    // y holds the sum until it is normalised in place.
    const float* other = a.residual + r * a.n;
    float* also = a.sum ? a.sum + r * a.n : nullptr;
    along(x, a.n, [&](Vec v, int64_t i, int left, int) {
      v = v + first(other + i, left);
      put(v, y + i, left);
      if (also) put(v, also + i, left);
    });
    x = y;
  }
  const Moments m = moments(x, a.n, a.eps, a.rms);
  const Vec shift = Vec::set1(m.mean), scale = Vec::set1(m.inv_std);
  along(x, a.n, [&](Vec v, int64_t i, int left, int) {
    v = (v - shift) * scale;
    if (a.scale) v = v * first(a.scale + i, left);
    if (a.bias) v = v + first(a.bias + i, left);
    put(v, y + i, left);
  });
  if (a.mean) a.mean[r] = m.mean;
  if (a.inv_std) a.inv_std[r] = m.inv_std;
}

SECATEUR_INLINE void layer_norm(const LayerNormArgs& a) {
  constexpr int64_t kRows = 16;  // a task; fewer would cost more to hand out than to do
  const auto task = [&](int64_t t, int) {
    for (int64_t r = t * kRows; r < (t + 1) * kRows && r < a.rows; ++r) layer_row(a, r);
  };
  const int64_t tasks = (a.rows + kRows - 1) / kRows;
  if (a.threads && a.rows * a.n > 50000) {
    a.threads->parallel(tasks, task);
  } else {
    for (int64_t t = 0; t < tasks; ++t) task(t, 0);
  }
}

SECATEUR_INLINE void group_norm(const GroupNormArgs& a) {
  const int64_t per = a.channels / a.groups, n = per * a.plane;
  const auto task = [&](int64_t g, int) {
    const Moments m = moments(a.x + g * n, n, a.eps, false);
    for (int64_t p = 0; p < per; ++p) {
      const int64_t c = g % a.groups * per + p, at = g * n + p * a.plane;
      const Vec scale = Vec::set1(m.inv_std * a.scale[c]), shift = Vec::set1(m.mean), bias = Vec::set1(a.bias[c]);
      along(a.x + at, a.plane,
            [&](Vec v, int64_t i, int left, int) { put(fma(v - shift, scale, bias), a.y + at + i, left); });
    }
  };
  if (a.threads && a.batch * a.channels * a.plane > 50000) {
    a.threads->parallel(a.batch * a.groups, task);
  } else {
    for (int64_t g = 0; g < a.batch * a.groups; ++g) task(g, 0);
  }
}

}  // namespace

namespace SECATEUR_LEVEL {
extern const NormKernels norm_row = {kIsa, layer_norm, group_norm};
}
}  // namespace secateur
