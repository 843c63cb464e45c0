#include "simd/avx2.h"
#include "kernels/conv/generic.h"

namespace secateur {

void conv_sparse_task_avx2(const ConvView& v, const ConvTask& t) { sparse_task(v, t); }
void conv_dense_task_avx2(const ConvView& v, const ConvTask& t) { dense_task(v, t); }

}  // namespace secateur
