// Reductions of float32 over any set of axes.
#pragma once

#include <cstdint>

#include "kernels/eltwise/typed.h"

namespace secateur {

enum class ReduceOp : int32_t {
  kMean,
  kSum,
  kMax,
  kMin,
  kProd,
  kL1,
  kL2,
  kSumSquare,
  kLogSum,
  kLogSumExp
};  // the last two and kL2: f32 only

// y = op over the axes with reduce[i]. x contiguous with dims[0..rank), y contiguous with those axes dropped.
// Sums are carried in float64, so that the order of summation does not show in the result.
struct Reduce {
  ReduceOp op = ReduceOp::kMean;
  int rank = 0;
  int64_t dims[kMaxRank] = {};
  bool reduce[kMaxRank] = {};
};
void reduce_f32_ref(const Reduce& p, const float* x, float* y) noexcept;
void reduce_i64_ref(const Reduce& p, const int64_t* x, int64_t* y) noexcept;

}  // namespace secateur
