// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/conv/conv.h"
#include "kernels/table.h"

namespace secateur {

#define SECATEUR_CONV(level, family, name, lanes, registers, block, supports, pack, run, task)                       \
  bool supports(const ConvShape&, const Epilogue&);                                                                  \
  std::unique_ptr<PackedConv> pack(const ConvKernel&, const ConvShape&, const Epilogue&, const float*, const float*, \
                                   const Tile&);                                                                     \
  void run(const PackedConv&, const ConvArgs&);                                                                      \
  namespace level {                                                                                                  \
  void task(const ConvView&, const ConvTask&);                                                                       \
  }
#include "kernels/conv/kernels.inc"
#undef SECATEUR_CONV

}  // namespace secateur
