// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/quads/quads.h"

namespace secateur {

#define SECATEUR_QUADS(isa, suffix)                   \
  void quads_quantize_##suffix(const QuantizeArgs&);  \
  void quads_dequantize_##suffix(const DequantizeArgs&); \
  void quads_add_##suffix(const QAddArgs&);           \
  void quads_max_pool_##suffix(const QPoolArgs&);     \
  void quads_quantize_run_##suffix(const RunArgs&);   \
  void quads_dequantize_run_##suffix(const RunArgs&); \
  void quads_range_##suffix(int64_t, const float*, float*, float*); \
  void quads_turn_##suffix(int64_t, int64_t, const uint8_t*, uint8_t*);
#include "kernels/quads/kernels.inc"
#undef SECATEUR_QUADS

}  // namespace secateur
