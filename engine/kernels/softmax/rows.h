// Declares what the rows of kernels.inc name.
#pragma once

#include "kernels/softmax/softmax.h"

namespace secateur {

#define SECATEUR_SOFTMAX(isa, run) void run(const SoftmaxArgs&);
#include "kernels/softmax/kernels.inc"
#undef SECATEUR_SOFTMAX

}  // namespace secateur
