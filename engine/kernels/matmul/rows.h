// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/matmul/matmul.h"

namespace secateur {

#define SECATEUR_MATMUL(isa, name, scratch_bytes, run) \
  size_t scratch_bytes(const MatMul&, int threads);    \
  void run(const MatMul&, const MatMulArgs&);
#include "kernels/matmul/kernels.inc"
#undef SECATEUR_MATMUL

}  // namespace secateur
