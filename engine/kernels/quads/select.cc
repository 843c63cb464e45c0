#include "kernels/quads/rows.h"

namespace secateur {
namespace {

constexpr QuadsKernels kTable[] = {
#define SECATEUR_QUADS(isa, suffix) \
  {Isa::isa, quads_quantize_##suffix, quads_dequantize_##suffix, quads_add_##suffix, quads_max_pool_##suffix, quads_quantize_run_##suffix, \
   quads_dequantize_run_##suffix, quads_turn_##suffix, quads_range_##suffix},
#include "kernels/quads/kernels.inc"
#undef SECATEUR_QUADS
};

}  // namespace

const QuadsKernels& quads_kernels(Isa isa) {
  const QuadsKernels* best = &kTable[0];
  for (const QuadsKernels& k : kTable)
    if (k.isa <= isa) best = &k;
  return *best;
}

}  // namespace secateur
