// Elementwise operators of the dtypes that shape arithmetic needs; eltwise.h has the fast float32 ones.
//
// Arrays are C-contiguous unless strides are given; strides count elements, 0 repeats. Buffers may be the same array
// (in place) when shapes agree; partial overlap is not allowed. No alignment is required.
#pragma once

#include <cstddef>
#include <cstdint>

namespace secateur {

inline constexpr int kMaxRank = 8;

enum class BinaryOp : int32_t { kAdd, kSub, kMul, kDiv, kMin, kMax, kPow };

// y[i] = a[i] op b[i]; y contiguous with dims[0..rank), a and b through their strides.
struct Broadcast {
  BinaryOp op = BinaryOp::kAdd;
  int rank = 0;
  int64_t dims[kMaxRank] = {};
  int64_t stride_a[kMaxRank] = {};
  int64_t stride_b[kMaxRank] = {};
};

// Fills dims and strides for shapes a and b (ranks <= kMaxRank), merging axes that can be walked as one.
// Returns false when the shapes do not broadcast. The result's shape is written to out_dims (max of the ranks).
bool make_broadcast(const int64_t* a, int rank_a, const int64_t* b, int rank_b, Broadcast& plan, int64_t* out_dims);

void binary_f64_ref(const Broadcast& p, const double* a, const double* b, double* y) noexcept;
void binary_i64_ref(const Broadcast& p, const int64_t* a, const int64_t* b, int64_t* y) noexcept;  // x / 0 = 0, wraps
void binary_i32_ref(const Broadcast& p, const int32_t* a, const int32_t* b, int32_t* y) noexcept;

}  // namespace secateur
