// All weights. Included by generic.cc.
#pragma once

namespace secateur {
namespace {

// Weights that no cache keeps come from memory, whose latency takes 2 KB at the pace of a small map.
constexpr int kWeightsAhead = 512;

template <int M, int P>
void dense_block(const ConvView& v, const Block& b, const ConvChunk& chunk, const float* w, int out0, bool first,
                 bool last) {
  Vec sums[M][P];
  SECATEUR_UNROLL
  for (int m = 0; m < M; ++m) {
    if (last) expect_residual<P>(v, b, out0 + m);
    const float* from = b.partial + (out0 + m) * v.tile_floats;
    const Vec bias = Vec::set1(v.bias[out0 + m]);
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[m][p] = first ? bias : Vec::load(from + p * kLanes);
  }
  const int32_t* tap = v.taps + chunk.tap_begin;
  for (const int32_t* stop = v.taps + chunk.tap_end; tap != stop; ++tap, w += M) {
    const float* x = b.panel + *tap;
    __builtin_prefetch(w + kWeightsAhead);
    Vec xs[P];
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) xs[p] = Vec::load(x + p * kLanes);
    SECATEUR_UNROLL
    for (int m = 0; m < M; ++m) {
      const Vec wm = Vec::set1(w[m]);
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[m][p] = fma(wm, xs[p], sums[m][p]);
    }
  }
  SECATEUR_UNROLL
  for (int m = 0; m < M; ++m) finish<P>(v, b, out0 + m, last, sums[m]);
}

using DenseFn = void (*)(const ConvView&, const Block&, const ConvChunk&, const float*, int, bool, bool);

#define SECATEUR_DENSE_ROW(m) {dense_block<m, 1>, dense_block<m, 2>, dense_block<m, 3>}
constexpr DenseFn kDense[][3] = {
    SECATEUR_DENSE_ROW(1), SECATEUR_DENSE_ROW(2), SECATEUR_DENSE_ROW(3), SECATEUR_DENSE_ROW(4),
#if defined(__AVX512F__)
    SECATEUR_DENSE_ROW(5), SECATEUR_DENSE_ROW(6), SECATEUR_DENSE_ROW(7), SECATEUR_DENSE_ROW(8),
#endif
};
#undef SECATEUR_DENSE_ROW
static_assert(sizeof kDense / sizeof *kDense == kMaxRows && kMaxVectors == 3);

// Partial sums of two rows -> one pooled row.
void pool_rows(const ConvView& v, const float* sums, float* y, int rows) {
  for (int i = 0; i + 1 < rows; i += 2, sums += 2 * v.pitch) {
    for (int j = 0; j < v.cols / 2; j += kLanes) {
      const int left = v.cols / 2 - j < kLanes ? v.cols / 2 - j : kLanes;
      const float* top = sums + 2 * j;
      // The run after a row's end is panel slack or the next row: readable, and never among the lanes kept.
      const Vec a = max(Vec::load(top), Vec::load(top + v.pitch));
      const Vec b = max(Vec::load(top + kLanes), Vec::load(top + v.pitch + kLanes));
      float pair[2 * kLanes + 1];
      a.store(pair);
      b.store(pair + kLanes);
      pair[2 * kLanes] = 0;
      const Vec odd = even(Vec::load(pair + 1), Vec::load(pair + 1 + kLanes));
      activate(max(even(a, b), odd), v).store_first(y + int64_t{i / 2} * (v.cols / 2) + j, left);
    }
  }
}

constexpr int64_t kGroupBytes = 12288;

SECATEUR_INLINE void dense_task(const ConvView& v, const ConvTask& t) {
  const int row0 = t.tile * v.tile_rows;
  const int rows = v.rows - row0 < v.tile_rows ? v.rows - row0 : v.tile_rows;
  const int flat = rows * v.pitch, vectors = (flat + kLanes - 1) / kLanes;
  const int blocks = (v.out_c + kMaxRows - 1) / kMaxRows;
  const int out_begin = int(int64_t{blocks} * t.part_begin / v.n_parts) * kMaxRows;
  int out_end = int(int64_t{blocks} * t.part_end / v.n_parts) * kMaxRows;
  if (out_end > v.out_c) out_end = v.out_c;
  Block b;
  b.buffer = t.scratch + v.buffer_at;
  const int64_t first = int64_t{row0} * v.cols;
  b.y = t.y + first;
  b.residual = t.residual ? t.residual + first : nullptr;
  b.tile = int64_t{rows} * v.cols;
  const float* panel = v.in_place ? t.x + first : t.scratch;
  for (int c = 0; c < v.n_chunks; ++c) {
    const ConvChunk& chunk = v.chunks[c];
    const int64_t taps = chunk.tap_end - chunk.tap_begin;
    fill_panel(v, chunk, t.x, row0, rows, t.scratch);
    const bool last = c + 1 == v.n_chunks && !v.pooled;
    // Some blocks for a few channels, then for the next few: as many as keep what they read in the first cache.
    // Channels lie a picture apart, often a power of two; writing a little of each in turn would throw lines out half
    // written.
    const int64_t strip = taps * v.block * kLanes * int64_t{sizeof(float)};
    const int group = (strip * 2 > kGroupBytes ? 1 : static_cast<int>(kGroupBytes / strip)) * v.block;
    for (int from = 0; from < vectors; from += group) {
      const int to = vectors - from < group ? vectors : from + group;
      for (int out = out_begin; out < out_end; out += kMaxRows) {
        const int m = out_end - out < kMaxRows ? out_end - out : kMaxRows;
        for (int at = from; at < to; at += v.block) {
          const int block = to - at < v.block ? to - at : v.block;
          b.at = at * kLanes;
          b.n = flat - b.at < block * kLanes ? flat - b.at : block * kLanes;
          b.panel = panel + b.at;
          b.partial = t.scratch + v.partial_at + b.at;
          kDense[m - 1][block - 1](v, b, chunk, v.weights + chunk.weight_begin + out * taps, out, c == 0, last);
        }
      }
    }
  }
  if (v.pooled) {
    for (int out = out_begin; out < out_end; ++out)
      pool_rows(v, t.scratch + v.partial_at + out * v.tile_floats,
                t.y + out * v.out_plane + int64_t{row0 / 2} * (v.cols / 2), rows);
  }
}

}  // namespace
}  // namespace secateur
