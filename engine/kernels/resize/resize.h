// Resampling along one axis, fp32: x [outer][in][inner] -> y [outer][out][inner], contiguous, no overlap.
//   y[o][j][i] = sum over t of weight[j * taps + t] * x[o][index[j * taps + t]][i]
// Interpolation on a grid is separable: an image is resized axis by axis.
#pragma once

#include <cstdint>

namespace secateur {

struct Resample {
  int64_t outer = 1, in = 1, out = 1, inner = 1;
  int taps = 1;                    // 1 nearest, 2 linear, 4 cubic
  const int64_t* index = nullptr;  // in [0, in)
  const float* weight = nullptr;
};
void resample_ref(const Resample& r, const float* x, float* y) noexcept;

}  // namespace secateur
