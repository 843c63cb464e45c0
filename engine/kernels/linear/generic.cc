// The linear kernels, once for all ISAs: compiled for every level of kernels/table.h. view.h explains
// the layouts.
#include "kernels/linear/rows.h"
#include "kernels/linear/view.h"
#include "simd/vec_here.h"

namespace secateur {
namespace {

constexpr int kLanes = Vec::kLanes;
constexpr int kVectors = Vec::kRegisters == 32 ? kLinearVectors : kLinearVectorsSmall;
constexpr int kPanel = kVectors * kLanes;

// Vec or Eight.
template <class V>
SECATEUR_INLINE V activate(V x, const LinearView& v) {
  if (v.slope != 1.0f) x = max(x, V::set1(0.0f)) + min(x, V::set1(0.0f)) * V::set1(v.slope);
  return min(V::set1(v.hi), max(V::set1(v.lo), x));  // this order lets NaN through
}

// ---- sparse, one row
// -------------------------------------------------------------------------------------------------

template <class Column>
SECATEUR_INLINE void sparse_row(const LinearView& v, const LinearTask& t, const Column* columns, const float* x,
                                float* y, const float* residual) {
  for (int32_t g = t.begin; g < t.end; ++g) {
    const LinearGroup& group = v.groups[g];
    const Column* c = columns + group.begin;
    const float* w = v.weights + group.begin;
    const float* bias = v.bias + int64_t{g} * kLinearGroup;
    Eight sum = Eight::load(bias);
    for (int32_t j = 0; j < group.common; ++j, c += kLinearGroup, w += kLinearGroup)
      sum = fma(Eight::load(w), Eight::pick(x, c), sum);
    const int32_t* order = v.order + int64_t{g} * kLinearGroup;
    const int n = v.out - g * kLinearGroup < kLinearGroup ? v.out - g * kLinearGroup : kLinearGroup;
    float s[kLinearGroup];
    if (group.has_tail || residual) {
      sum.store(s);
      for (int k = 0; k < n; ++k) {
        for (int32_t j = 0; j < group.tail[k]; ++j, ++c, ++w) s[k] = madd(*w, x[*c], s[k]);
        if (residual) s[k] += residual[order[k]];
      }
      sum = Eight::load(s);
    }
    activate(sum, v).store(s);
    if (n == kLinearGroup) {
      SECATEUR_UNROLL
      for (int k = 0; k < kLinearGroup; ++k) y[order[k]] = s[k];
    } else {
      for (int k = 0; k < n; ++k) y[order[k]] = s[k];
    }
  }
}

SECATEUR_INLINE void sparse_task(const LinearView& v, const LinearTask& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* x = t.x + r * v.in;
    float* y = t.y + r * v.out;
    const float* residual = t.residual ? t.residual + r * v.out : nullptr;
    if (v.columns16) {
      sparse_row(v, t, v.columns16, x, y, residual);
    } else {
      sparse_row(v, t, v.columns32, x, y, residual);
    }
  }
}

// ---- sparse, many rows
// -----------------------------------------------------------------------------------------------

// to[c][r] = from[r][c] for r < rows (zero up to `tile`), c < cols.
void transpose_in(const float* from, int64_t from_stride, int rows, int cols, float* to, int tile) {
  for (int r = 0; r < tile; r += 4) {
    int c = 0;
    if (r + 4 <= rows)
      for (; c + 4 <= cols; c += 4)
        transpose4(from + r * from_stride + c, from_stride, to + int64_t{c} * tile + r, tile);
    for (; c < cols; ++c)
      for (int k = r; k < r + 4; ++k) to[int64_t{c} * tile + k] = k < rows ? from[k * from_stride + c] : 0.0f;
  }
}

// y[r][k] = act(from[k][r] + residual[r][k]) for r < rows, k < n: features side by side make whole cache lines of y.
void turn_out(const LinearView& v, const float* from, int tile, int rows, int n, const float* residual, float* y) {
  for (int r = 0; r < rows; r += 4) {
    float four[4 * kLinearTurn];
    SECATEUR_UNROLL
    for (int k = 0; k < kLinearTurn; k += 4) transpose4(from + int64_t{k} * tile + r, tile, four + k, kLinearTurn);
    for (int i = 0; i < 4 && r + i < rows; ++i) {
      const int64_t row = int64_t{r + i} * v.out;
      for (int k = 0; k < n; k += kLanes) {
        const int left = n - k < kLanes ? n - k : kLanes;
        Vec s = Vec::load(four + i * kLinearTurn + k);
        if (residual) s = s + Vec::load_range(residual + row + k, 0, left);
        activate(s, v).store_first(y + row + k, left);
      }
    }
  }
}

// A unit's sums over one chunk, P vectors of rows each: from the bias or what `sums_at` holds, into `sums_at`.
template <int P>
SECATEUR_INLINE void sum_unit(const LinearView& v, int chunk, int unit, const float* panel, float* sums_at) {
  constexpr int kTile = P * kLanes;
  constexpr int C = P == 1 ? 4 : P == 2 ? 2 : 1;  // chains, against the latency of an addition
  const int64_t place = int64_t{chunk} * v.n_units + unit;
  const uint8_t* member = v.member + place * kLinearUnit;
  const int32_t* count = v.count + place * kLinearUnit;
  const uint16_t* column = v.columns16 + v.unit_begin[place];
  const float* weight = v.weights + v.unit_begin[place];
  for (int k = 0; k < kLinearUnit; ++k) {
    float* at = sums_at + int64_t{member[k]} * kTile;
    Vec sums[C][P];
    SECATEUR_UNROLL
    for (int c = 1; c < C; ++c) {
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[c][p] = Vec::zero();
    }
    if (chunk == 0) {
      const Vec bias = Vec::set1(v.bias[unit * kLinearUnit + member[k]]);
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[0][p] = bias;
    } else {
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[0][p] = Vec::load(at + p * kLanes);
    }
    const auto add = [&](Vec* to, int j) {
      const Vec w = Vec::set1(weight[j]);
      const float* x = panel + int64_t{column[j]} * kTile;
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) to[p] = fma(w, Vec::load(x + p * kLanes), to[p]);
    };
    int left = count[k];
    for (; left >= C; left -= C, column += C, weight += C) {
      SECATEUR_UNROLL
      for (int c = 0; c < C; ++c) add(sums[c], c);
    }
    for (; left > 0; --left, ++column, ++weight) add(sums[0], 0);
    SECATEUR_UNROLL
    for (int c = 1; c < C; ++c) {
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[0][p] = sums[0][p] + sums[c][p];
    }
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[0][p].store(at + p * kLanes);
  }
}

