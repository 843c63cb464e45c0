// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/quads/quads.h"

namespace secateur {

#define SECATEUR_QUADS(isa, suffix)                   \
  void quads_quantize_##suffix(const QuantizeArgs&);  \
  void quads_dequantize_##suffix(const DequantizeArgs&); \
  void quads_add_##suffix(const QAddArgs&);           \
  void quads_max_pool_##suffix(const QPoolArgs&);
#include "kernels/quads/kernels.inc"
#undef SECATEUR_QUADS

}  // namespace secateur
