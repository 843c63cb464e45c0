#include "simd/avx512.h"
#include "kernels/linear/generic.h"

namespace secateur {

void linear_sparse_task_avx512(const LinearView& v, const LinearTask& t) { sparse_task(v, t); }
void linear_sparse_many_task_avx512(const LinearView& v, const LinearTask& t) { sparse_many_task(v, t); }
void linear_block_task_avx512(const LinearView& v, const LinearTask& t) { block_task(v, t); }
void linear_dense_task_avx512(const LinearView& v, const LinearTask& t) { dense_task(v, t); }

}  // namespace secateur
