// Softmax along one axis, fp32: x viewed as [outer][axis][inner], contiguous; y may be x.
//
//   y = exp(x - max) / sum exp(x - max);  log: x - max - log(sum exp(x - max)).
// Relative error of an element below (8 + axis / 4 + 2 abs(x - max)) * 2^-23.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace secateur {

struct SoftmaxArgs {
  const float* x = nullptr;
  float* y = nullptr;
  int64_t outer = 1, axis = 1, inner = 1;
  bool log = false;
};

struct SoftmaxKernels {
  Isa isa;
  void (*run)(const SoftmaxArgs&);
};

const SoftmaxKernels& softmax_kernels(Isa isa);  // the best row not above isa

}  // namespace secateur
