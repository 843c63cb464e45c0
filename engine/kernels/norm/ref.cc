// The oracle: the formulas of norm.h, loop for loop, sums in double.
#include <algorithm>
#include <cmath>

#include "kernels/norm/norm.h"
#include "kernels/table.h"

namespace secateur {

void layer_norm_ref(const LayerNormArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * a.n;
    const float* residual = a.residual ? a.residual + r * a.n : nullptr;
    const auto value = [&](int64_t i) { return residual ? x[i] + residual[i] : x[i]; };
    double mean = 0, squares = 0;
    if (!a.rms) {
      for (int64_t i = 0; i < a.n; ++i) mean += value(i);
      mean /= static_cast<double>(a.n);
    }
    for (int64_t i = 0; i < a.n; ++i) squares += (value(i) - mean) * (value(i) - mean);
    const double inv_std = 1.0 / std::sqrt(squares / static_cast<double>(a.n) + static_cast<double>(a.eps));
    for (int64_t i = 0; i < a.n; ++i) {
      const float v = value(i);
      const double scaled = (v - mean) * inv_std;
      if (a.sum) a.sum[r * a.n + i] = v;
      a.y[r * a.n + i] = static_cast<float>(scaled * (a.scale ? a.scale[i] : 1.0f) + (a.bias ? a.bias[i] : 0.0f));
    }
    if (a.mean) a.mean[r] = static_cast<float>(mean);
    if (a.inv_std) a.inv_std[r] = static_cast<float>(inv_std);
  }
}

void group_norm_ref(const GroupNormArgs& a) {
  const int64_t per = a.channels / a.groups, n = per * a.plane;
  for (int64_t g = 0; g < a.batch * a.groups; ++g) {
    const float* x = a.x + g * n;
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < n; ++i) mean += x[i];
    mean /= static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
    const double inv_std = 1.0 / std::sqrt(squares / static_cast<double>(n) + static_cast<double>(a.eps));
    for (int64_t i = 0; i < n; ++i) {
      const int64_t c = g % a.groups * per + i / a.plane;
      a.y[g * n + i] = static_cast<float>((x[i] - mean) * inv_std * a.scale[c] + a.bias[c]);
    }
  }
}

void lrn_ref(const LrnArgs& a) {
  const int64_t before = (a.size - 1) / 2, after = a.size - 1 - before;
  for (int64_t b = 0; b < a.batch; ++b)
    for (int64_t c = 0; c < a.channels; ++c) {
      const int64_t lo = std::max<int64_t>(0, c - before), hi = std::min(a.channels - 1, c + after);
      for (int64_t i = 0; i < a.plane; ++i) {
        float squares = 0;
        for (int64_t k = lo; k <= hi; ++k) {
          const float v = a.x[(b * a.channels + k) * a.plane + i];
          squares += v * v;
        }
        const int64_t at = (b * a.channels + c) * a.plane + i;
        a.y[at] = a.x[at] / std::pow(a.k + a.alpha / static_cast<float>(a.size) * squares, a.beta);
      }
    }
}

namespace ref {
extern const NormKernels norm_row = {kIsa, layer_norm_ref, group_norm_ref};
}
SECATEUR_TABLE(SECATEUR_WITH_REF, NormKernels, norm_row, norm_kernels)

}  // namespace secateur
