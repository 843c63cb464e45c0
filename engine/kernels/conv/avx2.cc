#include "simd/avx2.h"
#include "kernels/conv/generic.h"

namespace secateur {

void conv_sparse_task_avx2(const ConvView& v, const ConvTask& t) { sparse_task(v, t); }
void conv_block2_task_avx2(const ConvView& v, const ConvTask& t) { block_task<2>(v, t); }
void conv_block4_task_avx2(const ConvView& v, const ConvTask& t) { block_task<4>(v, t); }
void conv_block8_task_avx2(const ConvView& v, const ConvTask& t) { block_task<8>(v, t); }
void conv_dense_task_avx2(const ConvView& v, const ConvTask& t) { dense_task(v, t); }

}  // namespace secateur
