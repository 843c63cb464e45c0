// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/eltwise/eltwise.h"

namespace secateur {

#define SECATEUR_ELTWISE(isa, add_act, unary, binary, affine)                                  \
  void add_act(const float* a, const float* b, float* y, int64_t n, const Activation& act);   \
  void unary(const UnaryArgs&);                                                               \
  void binary(const BinaryArgs&);                                                             \
  void affine(const AffineArgs&);
#include "kernels/eltwise/kernels.inc"
#undef SECATEUR_ELTWISE

}  // namespace secateur
