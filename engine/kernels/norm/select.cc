#include "kernels/norm/rows.h"

namespace secateur {
namespace {

constexpr NormKernels kTable[] = {
#define SECATEUR_NORM(isa, ...) {Isa::isa, __VA_ARGS__},
#include "kernels/norm/kernels.inc"
#undef SECATEUR_NORM
};

}  // namespace

const NormKernels& norm_kernels(Isa isa) {
  const NormKernels* best = &kTable[0];
  for (const NormKernels& k : kTable)
    if (k.isa <= isa) best = &k;
  return *best;
}

}  // namespace secateur
