// Single nonzeros. Included by generic.cc.
#pragma once

namespace secateur {
namespace {

// Where nonzeros read, in floats.
struct Near {
  const uint16_t* at;
  int unit;
  SECATEUR_INLINE int64_t operator[](int64_t i) const { return int64_t{at[i]} << unit; }
  // Of four nonzeros: one load instead of four.
  SECATEUR_INLINE void four(int64_t i, int64_t* to) const {
    uint64_t o;
    __builtin_memcpy(&o, at + i, 8);
    SECATEUR_UNROLL
    for (int k = 0; k < 4; ++k) to[k] = static_cast<int64_t>(o >> (16 * k) & 0xffff) << unit;
  }
  SECATEUR_INLINE void prefetch(int64_t i) const { __builtin_prefetch(at + i); }
};

struct Far {
  const uint32_t* at;
  SECATEUR_INLINE int64_t operator[](int64_t i) const { return at[i]; }
  SECATEUR_INLINE void four(int64_t i, int64_t* to) const {
    SECATEUR_UNROLL
    for (int k = 0; k < 4; ++k) to[k] = at[i + k];
  }
  SECATEUR_INLINE void prefetch(int64_t i) const { __builtin_prefetch(at + i); }
};

// Nonzeros to ask for ahead of time where short blocks run through them faster than memory brings them.
constexpr int kAhead = 256;

// C offsets from nonzero i on.
template <int C, class Offsets>
SECATEUR_INLINE void offsets_of(const Offsets& offsets, int64_t i, int64_t* to) {
  if constexpr (C % 4 == 0) {
    offsets.prefetch(i + kAhead);
    SECATEUR_UNROLL
    for (int c = 0; c < C; c += 4) offsets.four(i + c, to + c);
  } else {
    SECATEUR_UNROLL
    for (int c = 0; c < C; ++c) to[c] = offsets[i + c];
  }
}

template <int P, class Offsets>
void sparse_rows(const ConvView& v, const Block& b, const ConvRow* row, const ConvRow* end, Offsets offsets) {
  constexpr int C = chains(P);
  for (; row != end; ++row) {
    if (row + 1 != end && row[1].last) expect_residual<P>(v, b, row[1].out);
    Vec sums[C][P];
    const Vec start = Vec::set1(row->first ? v.bias[row->out] : 0.0f);
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[0][p] = start;
    if (!row->first) {
      const float* from = b.partial + row->out * v.tile_floats;
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[0][p] = Vec::load(from + p * kLanes);
    }
    int64_t i = row->begin;
    const int64_t stop = i + row->count;
    if constexpr (C > 1) {
      SECATEUR_UNROLL
      for (int c = 1; c < C; ++c) {
        SECATEUR_UNROLL
        for (int p = 0; p < P; ++p) sums[c][p] = Vec::zero();
      }
      for (; i + C <= stop; i += C) {
        int64_t at[C];
        offsets_of<C>(offsets, i, at);
        if (C % 4 == 0) __builtin_prefetch(v.nonzeros + i + kAhead);
        SECATEUR_UNROLL
        for (int c = 0; c < C; ++c) {
          const Vec w = Vec::set1(v.nonzeros[i + c]);
          const float* x = b.panel + at[c];
          SECATEUR_UNROLL
          for (int p = 0; p < P; ++p) sums[c][p] = fma(w, Vec::load(x + p * kLanes), sums[c][p]);
        }
      }
      SECATEUR_UNROLL
      for (int half = C / 2; half > 0; half /= 2) {
        SECATEUR_UNROLL
        for (int c = 0; c < half; ++c) {
          SECATEUR_UNROLL
          for (int p = 0; p < P; ++p) sums[c][p] = sums[c][p] + sums[c + half][p];
        }
      }
    }
    for (; i < stop; ++i) {
      const Vec w = Vec::set1(v.nonzeros[i]);
      const float* x = b.panel + offsets[i];
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[0][p] = fma(w, Vec::load(x + p * kLanes), sums[0][p]);
    }
    finish<P>(v, b, row->out, row->last, sums[0]);
  }
}

// At most four pixels: lanes 4q .. 4q + 3 hold the sums of every kQuads-th nonzero.
template <class Offsets>
void sparse_rows_quads(const ConvView& v, const Block& b, const ConvRow* row, const ConvRow* end, Offsets offsets) {
  constexpr int kQuads = kLanes / 4, kStep = kQuads < 4 ? 4 : kQuads, C = 4;  // nonzeros at a time, chains
  for (; row != end; ++row) {
    Vec sums[C];
    float* partial = b.partial + row->out * v.tile_floats;
    sums[0] = row->first ? Vec::zero() : Vec::load(partial);
    SECATEUR_UNROLL
    for (int c = 1; c < C; ++c) sums[c] = Vec::zero();
    int64_t i = row->begin;
    const int64_t stop = i + row->count;
    const auto step = [&](int chain) {
      int64_t at[kStep];
      offsets.four(i, at);
      SECATEUR_UNROLL
      for (int q = 0; q < kStep; q += kQuads) {
        Vec& sum = sums[(chain + q / kQuads) % C];
        sum = fma(Vec::spread(v.nonzeros + i + q), Vec::quads(b.panel, at + q), sum);
      }
      i += kStep;
    };
    while (i + C * kStep <= stop) {
      offsets.prefetch(i + kAhead);
      __builtin_prefetch(v.nonzeros + i + kAhead);
      SECATEUR_UNROLL
      for (int c = 0; c < C; ++c) step(c);
    }
    while (i + kStep <= stop) step(0);
    for (; i < stop; ++i) sums[0] = fma(Vec::set1(v.nonzeros[i]), Vec::load_range(b.panel + offsets[i], 0, 4), sums[0]);
    sums[0] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    if (!row->last) {
      sums[0].store(partial);
      continue;
    }
    float pixels[kLanes] = {};
    sums[0].sum_quads(pixels);
    for (int k = 0; k < 4; ++k) pixels[k] += v.bias[row->out];
    float* y = b.y + row->out * v.out_plane;
    if (v.fold == 4) {
      store_pooled(v, pixels, y);
    } else {
      Vec x = Vec::load(pixels);
      if (b.residual) x = x + Vec::load_range(b.residual + row->out * v.out_plane, 0, b.n);
      activate(x, v).store_first(y, b.n);
    }
  }
}

// Moves whole rows of R vectors (-1: two rows a vector) by one column; what comes in is zero.
template <int P, int R, bool kUp>
SECATEUR_INLINE void move_rows(Vec* x) {
  if constexpr (R < 0) {
#if defined(__AVX512F__)
    constexpr uint32_t inner = kUp ? 0xfefe : 0x7f7f;  // lanes that do not come from the other row
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) x[p] = (kUp ? shift_up(Vec::zero(), x[p]) : shift_down(x[p], Vec::zero())).keep(inner);
#endif
  } else {
    SECATEUR_UNROLL
    for (int p = 0; p < P; p += R) {
      SECATEUR_UNROLL
      for (int i = 0; i < R; ++i) {
        const int at = kUp ? p + R - 1 - i : p + i;  // what is read has not been moved yet
        if (kUp) {
          x[at] = shift_up(i + 1 < R ? x[at - 1] : Vec::zero(), x[at]);
        } else {
          x[at] = shift_down(x[at], i + 1 < R ? x[at + 1] : Vec::zero());
        }
      }
    }
  }
}

template <int P>
SECATEUR_INLINE void add_nonzeros(const ConvView& v, const Block& b, const Near& offsets, int64_t i, int64_t stop,
                                  Vec* sums) {
  constexpr int C = chains(P);
  Vec more[C][P];
  SECATEUR_UNROLL
  for (int c = 1; c < C; ++c) {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) more[c][p] = Vec::zero();
  }
  const auto add = [&](Vec* to, int64_t at) {
    const Vec w = Vec::set1(v.nonzeros[at]);
    const float* x = b.panel + offsets[at];
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) to[p] = fma(w, Vec::load(x + p * kLanes), to[p]);
  };
  for (; i + C <= stop; i += C) {
    add(sums, i);
    SECATEUR_UNROLL
    for (int c = 1; c < C; ++c) add(more[c], i + c);
  }
  for (; i < stop; ++i) add(sums, i);
  SECATEUR_UNROLL
  for (int c = 1; c < C; ++c) {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[p] = sums[p] + more[c][p];
  }
}

