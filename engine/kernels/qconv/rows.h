// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/qconv/qconv.h"
#include "kernels/table.h"

namespace secateur {

#define SECATEUR_QCONV(level, family, name, lanes, max_block, weight_words, supports, pack, run, task)       \
  bool supports(const ConvShape&, const QEpilogue&);                                                         \
  std::unique_ptr<PackedQConv> pack(const QConvKernel&, const ConvShape&, const QEpilogue&, const QWeights&, \
                                    const Tile&);                                                            \
  void run(const PackedQConv&, const QConvArgs&);                                                            \
  namespace level {                                                                                          \
  void task(const QConvView&, const QConvTask&);                                                             \
  }
#include "kernels/qconv/kernels.inc"
#undef SECATEUR_QCONV

}  // namespace secateur
