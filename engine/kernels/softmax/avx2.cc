#include "simd/avx2.h"
#include "kernels/softmax/generic.h"

namespace secateur {

void softmax_avx2(const SoftmaxArgs& args) { softmax(args); }

}  // namespace secateur
