// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/linear/linear.h"

namespace secateur {

#define SECATEUR_LINEAR(isa, family, name, lanes, registers, pack, run)                                              \
  std::unique_ptr<PackedLinear> pack(const LinearKernel&, const LinearShape&, const Epilogue&, const float*,          \
                                     const float*);                                                                  \
  void run(const PackedLinear&, const LinearArgs&);
#include "kernels/linear/kernels.inc"
#undef SECATEUR_LINEAR

}  // namespace secateur
