// Images woven from their phases, fp32: what a transposed convolution is, once every phase of its result is computed by
// a convolution of its own.
//
//   y[p][i][j] = x[p][(i + top) % stride_h * stride_w + (j + left) % stride_w][(i + top) / stride_h][(j + left) /
//   stride_w]
//
// x [planes][stride_h * stride_w][in_h][in_w], y [planes][out_h][out_w], contiguous, no overlap.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace secateur {

struct Weave {
  int64_t planes = 1;
  int in_h = 1, in_w = 1, out_h = 1, out_w = 1;
  int stride_h = 1, stride_w = 1, top = 0, left = 0;
};

struct WeaveKernels {
  Isa isa;
  void (*run)(const Weave&, const float* x, float* y);
};

const WeaveKernels& weave_kernels(Isa isa);  // the best row not above isa

}  // namespace secateur
