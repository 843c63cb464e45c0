#include "kernels/eltwise/rows.h"

namespace secateur {
namespace {

constexpr EltwiseKernels kTable[] = {
#define SECATEUR_ELTWISE(isa, ...) {Isa::isa, __VA_ARGS__},
#include "kernels/eltwise/kernels.inc"
#undef SECATEUR_ELTWISE
};

}  // namespace

const EltwiseKernels& eltwise_kernels(Isa isa) {
  const EltwiseKernels* best = &kTable[0];
  for (const EltwiseKernels& k : kTable)
    if (k.isa <= isa) best = &k;
  return *best;
}

}  // namespace secateur
