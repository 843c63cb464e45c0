// Register blocks of a dense product, once for all ISAs: for the generic.cc of kernels that multiply activations.
//
// A panel holds kPanel columns of b: [k][kPanel], zeros behind the last column to the end of its vector; the vectors
// behind that are not read.
#pragma once

#include <cstdint>

#include "simd/vec_here.h"

namespace secateur {
namespace {

constexpr int kBlockRows = 6;
constexpr int kBlockVectors = Vec::kRegisters == 32 ? 4 : 2;
constexpr int kPanel = kBlockVectors * Vec::kLanes;

// Columns [0, n) of b, n <= kPanel, into `to`.
SECATEUR_INLINE void pack_panel(const float* b, int64_t b_row, int64_t b_col, int64_t k, int n, float* to) {
  constexpr int kLanes = Vec::kLanes;
  const int vectors = (n + kLanes - 1) / kLanes;
  if (b_col == 1) {
    for (int64_t i = 0; i < k; ++i, b += b_row, to += kPanel) {
      if (n == kPanel) {
        SECATEUR_UNROLL
        for (int p = 0; p < kBlockVectors; ++p) Vec::load(b + p * kLanes).store(to + p * kLanes);
      } else {
        for (int p = 0; p < vectors; ++p) Vec::load_range(b + p * kLanes, 0, n - p * kLanes).store(to + p * kLanes);
      }
    }
    return;
  }
  if (n % kLanes)
    for (int64_t i = 0; i < k; ++i) Vec::zero().store(to + i * kPanel + (vectors - 1) * kLanes);
  int j = 0;
  if (b_row == 1)
    for (; j + 4 <= n; j += 4) {
      const float* from = b + j * b_col;
      int64_t i = 0;
      for (; i + 4 <= k; i += 4) transpose4(from + i, b_col, to + i * kPanel + j, kPanel);
      for (; i < k; ++i)
        for (int c = 0; c < 4; ++c) to[i * kPanel + j + c] = from[c * b_col + i];
    }
  for (; j < n; ++j)
    for (int64_t i = 0; i < k; ++i) to[i * kPanel + j] = b[i * b_row + j * b_col];
}

// y[0..M)[0..n) = alpha * a * panel; P vectors hold the n columns.
template <int M, int P>
void block(const float* a, int64_t a_row, int64_t a_col, const float* panel, int64_t k, float alpha, float* y,
           int64_t y_row, int n) {
  constexpr int kLanes = Vec::kLanes;
  Vec sums[M][P];
  SECATEUR_UNROLL
  for (int m = 0; m < M; ++m) {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[m][p] = Vec::zero();
  }
  for (int64_t i = 0; i < k; ++i, panel += kPanel, a += a_col) {
    Vec b[P];
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) b[p] = Vec::load(panel + p * kLanes);
    SECATEUR_UNROLL
    for (int m = 0; m < M; ++m) {
      const Vec v = Vec::set1(a[m * a_row]);
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[m][p] = fma(v, b[p], sums[m][p]);
    }
  }
  SECATEUR_UNROLL
  for (int m = 0; m < M; ++m) {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) {
      const int left = n - p * kLanes;
      const Vec v = sums[m][p] * Vec::set1(alpha);
      if (left >= kLanes) {
        v.store(y + m * y_row + p * kLanes);
      } else if (left > 0) {
        v.store_first(y + m * y_row + p * kLanes, left);
      }
    }
  }
}

using BlockFn = void (*)(const float*, int64_t, int64_t, const float*, int64_t, float, float*, int64_t, int);

template <int P>
BlockFn block_function(int m) {
  constexpr BlockFn table[] = {block<1, P>, block<2, P>, block<3, P>, block<4, P>, block<5, P>, block<6, P>};
  return table[m - 1];
}

SECATEUR_INLINE BlockFn block_function(int m, int n) {
  const int vectors = (n + Vec::kLanes - 1) / Vec::kLanes;
  if (vectors == 1) return block_function<1>(m);
  if constexpr (kBlockVectors == 4) {
    if (vectors == 3) return block_function<3>(m);
    if (vectors == 4) return block_function<4>(m);
  }
  return block_function<2>(m);
}

// Rows [0, m) of y.
SECATEUR_INLINE void multiply_panel(const float* a, int64_t a_row, int64_t a_col, const float* panel, int64_t m,
                                    int64_t k, float alpha, float* y, int64_t y_row, int n) {
  for (int64_t i = 0; i < m; i += kBlockRows) {
    const int rows = static_cast<int>(m - i < kBlockRows ? m - i : kBlockRows);
    block_function(rows, n)(a + i * a_row, a_row, a_col, panel, k, alpha, y + i * y_row, y_row, n);
  }
}

}  // namespace
}  // namespace secateur
