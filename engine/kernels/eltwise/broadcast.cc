#include <algorithm>

#include "kernels/eltwise/eltwise.h"

namespace secateur {

bool broadcast(const int64_t* a_dims, int a_rank, const int64_t* b_dims, int b_rank, BinaryArgs* args) {
  const int rank = std::max(a_rank, b_rank);
  if (rank > kMaxDims) return false;
  int64_t a_step = 1, b_step = 1;
  args->n_dims = std::max(rank, 1);
  args->dims[0] = 1;
  args->a_strides[0] = args->b_strides[0] = 0;
  for (int d = rank - 1; d >= 0; --d) {
    const int ia = d - (rank - a_rank), ib = d - (rank - b_rank);
    const int64_t na = ia >= 0 ? a_dims[ia] : 1, nb = ib >= 0 ? b_dims[ib] : 1;
    if (na != nb && na != 1 && nb != 1) return false;
    args->dims[d] = na == 1 ? nb : na;
    args->a_strides[d] = na == 1 ? 0 : a_step;
    args->b_strides[d] = nb == 1 ? 0 : b_step;
    a_step *= na;
    b_step *= nb;
  }
  return true;
}

}  // namespace secateur