// P vectors of rows of x, all output features of the task.
template <int P>
void sparse_tile(const LinearView& v, const LinearTask& t, int64_t row0, int rows) {
  constexpr int kTile = P * kLanes;
  float* panel = t.scratch;
  float* sums = t.scratch + int64_t{v.in} * kTile;
  transpose_in(t.x + row0 * v.in, v.in, rows, v.in, panel, kTile);
  for (int from = t.begin; from < t.end; from += kLinearUnits) {
    const int to = t.end - from < kLinearUnits ? t.end : from + kLinearUnits;
    for (int c = 0; c < v.n_chunks; ++c)
      for (int u = from; u < to; ++u)
        sum_unit<P>(v, c, u, panel + int64_t{c} * v.chunk * kTile, sums + int64_t{u - from} * kLinearUnit * kTile);
    for (int first = from * kLinearUnit; first < to * kLinearUnit && first < v.out; first += kLinearTurn) {
      const int n = v.out - first < kLinearTurn ? v.out - first : kLinearTurn;
      const int64_t at = row0 * v.out + first;
      turn_out(v, sums + int64_t{first - from * kLinearUnit} * kTile, kTile, rows, n,
               t.residual ? t.residual + at : nullptr, t.y + at);
    }
  }
}

SECATEUR_INLINE void sparse_many_task(const LinearView& v, const LinearTask& t) {
  constexpr int kMost = linear_tile_vectors(Vec::kRegisters);
  for (int64_t row0 = 0; row0 < t.rows; row0 += kMost * kLanes) {
    const int rows = static_cast<int>(t.rows - row0 < kMost * kLanes ? t.rows - row0 : kMost * kLanes);
    const int vectors = (rows + kLanes - 1) / kLanes;
    if (vectors > 4) {
      sparse_tile<kMost>(v, t, row0, rows);
    } else if (vectors > 2) {
      sparse_tile<4>(v, t, row0, rows);
    } else if (vectors > 1) {
      sparse_tile<2>(v, t, row0, rows);
    } else {
      sparse_tile<1>(v, t, row0, rows);
    }
  }
}