template <int P, int R>
void sparse_rows_middle(const ConvView& v, const Block& b, const ConvRow* row, const ConvRow* end, Near offsets) {
  for (; row != end; ++row) {
    if (row->last) expect_residual<P>(v, b, row->out);
    Vec sums[P];
    const Vec bias = Vec::set1(row->first ? v.bias[row->out] : 0.0f);
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[p] = Vec::zero();
    const int64_t right = row->begin + row->left, middle = right + row->right;
    if (row->left) {
      add_nonzeros<P>(v, b, offsets, row->begin, right, sums);
      move_rows<P, R, true>(sums);
    }
    if (row->right) {
      Vec other[P];
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) other[p] = Vec::zero();
      add_nonzeros<P>(v, b, offsets, right, middle, other);
      move_rows<P, R, false>(other);
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[p] = sums[p] + other[p];
    }
    if (row->first) {
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[p] = sums[p] + bias;
    } else {
      const float* from = b.partial + row->out * v.tile_floats;
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[p] = sums[p] + Vec::load(from + p * kLanes);
    }
    add_nonzeros<P>(v, b, offsets, middle, row->begin + row->count, sums);
    finish<P>(v, b, row->out, row->last, sums);
  }
}

// Null where a block does not hold whole rows.
template <int R>
auto middle_function(int block) {
  using Fn = void (*)(const ConvView&, const Block&, const ConvRow*, const ConvRow*, Near);
  constexpr auto at = []<int P>(std::integral_constant<int, P>) -> Fn {
    if constexpr (P <= conv_middle_vectors(kWide) && (R < 0 || P % R == 0)) {
      return sparse_rows_middle<P, R>;
    } else {
      return nullptr;
    }
  };
  constexpr Fn table[] = {at(std::integral_constant<int, 1>()),  at(std::integral_constant<int, 2>()),
                          at(std::integral_constant<int, 3>()),  at(std::integral_constant<int, 4>()),
                          at(std::integral_constant<int, 5>()),  at(std::integral_constant<int, 6>()),
                          at(std::integral_constant<int, 7>()),  at(std::integral_constant<int, 8>()),
                          at(std::integral_constant<int, 9>()),  at(std::integral_constant<int, 10>()),
                          at(std::integral_constant<int, 11>()), at(std::integral_constant<int, 12>())};
  return table[block - 1];
}

