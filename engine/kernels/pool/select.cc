#include "kernels/pool/rows.h"

namespace secateur {
namespace {

constexpr PoolKernels kTable[] = {
#define SECATEUR_POOL(isa, max, average, global_average) {Isa::isa, max, average, global_average},
#include "kernels/pool/kernels.inc"
#undef SECATEUR_POOL
};

}  // namespace

const PoolKernels& pool_kernels(Isa isa) {
  const PoolKernels* best = &kTable[0];
  for (const PoolKernels& k : kTable)
    if (k.isa <= isa) best = &k;
  return *best;
}

}  // namespace secateur
