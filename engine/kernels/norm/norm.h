// Normalisation with statistics of the input itself, fp32. y may be x; residual, mean and the like overlap nothing
// else.
//
//   layer:  per row of n:  v = x + residual;  y = scale (v - mean v) / sqrt(var v + eps) + bias
//           rms: no mean is taken away and mean(v^2) stands for the variance. scale, bias: [n]
//   group:  per image and group of channels: the same over (channels / groups) * plane values; scale, bias: [channels].
//           One channel a group is InstanceNormalization.
//   lrn:    y[c] = x[c] / (k + alpha / size * sum of squares of the channels around c)^beta    (AlexNet)
// The variance is the mean of squared differences, taken in a second pass over the row: no cancellation.
#pragma once

#include <cstdint>

#include "base/cpu.h"
#include "base/threads.h"

namespace secateur {

struct LayerNormArgs {
  const float* x = nullptr;
  const float* residual = nullptr;  // null: none
  const float* scale = nullptr;     // null: 1
  const float* bias = nullptr;      // null: 0
  float* y = nullptr;
  float* sum = nullptr;      // null, or where x + residual goes too
  float* mean = nullptr;     // null, or [rows]
  float* inv_std = nullptr;  // null, or [rows]
  int64_t rows = 0, n = 0;   // n >= 1
  float eps = 1e-5f;
  bool rms = false;
  Threads* threads = nullptr;
};

struct GroupNormArgs {
  const float* x = nullptr;
  const float* scale = nullptr;
  const float* bias = nullptr;
  float* y = nullptr;
  int64_t batch = 0, channels = 0, groups = 0, plane = 0;  // channels a multiple of groups, plane >= 1
  float eps = 1e-5f;
  Threads* threads = nullptr;
};

struct LrnArgs {
  const float* x = nullptr;
  float* y = nullptr;
  int64_t batch = 0, channels = 0, plane = 0, size = 1;
  float alpha = 1e-4f, beta = 0.75f, k = 1.0f;
};

struct NormKernels {
  Isa isa;
  void (*layer)(const LayerNormArgs&);
  void (*group)(const GroupNormArgs&);
};

const NormKernels& norm_kernels(Isa isa);  // the best row not above isa
void lrn_ref(const LrnArgs& args);         // y must not be x

}  // namespace secateur
