// Resampling along one axis, fp32: x [outer][in][inner] -> y [outer][out][inner], contiguous, no overlap.
//   y[o][j][i] = sum over t of weight[j * taps + t] * x[o][index[j * taps + t]][i]
// Interpolation on a grid is separable: an image is resized axis by axis.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace secateur {

struct Resample {
  int64_t outer = 1, in = 1, out = 1, inner = 1;
  int taps = 1;                    // 1 nearest, 2 linear, 4 cubic
  const int64_t* index = nullptr;  // in [0, in)
  const float* weight = nullptr;
};
void resample_ref(const Resample& r, const float* x, float* y) noexcept;

// The last two axes at once, one or two taps each: x [planes][in_h][in_w] -> y [planes][out_h][out_w], contiguous, no
// overlap. Columns first, then rows, as resample_ref() one after the other; a row of the image is widened once for all
// rows of the result that lie on it.
struct ResizePlanes {
  int64_t planes = 1;
  int in_h = 1, in_w = 1, out_h = 1, out_w = 1;
  int taps = 1;  // of both axes
  // [out][taps] of the rows, [taps][out] of the columns
  const int32_t* rows = nullptr;
  const float* row_weights = nullptr;
  const uint32_t* columns = nullptr;
  const float* column_weights = nullptr;
  bool twice = false;  // one tap, out_w = 2 in_w, column j reads j / 2
};

struct ResizeKernels {
  Isa isa;
  void (*planes)(const ResizePlanes&, const float* x, float* y);
};
const ResizeKernels& resize_kernels(Isa isa);  // the best row not above isa

}  // namespace secateur
