#include "simd/portable.h"
#include "kernels/softmax/generic.h"

namespace secateur {

void softmax_portable(const SoftmaxArgs& args) { softmax(args); }

}  // namespace secateur