// ---- dense
// -----------------------------------------------------------------------------------------------------------

// M rows x P vectors of features. A single row runs two chains, so that the latency of an addition does not bound it.
template <int M, int P>
void dense_block(const LinearView& v, const float* x, const float* w, const float* bias, const float* residual,
                 float* y, int n) {
  constexpr int C = M == 1 ? 2 : 1;
  Vec sums[C][M][P];
  SECATEUR_UNROLL
  for (int m = 0; m < M; ++m) {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) {
      sums[0][m][p] = Vec::load(bias + p * kLanes);
      if (C == 2) sums[C - 1][m][p] = Vec::zero();
    }
  }
  int i = 0;
  for (; i + C <= v.in; i += C) {
    SECATEUR_UNROLL
    for (int c = 0; c < C; ++c, w += P * kLanes) {
      Vec ws[P];
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) ws[p] = Vec::load(w + p * kLanes);
      SECATEUR_UNROLL
      for (int m = 0; m < M; ++m) {
        const Vec xm = Vec::set1(x[int64_t{m} * v.in + i + c]);
        SECATEUR_UNROLL
        for (int p = 0; p < P; ++p) sums[c][m][p] = fma(xm, ws[p], sums[c][m][p]);
      }
    }
  }
  if (C == 2) {
    if (i < v.in) {
      const Vec xm = Vec::set1(x[i]);
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[0][0][p] = fma(xm, Vec::load(w + p * kLanes), sums[0][0][p]);
    }
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[0][0][p] = sums[0][0][p] + sums[C - 1][0][p];
  }
  SECATEUR_UNROLL
  for (int m = 0; m < M; ++m) {
    const int64_t row = int64_t{m} * v.out;
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) {
      const int left = n - p * kLanes;
      if (left <= 0) continue;
      Vec s = sums[0][m][p];
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

using DenseFn = void (*)(const LinearView&, const float*, const float*, const float*, const float*, float*, int);

template <int P>
DenseFn dense_function(int m) {
  constexpr DenseFn table[] = {dense_block<1, P>, dense_block<2, P>, dense_block<3, P>,
                               dense_block<4, P>, dense_block<5, P>, dense_block<6, P>};
  return table[m - 1];
}

SECATEUR_INLINE void dense_task(const LinearView& v, const LinearTask& t) {
  for (int32_t b = t.begin; b < t.end; ++b) {
    const int first = b * kPanel, n = v.out - first < kPanel ? v.out - first : kPanel;
    const int vectors = (n + kLanes - 1) / kLanes;  // the last panel is only as wide as it must be
    const float* w = v.panels + int64_t{first} * v.in;
    for (int64_t r = 0; r < t.rows; r += kLinearRows) {
      const int m = static_cast<int>(t.rows - r < kLinearRows ? t.rows - r : kLinearRows);
      DenseFn fn = vectors == 1 ? dense_function<1>(m) : dense_function<2>(m);
      if constexpr (kVectors == 4) {
        if (vectors == 3) fn = dense_function<3>(m);
        if (vectors == 4) fn = dense_function<4>(m);
      }
      const int64_t at = r * v.out + first;
      fn(v, t.x + r * v.in, w, v.bias + first, t.residual ? t.residual + at : nullptr, t.y + at, n);
    }
  }
}

}  // namespace
}  // namespace secateur

#include "kernels/linear/blocks.h"

namespace secateur::SECATEUR_LEVEL {

void sparse_task(const LinearView& v, const LinearTask& t) { secateur::sparse_task(v, t); }
void sparse_many_task(const LinearView& v, const LinearTask& t) { secateur::sparse_many_task(v, t); }
void block_task(const LinearView& v, const LinearTask& t) { secateur::block_task(v, t); }
void dense_task(const LinearView& v, const LinearTask& t) { secateur::dense_task(v, t); }

}  // namespace secateur::SECATEUR_LEVEL
