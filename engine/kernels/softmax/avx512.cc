#include "simd/avx512.h"
#include "kernels/softmax/generic.h"

namespace secateur {

void softmax_avx512(const SoftmaxArgs& args) { softmax(args); }

}  // namespace secateur
