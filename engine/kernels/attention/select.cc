#include "kernels/attention/rows.h"

namespace secateur {
namespace {

constexpr AttentionKernel kTable[] = {
#define SECATEUR_ATTENTION(isa, name, ...) {Isa::isa, #name, __VA_ARGS__},
#include "kernels/attention/kernels.inc"
#undef SECATEUR_ATTENTION
};

}  // namespace

const AttentionKernel& attention_kernel(Isa isa) {
  const AttentionKernel* best = &kTable[0];
  for (const AttentionKernel& k : kTable)
    if (k.isa <= isa) best = &k;
  return *best;
}

}  // namespace secateur
