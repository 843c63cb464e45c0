// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/norm/norm.h"

namespace secateur {

#define SECATEUR_NORM(isa, layer, group) \
  void layer(const LayerNormArgs&);      \
  void group(const GroupNormArgs&);
#include "kernels/norm/kernels.inc"
#undef SECATEUR_NORM

}  // namespace secateur
