// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/linear/linear.h"
#include "kernels/table.h"

namespace secateur {

#define SECATEUR_LINEAR(level, family, name, lanes, registers, pack, run, task, many_task)                   \
  std::unique_ptr<PackedLinear> pack(const LinearKernel&, const LinearShape&, const Epilogue&, const float*, \
                                     const float*, int64_t);                                                 \
  void run(const PackedLinear&, const LinearArgs&);                                                          \
  namespace level {                                                                                          \
  void task(const LinearView&, const LinearTask&);                                                           \
  void many_task(const LinearView&, const LinearTask&);                                                      \
  }
#include "kernels/linear/kernels.inc"
#undef SECATEUR_LINEAR

}  // namespace secateur
