// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/attention/attention.h"

namespace secateur {

#define SECATEUR_ATTENTION(isa, name, scratch_bytes, run) \
  size_t scratch_bytes(const Attention&, int threads);    \
  void run(const Attention&, const AttentionArgs&);
#include "kernels/attention/kernels.inc"
#undef SECATEUR_ATTENTION

}  // namespace secateur
