// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/conv/conv.h"

namespace secateur {

#define SECATEUR_CONV(isa, family, name, lanes, registers, supports, pack, run)                                     \
  bool supports(const ConvShape&, const Epilogue&);                                                                 \
  std::unique_ptr<PackedConv> pack(const ConvKernel&, const ConvShape&, const Epilogue&, const float*, const float*); \
  void run(const PackedConv&, const ConvArgs&);
#include "kernels/conv/kernels.inc"
#undef SECATEUR_CONV

}  // namespace secateur
