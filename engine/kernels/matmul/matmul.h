// Product of two matrices that are both computed while running, with broadcast batch axes.
//   y[..][i][j] = alpha * sum_k a[..][i*a_row + k*a_col] * b[..][k*b_row + j*b_col]
// y is contiguous [dims..., m, n] and overlaps neither operand. Strides count elements; nothing outside is touched.
//
// One task is a panel of columns of one batch entry: its part of b is copied once into scratch (64-byte aligned), rows
// of y are done a few at a time. Same bits for any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu.h"
#include "base/threads.h"
#include "kernels/eltwise/typed.h"

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

struct MatMulArgs {
  const float* a = nullptr;
  const float* b = nullptr;
  float* y = nullptr;
  void* scratch = nullptr;
  Threads* threads = nullptr;
};

struct MatMulKernel {
  Isa isa;
  const char* name;
  size_t (*scratch_bytes)(const MatMul&, int threads);
  void (*run)(const MatMul&, const MatMulArgs&);
};

const MatMulKernel& matmul_kernel(Isa isa);  // the best row not above isa

// Where batch entry `batch` of the operands begins, and the number of entries.
inline int64_t matmul_batches(const MatMul& p) {
  int64_t count = 1;
  for (int i = 0; i < p.rank; ++i) count *= p.dims[i];
  return count;
}
inline void matmul_offsets(const MatMul& p, int64_t batch, int64_t& a, int64_t& b) {
  a = b = 0;
  for (int i = p.rank - 1; i >= 0; --i) {
    a += batch % p.dims[i] * p.a_batch[i];
    b += batch % p.dims[i] * p.b_batch[i];
    batch /= p.dims[i];
  }
}

}  // namespace secateur
