#include "kernels/matmul/rows.h"

namespace secateur {
namespace {

constexpr MatMulKernel kTable[] = {
#define SECATEUR_MATMUL(isa, name, ...) {Isa::isa, #name, __VA_ARGS__},
#include "kernels/matmul/kernels.inc"
#undef SECATEUR_MATMUL
};

}  // namespace

const MatMulKernel& matmul_kernel(Isa isa) {
  const MatMulKernel* best = &kTable[0];
  for (const MatMulKernel& k : kTable)
    if (k.isa <= isa) best = &k;
  return *best;
}

}  // namespace secateur
