// Product of two matrices that are both computed while running, with broadcast batch axes; plain loops.
//   y[..][i][j] = alpha * sum_k a[..][i*a_row + k*a_col] * b[..][k*b_row + j*b_col]
// y is contiguous [dims..., m, n] and overlaps neither operand. Strides count elements.
#pragma once

#include <cstdint>

#include "kernels/generic/generic.h"

namespace secateur {

struct MatMul {
  int64_t m = 0, n = 0, k = 0;
  int64_t a_row = 0, a_col = 1, b_row = 0, b_col = 1;
  int rank = 0;  // batch axes
  int64_t dims[kMaxRank] = {};
  int64_t a_batch[kMaxRank] = {};
  int64_t b_batch[kMaxRank] = {};
  float alpha = 1.0f;
};
void matmul_f32_ref(const MatMul& p, const float* a, const float* b, float* y) noexcept;

}  // namespace secateur