SECATEUR_INLINE void middle_block(const ConvView& v, const Block& b, const ConvRow* row, const ConvRow* end,
                                  int block) {
  const Near offsets{v.near, v.near_unit};
#if defined(__AVX512F__)
  const auto fn = v.middle < 0    ? middle_function<-1>(block)
                  : v.middle == 1 ? middle_function<1>(block)
                                  : middle_function<2>(block);
#else
  const auto fn = v.middle == 1   ? middle_function<1>(block)
                  : v.middle == 2 ? middle_function<2>(block)
                                  : middle_function<4>(block);
#endif
  fn(v, b, row, end, offsets);
}

// Under a fused pool: sums[0..3] are the window's cells (row, column) = (0,0) (0,1) (1,0) (1,1).
template <int P>
void sparse_rows_pooled(const ConvView& v, const Block& b, const ConvRow* row, const ConvRow* end) {
  for (; row != end; ++row) {
    Vec sums[4][P];
    float* partial = b.partial + row->out * v.tile_floats;
    if (row->first) {
      const Vec start = Vec::set1(v.bias[row->out]);
      SECATEUR_UNROLL
      for (int q = 0; q < 4; ++q) {
        SECATEUR_UNROLL
        for (int p = 0; p < P; ++p) sums[q][p] = start;
      }
    } else {
      SECATEUR_UNROLL
      for (int q = 0; q < 4; ++q) {
        SECATEUR_UNROLL
        for (int p = 0; p < P; ++p) sums[q][p] = Vec::load(partial + (4 * p + q) * kLanes);
      }
    }
    for (int64_t i = row->begin, stop = i + row->count; i < stop; ++i) {
      const Vec w = Vec::set1(v.nonzeros[i]);
      const float* x0 = b.panel + (v.far[i] & 0xffff);
      const float* x1 = b.panel + (v.far[i] >> 16);
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) {
        sums[0][p] = fma(w, Vec::load(x0 + p * kLanes), sums[0][p]);
        sums[1][p] = fma(w, Vec::load(x0 + v.pair + p * kLanes), sums[1][p]);
        sums[2][p] = fma(w, Vec::load(x1 + p * kLanes), sums[2][p]);
        sums[3][p] = fma(w, Vec::load(x1 + v.pair + p * kLanes), sums[3][p]);
      }
    }
    if (row->last) {
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[0][p] = max(max(sums[0][p], sums[1][p]), max(sums[2][p], sums[3][p]));
      finish<P>(v, b, row->out, true, sums[0]);
    } else {
      SECATEUR_UNROLL
      for (int q = 0; q < 4; ++q) {
        SECATEUR_UNROLL
        for (int p = 0; p < P; ++p) sums[q][p].store(partial + (4 * p + q) * kLanes);
      }
    }
  }
}

using RowsFn = void (*)(const ConvView&, const Block&, const ConvRow*, const ConvRow*);
template <class Offsets>
using SparseFn = void (*)(const ConvView&, const Block&, const ConvRow*, const ConvRow*, Offsets);

