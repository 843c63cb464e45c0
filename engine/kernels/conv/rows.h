// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/conv/conv.h"

namespace secateur {

#define SECATEUR_CONV_TASK(task) void task(const ConvView&, const ConvTask&);
#define SECATEUR_CONV(isa, family, name, lanes, registers, block, supports, pack, run, task)                               \
  bool supports(const ConvShape&, const Epilogue&);                                                                 \
  std::unique_ptr<PackedConv> pack(const ConvKernel&, const ConvShape&, const Epilogue&, const float*, const float*, const Tile&); \
  void run(const PackedConv&, const ConvArgs&);                                                                     \
  SECATEUR_CONV_TASK(task)
#include "kernels/conv/kernels.inc"
#undef SECATEUR_CONV
#undef SECATEUR_CONV_TASK

}  // namespace secateur
