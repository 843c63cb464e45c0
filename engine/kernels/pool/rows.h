// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/pool/pool.h"

namespace secateur {

#define SECATEUR_POOL(isa, max, average, global_average) \
  void max(const PoolArgs&);                             \
  void average(const PoolArgs&);                         \
  void global_average(const PoolArgs&);
#include "kernels/pool/kernels.inc"
#undef SECATEUR_POOL

}  // namespace secateur
