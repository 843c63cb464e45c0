#include "kernels/softmax/rows.h"

namespace secateur {
namespace {

constexpr SoftmaxKernels kTable[] = {
#define SECATEUR_SOFTMAX(isa, ...) {Isa::isa, __VA_ARGS__},
#include "kernels/softmax/kernels.inc"
#undef SECATEUR_SOFTMAX
};

}  // namespace

const SoftmaxKernels& softmax_kernels(Isa isa) {
  const SoftmaxKernels* best = &kTable[0];
  for (const SoftmaxKernels& k : kTable)
    if (k.isa <= isa) best = &k;
  return *best;
}

}  // namespace secateur