template <class Offsets>
constexpr SparseFn<Offsets> kSparse[] = {
    nullptr,
    sparse_rows<1, Offsets>,
    sparse_rows<2, Offsets>,
    sparse_rows<3, Offsets>,
    sparse_rows<4, Offsets>,
    sparse_rows<5, Offsets>,
    sparse_rows<6, Offsets>,
    sparse_rows<7, Offsets>,
    sparse_rows<8, Offsets>,
    sparse_rows<9, Offsets>,
    sparse_rows<10, Offsets>,
    sparse_rows<11, Offsets>,
    sparse_rows<12, Offsets>,
#if defined(__AVX512F__)
    sparse_rows<13, Offsets>,
    sparse_rows<14, Offsets>,
    sparse_rows<15, Offsets>,
    sparse_rows<16, Offsets>,
    sparse_rows<17, Offsets>,
    sparse_rows<18, Offsets>,
    sparse_rows<19, Offsets>,
    sparse_rows<20, Offsets>,
    sparse_rows<21, Offsets>,
    sparse_rows<22, Offsets>,
    sparse_rows<23, Offsets>,
    sparse_rows<24, Offsets>,
#endif
};

template <class Offsets>
SECATEUR_INLINE void sparse_block(const ConvView& v, const Block& b, const ConvRow* row, const ConvRow* end, int block,
                                  Offsets offsets) {
  (v.quads ? sparse_rows_quads<Offsets> : kSparse<Offsets>[block])(v, b, row, end, offsets);
}

constexpr RowsFn kSparsePooled[] = {
    nullptr,
    sparse_rows_pooled<1>,
    sparse_rows_pooled<2>,
    sparse_rows_pooled<3>,
#if defined(__AVX512F__)
    sparse_rows_pooled<4>,
    sparse_rows_pooled<5>,
    sparse_rows_pooled<6>,
    sparse_rows_pooled<7>,
#endif
};
static_assert(sizeof kSparse<Near> / sizeof *kSparse<Near> == kMaxBlock + 1);
static_assert(sizeof kSparsePooled / sizeof *kSparsePooled == kMaxPooledBlock + 1);

// Fills the panel chunk by chunk and runs the task's rows over every register block of the tile: each(b, begin, end,
// vectors), then done(begin, end, first row, rows) when a chunk is through. `cells`: partial sums per pixel.
template <class Each, class Done>
SECATEUR_INLINE void over_blocks(const ConvView& v, const ConvTask& t, int cells, Each&& each, Done&& done) {
  const int row0 = t.tile * v.tile_rows;
  const int rows = v.rows - row0 < v.tile_rows ? v.rows - row0 : v.tile_rows;
  const int flat = rows * v.pitch, vectors = (flat + kLanes - 1) / kLanes;
  Block b;
  b.buffer = t.scratch + v.buffer_at;
  const int64_t first = int64_t{row0} * v.cols;
  b.y = t.y + (v.fold ? first / 4 : first);
  b.residual = t.residual ? t.residual + first : nullptr;
  b.tile = int64_t{rows} * v.cols;
  const float* panel = v.in_place ? t.x + first : t.scratch;
  for (int c = 0; c < v.n_chunks; ++c) {
    fill_panel(v, v.chunks[c], t.x, row0, rows, t.scratch);
    const int32_t* part = v.part_rows + int64_t{c} * (v.n_parts + 1);
    const ConvRow* begin = v.out_rows + part[t.part_begin];
    const ConvRow* end = v.out_rows + part[t.part_end];
    for (int at = 0; at < vectors; at += v.block) {
      const int block = vectors - at < v.block ? vectors - at : v.block;
      b.at = at * kLanes;
      b.n = flat - b.at < block * kLanes ? flat - b.at : block * kLanes;
      b.panel = panel + b.at;
      b.partial = t.scratch + v.partial_at + int64_t{b.at} * cells;
      each(b, begin, end, block);
    }
    done(begin, end, row0, rows);
  }
}

SECATEUR_INLINE void sparse_task(const ConvView& v, const ConvTask& t) {
  over_blocks(
      v, t, v.pooled ? 4 : 1,
      [&](const Block& b, const ConvRow* begin, const ConvRow* end, int block) {
        if (v.pooled) {
          kSparsePooled[block](v, b, begin, end);
        } else if (v.middle) {
          middle_block(v, b, begin, end, block);
        } else if (v.near) {
          sparse_block(v, b, begin, end, block, Near{v.near, v.near_unit});
        } else {
          sparse_block(v, b, begin, end, block, Far{v.far});
        }
      },
      [](const ConvRow*, const ConvRow*, int, int) {});
}

}  // namespace
}  // namespace secateur
