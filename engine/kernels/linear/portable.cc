#include "simd/portable.h"
#include "kernels/linear/generic.h"

namespace secateur {

void linear_sparse_task_portable(const LinearView& v, const LinearTask& t) { sparse_task(v, t); }
void linear_sparse_many_task_portable(const LinearView& v, const LinearTask& t) { sparse_many_task(v, t); }
void linear_block_task_portable(const LinearView& v, const LinearTask& t) { block_task(v, t); }
void linear_dense_task_portable(const LinearView& v, const LinearTask& t) { dense_task(v, t); }

}  // namespace secateur
