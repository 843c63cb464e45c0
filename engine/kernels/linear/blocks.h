// Blocks of 16 output features: a vector of features at a time, for single rows and for many. Included by generic.cc.
#pragma once

namespace secateur {
namespace {

constexpr int kBlockVectors = kLinearBlock / kLanes;
constexpr int kBlockRows = Vec::kRegisters == 32 ? 8 : kLanes == 8 ? 6 : 2;

template <int M, class Column>
void block_rows(const LinearView& v, int32_t g, const Column* columns, const float* x, const float* residual,
                float* y) {
  constexpr int C = M == 1 ? 4 : M <= 3 ? 2 : 1;  // chains, against the latency of an addition
  Vec sums[C][M][kBlockVectors];
  const int first = g * kLinearBlock;
  SECATEUR_UNROLL
  for (int m = 0; m < M; ++m) {
    SECATEUR_UNROLL
    for (int p = 0; p < kBlockVectors; ++p) {
      sums[0][m][p] = Vec::load(v.bias + first + p * kLanes);
      SECATEUR_UNROLL
      for (int c = 1; c < C; ++c) sums[c][m][p] = Vec::zero();
    }
  }
  int64_t j = v.row_begin[g];
  const int64_t stop = v.row_begin[g + 1];
  const auto step = [&](Vec(&to)[M][kBlockVectors], int64_t at, uint64_t column_at) {
    const float* w = v.weights + at * kLinearBlock;
    Vec ws[kBlockVectors];
    SECATEUR_UNROLL
    for (int p = 0; p < kBlockVectors; ++p) ws[p] = Vec::load(w + p * kLanes);
    const float* column = x + column_at;
    SECATEUR_UNROLL
    for (int m = 0; m < M; ++m) {
      const Vec xm = Vec::set1(column[int64_t{m} * v.in]);
      SECATEUR_UNROLL
      for (int p = 0; p < kBlockVectors; ++p) to[m][p] = fma(xm, ws[p], to[m][p]);
    }
  };
  for (; j + C <= stop; j += C) {
    if constexpr (C == 4 && sizeof(Column) == 2) {  // one load for four columns
      uint64_t four;
      __builtin_memcpy(&four, columns + j, 8);
      SECATEUR_UNROLL
      for (int c = 0; c < C; ++c) step(sums[c], j + c, four >> (16 * c) & 0xffff);
    } else {
      SECATEUR_UNROLL
      for (int c = 0; c < C; ++c) step(sums[c], j + c, columns[j + c]);
    }
  }
  for (; j < stop; ++j) step(sums[0], j, columns[j]);
  SECATEUR_UNROLL
  for (int m = 0; m < M; ++m) {
    const int64_t row = int64_t{m} * v.out + first;
    SECATEUR_UNROLL
    for (int p = 0; p < kBlockVectors; ++p) {
      const int left = v.out - first - p * kLanes;
      if (left <= 0) continue;
      Vec s = sums[0][m][p];
      SECATEUR_UNROLL
      for (int c = 1; c < C; ++c) s = s + sums[c][m][p];
      if (residual) s = s + Vec::load_range(residual + row + p * kLanes, 0, left);
      s = activate(s, v);
      if (left >= kLanes) {
        s.store(y + row + p * kLanes);
      } else {
        s.store_first(y + row + p * kLanes, left);
      }
    }
  }
}

template <class Column>
SECATEUR_INLINE void block_groups(const LinearView& v, const LinearTask& t, const Column* columns) {
  using Fn = void (*)(const LinearView&, int32_t, const Column*, const float*, const float*, float*);
  constexpr Fn table[] = {
      block_rows<1, Column>, block_rows<2, Column>,
#if defined(__AVX2__)
      block_rows<3, Column>, block_rows<4, Column>, block_rows<5, Column>, block_rows<6, Column>,
#endif
#if defined(__AVX512F__)
      block_rows<7, Column>, block_rows<8, Column>,
#endif
  };
  static_assert(sizeof table / sizeof *table == kBlockRows);
  for (int64_t r = 0; r < t.rows; r += kBlockRows) {
    const int m = static_cast<int>(t.rows - r < kBlockRows ? t.rows - r : kBlockRows);
    for (int32_t g = t.begin; g < t.end; ++g)
      table[m - 1](v, g, columns, t.x + r * v.in, t.residual ? t.residual + r * v.out : nullptr, t.y + r * v.out);
  }
}

SECATEUR_INLINE void block_task(const LinearView& v, const LinearTask& t) {
  if (v.columns16) {
    block_groups(v, t, v.columns16);
  } else {
    block_groups(v, t, v.columns32);
  }
}

}  // namespace
}  // namespace secateur
