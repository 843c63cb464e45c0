// The conv kernels, once for all ISAs: included by portable.cc, avx2.cc and avx512.cc after their Vec. panel.h explains
// the layout.
#pragma once

#include <type_traits>

#include "kernels/conv/panel.h"

namespace secateur {
namespace {

constexpr int kLanes = Vec::kLanes;
constexpr bool kWide = Vec::kRegisters == 32;
constexpr int kMaxBlock = kWide ? 24 : 12;       // sums of the sparse kernel
constexpr int kMaxPooledBlock = kWide ? 7 : 3;   // four sums each
constexpr int kMaxRows = kWide ? kDenseRows : kDenseRowsSmall;
constexpr int kMaxVectors = kWide ? kDenseVectors : kDenseVectorsSmall;

// Independent chains of sums per vector, so that short blocks are not bound by the latency of an addition (4 cycles, two
// a cycle: 8 chains; half as many zmm a cycle on Zen 4).
constexpr int chains(int block) { return block == 1 ? 8 : block == 2 ? 4 : block <= 4 ? 2 : 1; }

SECATEUR_INLINE Vec activate(Vec x, const ConvView& v) {
  if (v.slope != 1.0f) x = max(x, Vec::zero()) + min(x, Vec::zero()) * Vec::set1(v.slope);
  return min(Vec::set1(v.hi), max(Vec::set1(v.lo), x));  // this order lets NaN through
}

// ---- panel -----------------------------------------------------------------------------------------------------------

// One plane: `rows` rows from input row `r` on. N whole vectors a row, then half a vector where the ISA has halves and a
// row needs no more. Masks are made once: they are most of the work of a short row. Whole vectors are written: what
// spills over a row is overwritten by the next one, what spills over the last plane lies in the panel's slack.
template <int N, bool kHalf, int kStep>
void fill_plane(const ConvView& v, const ConvPlane& plane, const float* image, int r, int rows, float* to) {
  typename Vec::Mask masks[N + 1][2];
  typename Half::Mask half[2];
  SECATEUR_UNROLL
  for (int n = 0; n <= N; ++n) {
    const int lo = kStep * (plane.begin - n * kLanes), hi = kStep * (plane.end - n * kLanes) - (kStep - 1);
    if (n < N) {
      masks[n][0] = Vec::mask(lo, hi);
      masks[n][1] = Vec::mask(lo - kLanes, hi - kLanes);
    } else {
      half[0] = Half::mask(lo, hi);
      half[1] = Half::mask(lo - kLanes / 2, hi - kLanes / 2);
    }
  }
  const int64_t next = int64_t{v.step_h} * v.in_w;
  // Rows above the image, inside, below: three loops, so that the one that matters has no test in it.
  int above = r >= 0 ? 0 : (-r + v.step_h - 1) / v.step_h;
  if (above > rows) above = rows;
  r += above * v.step_h;
  int inside = r >= v.in_h ? 0 : (v.in_h - r + v.step_h - 1) / v.step_h;
  if (inside > rows - above) inside = rows - above;
  const int below = rows - above - inside;
  const auto clear = [&](int n) {
    for (; n > 0; --n, to += v.pitch) {
      SECATEUR_UNROLL
      for (int i = 0; i < N; ++i) Vec::zero().store(to + i * kLanes);
      if (kHalf) Half::zero().store(to + N * kLanes);
    }
  };
  clear(above);
  const float* from = image + plane.shift - v.pad_left + int64_t{r} * v.in_w;
  const int64_t pitch = v.pitch;
  for (; inside > 0; --inside, from += next, to += pitch) {
    SECATEUR_UNROLL
    for (int n = 0; n < N; ++n) {
      Vec x = Vec::load_masked(from + kStep * n * kLanes, masks[n][0]);
      if (kStep == 2) x = even(x, Vec::load_masked(from + (kStep * n + 1) * kLanes, masks[n][1]));
      x.store(to + n * kLanes);
    }
    if (kHalf) {
      Half x = Half::load_masked(from + kStep * N * kLanes, half[0]);
      if (kStep == 2) x = even(x, Half::load_masked(from + kStep * N * kLanes + kLanes / 2, half[1]));
      x.store(to + N * kLanes);
    }
  }
  clear(below);
}

// Any width and stride.
void fill_plane_any(const ConvView& v, const ConvPlane& plane, const float* image, int r, int rows, float* to) {
  for (; rows > 0; --rows, r += v.step_h, to += v.pitch) {
    const float* from = image + plane.shift - v.pad_left + int64_t{r} * v.in_w;
    const bool inside = r >= 0 && r < v.in_h;
    const int begin = inside ? plane.begin : 0, end = inside ? plane.end : 0;
    if (v.step_w == 1) {
      for (int j = 0; j < v.pitch; j += kLanes) Vec::load_range(from + j, begin - j, end - j).store(to + j);
    } else {
      for (int j = 0; j < v.pitch; ++j) to[j] = begin <= j && j < end ? from[j * v.step_w] : 0.0f;
    }
  }
}

using FillFn = void (*)(const ConvView&, const ConvPlane&, const float*, int, int, float*);

template <int kStep>
FillFn fill_function(int pitch) {
  const bool half = kHasHalf && pitch % kLanes != 0 && pitch % kLanes <= kLanes / 2;
  const int n = half ? pitch / kLanes : (pitch + kLanes - 1) / kLanes;
  constexpr FillFn whole[] = {fill_plane_any,           fill_plane<1, false, kStep>, fill_plane<2, false, kStep>,
                              fill_plane<3, false, kStep>, fill_plane<4, false, kStep>};
  constexpr FillFn halved[] = {fill_plane<0, kHasHalf, kStep>, fill_plane<1, kHasHalf, kStep>, fill_plane<2, kHasHalf, kStep>,
                               fill_plane<3, kHasHalf, kStep>, fill_plane<4, kHasHalf, kStep>};
  if (n > 4) return fill_plane_any;
  return half ? halved[n] : whole[n];
}

// The three planes of a kernel three columns wide with one column of padding, columns of the image alone in a row: each
// row is read once and its neighbours come from registers. Three planes from `plane` on, `apart` floats apart.
template <int N, bool kHalf>
void fill_three(const ConvView& v, const ConvPlane& plane, const float* image, int r, int rows, float* to, int64_t apart) {
  constexpr int kRead = kHalf ? N + 1 : N;
  typename Vec::Mask masks[kRead];
  SECATEUR_UNROLL
  for (int n = 0; n < kRead; ++n) masks[n] = Vec::mask(0, v.in_w - n * kLanes);
  const float* from = image + int64_t{r} * v.in_w;
  for (; rows > 0; --rows, ++r, from += v.in_w, to += v.pitch) {
    Vec x[kRead + 2];  // a vector of zeros on either side
    const bool inside = r >= 0 && r < v.in_h;
    x[0] = x[kRead + 1] = Vec::zero();
    SECATEUR_UNROLL
    for (int n = 0; n < kRead; ++n) x[n + 1] = inside ? Vec::load_masked(from + n * kLanes, masks[n]) : Vec::zero();
    SECATEUR_UNROLL
    for (int n = 0; n < kRead; ++n) {
      const Vec left = shift_up(x[n], x[n + 1]), right = shift_down(x[n + 1], x[n + 2]);
      float* at = to + n * kLanes;
      if (n < N) {
        left.store(at);
        x[n + 1].store(at + apart);
        right.store(at + 2 * apart);
      } else {
        Half::low(left).store(at);
        Half::low(x[n + 1]).store(at + apart);
        Half::low(right).store(at + 2 * apart);
      }
    }
  }
}

using FillThreeFn = void (*)(const ConvView&, const ConvPlane&, const float*, int, int, float*, int64_t);

// Null where rows are too long for registers, or vectors would spill over a row's end into the next plane.
FillThreeFn fill_three_function(int pitch) {
  const bool half = kHasHalf && pitch % kLanes != 0 && pitch % kLanes <= kLanes / 2;
  const int n = half ? pitch / kLanes : (pitch + kLanes - 1) / kLanes;
  constexpr FillThreeFn whole[] = {nullptr, fill_three<1, false>, fill_three<2, false>, fill_three<3, false>, fill_three<4, false>};
  constexpr FillThreeFn halved[] = {fill_three<0, kHasHalf>, fill_three<1, kHasHalf>, fill_three<2, kHasHalf>,
                                    fill_three<3, kHasHalf>, fill_three<4, kHasHalf>};
  if (n > 4 || pitch % (kHasHalf ? kLanes / 2 : kLanes) != 0) return nullptr;
  return half ? halved[n] : whole[n];
}

void fill_taps(const ConvView& v, const ConvChunk& chunk, const float* x, float* panel) {
  for (int i = chunk.plane_begin; i < chunk.plane_end; ++i) {
    const ConvTap& tap = v.tap_planes[i];
    const float* from = x + tap.channel * v.in_plane + tap.from;
    for (int p = 0; p < v.tap_vectors; ++p)
      Vec::load_bits(from + p * kLanes, v.tap_masks[tap.mask + p]).store(panel + tap.offset + p * kLanes);
  }
}

void fill_panel(const ConvView& v, const ConvChunk& chunk, const float* x, int row0, int rows, float* panel) {
  if (v.in_place) return;
  if (v.tap_vectors) return fill_taps(v, chunk, x, panel);
  const FillThreeFn three = v.three ? fill_three_function(v.pitch) : nullptr;
  const FillFn fill = v.step_w == 1 ? fill_function<1>(v.pitch) : v.step_w == 2 ? fill_function<2>(v.pitch) : fill_plane_any;
  for (int i = chunk.plane_begin; i < chunk.plane_end; ++i) {
    const ConvPlane& plane = v.planes[i];
    if (three && plane.shift == 0 && i + 2 < chunk.plane_end && v.planes[i + 2].channel == plane.channel) {
      three(v, plane, x + plane.channel * v.in_plane, row0 - v.pad_top, rows + plane.extra, panel + plane.offset,
            v.planes[i + 1].offset - plane.offset);
      i += 2;
      continue;
    }
    fill(v, plane, x + plane.channel * v.in_plane, row0 * v.step_h + plane.phase - v.pad_top, rows + plane.extra,
         panel + plane.offset);
  }
}

// ---- storing ---------------------------------------------------------------------------------------------------------

// The flat run is contiguous in y: pitch == cols and nothing is pooled afterwards.
template <int P>
SECATEUR_INLINE void store_flat(const ConvView& v, const Vec* sums, const float* residual, float* y, int n) {
  const int full = n / kLanes;
  if (residual) {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) {
      if (p < full) {
        activate(sums[p] + Vec::load(residual + p * kLanes), v).store(y + p * kLanes);
      } else if (p * kLanes < n) {
        const int left = n - p * kLanes;
        activate(sums[p] + Vec::load_range(residual + p * kLanes, 0, left), v).store_first(y + p * kLanes, left);
      }
    }
  } else {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) {
      if (p < full) {
        activate(sums[p], v).store(y + p * kLanes);
      } else if (p * kLanes < n) {
        activate(sums[p], v).store_first(y + p * kLanes, n - p * kLanes);
      }
    }
  }
}

// n floats of the flat run from `at` lie in buffer: activates them and drops the columns between cols and pitch.
// y and residual point at the tile's first row.
void store_rows(const ConvView& v, const float* buffer, const float* residual, float* y, int at, int n) {
  int row = at / v.pitch, col = at % v.pitch;
  while (n > 0) {
    const int run = v.pitch - col < n ? v.pitch - col : n;
    const int keep = v.cols - col < run ? v.cols - col : run;
    const int64_t to = int64_t{row} * v.cols + col;
    for (int j = 0; j < keep; j += kLanes) {
      const int left = keep - j < kLanes ? keep - j : kLanes;
      Vec x = Vec::load(buffer + j);
      if (residual) x = x + Vec::load_range(residual + to + j, 0, left);
      x = activate(x, v);
      if (left == kLanes) {
        x.store(y + to + j);
      } else {
        x.store_first(y + to + j, left);
      }
    }
    buffer += run;
    n -= run;
    ++row;
    col = 0;
  }
}

// A whole image lies in buffer: pools and activates it.
void store_pooled(const ConvView& v, float* buffer, float* y) {
  const int rows = v.rows / 2, cols = v.cols / 2;
  float* to = buffer;  // never ahead of what is read
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < cols; ++j) {
      const float* a = buffer + 2 * i * v.pitch + 2 * j;
      const float* c = a + v.pitch;
      const float top = a[0] > a[1] ? a[0] : a[1], bottom = c[0] > c[1] ? c[0] : c[1];
      *to++ = top > bottom ? top : bottom;
    }
  const int n = rows * cols;
  for (int j = 0; j < n; j += kLanes) activate(Vec::load(buffer + j), v).store_first(y + j, n - j < kLanes ? n - j : kLanes);
}

// What a block of sums becomes: partial sums, or output.
struct Block {
  const float* panel;      // start of the block in the panel's first plane
  float* partial;          // of output channel 0, at the block
  float* buffer;
  const float* residual;   // of output channel 0, at the tile's first row; or null
  float* y;
  int at, n;               // first float of the block in the tile's flat run, valid floats
};

// Four vectors of the flat run -> one of pooled pixels.
SECATEUR_INLINE Vec fold_rows(int fold, Vec a, Vec b, Vec c, Vec d) {
  Vec p, q;
  if (fold == 1) {
    Vec lo, hi;
    halves(a, b, &lo, &hi);
    p = max(lo, hi);
    halves(c, d, &lo, &hi);
    q = max(lo, hi);
  } else if (fold == 2) {
    p = max(a, b);
    q = max(c, d);
  } else {
    p = max(a, c);
    q = max(b, d);
  }
  return max(even(p, q), odd(p, q));
}

template <int P>
SECATEUR_INLINE void finish(const ConvView& v, const Block& b, int out, bool last, const Vec* sums) {
  if (!last) {
    float* to = b.partial + out * v.tile_floats;
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[p].store(to + p * kLanes);
    return;
  }
  const int64_t plane = out * v.out_plane;
  const float* residual = b.residual ? b.residual + plane : nullptr;
  if (v.fold == 4) {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[p].store(b.buffer + p * kLanes);
    return store_pooled(v, b.buffer, b.y + plane);
  }
  if constexpr (P % 4 == 0) {
    if (v.fold) {
      float* y = b.y + plane + b.at / 4;
      SECATEUR_UNROLL
      for (int p = 0; p < P; p += 4)
        activate(fold_rows(v.fold, sums[p], sums[p + 1], sums[p + 2], sums[p + 3]), v).store(y + p / 4 * kLanes);
      return;
    }
  }
  if (v.pitch == v.cols) {
    store_flat<P>(v, sums, residual ? residual + b.at : nullptr, b.y + plane + b.at, b.n);
  } else {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[p].store(b.buffer + p * kLanes);
    store_rows(v, b.buffer, residual, b.y + plane, b.at, b.n);
  }
}

// ---- sparse ----------------------------------------------------------------------------------------------------------

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
    for (; i < stop; ++i)
      sums[0] = fma(Vec::set1(v.nonzeros[i]), Vec::load_range(b.panel + offsets[i], 0, 4), sums[0]);
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
    for (int p = 0; p < P; ++p)
      x[p] = (kUp ? shift_up(Vec::zero(), x[p]) : shift_down(x[p], Vec::zero())).keep(inner);
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
SECATEUR_INLINE void add_nonzeros(const ConvView& v, const Block& b, const Near& offsets, int64_t i, int64_t stop, Vec* sums) {
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
  constexpr Fn table[] = {
      at(std::integral_constant<int, 1>()), at(std::integral_constant<int, 2>()),  at(std::integral_constant<int, 3>()),
      at(std::integral_constant<int, 4>()), at(std::integral_constant<int, 5>()),  at(std::integral_constant<int, 6>()),
      at(std::integral_constant<int, 7>()), at(std::integral_constant<int, 8>()),  at(std::integral_constant<int, 9>()),
      at(std::integral_constant<int, 10>()), at(std::integral_constant<int, 11>()), at(std::integral_constant<int, 12>())};
  return table[block - 1];
}

SECATEUR_INLINE void middle_block(const ConvView& v, const Block& b, const ConvRow* row, const ConvRow* end, int block) {
  const Near offsets{v.near, v.near_unit};
#if defined(__AVX512F__)
  const auto fn = v.middle < 0 ? middle_function<-1>(block) : v.middle == 1 ? middle_function<1>(block) : middle_function<2>(block);
#else
  const auto fn = v.middle == 1 ? middle_function<1>(block) : v.middle == 2 ? middle_function<2>(block) : middle_function<4>(block);
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
    sparse_rows<1, Offsets>,  sparse_rows<2, Offsets>,  sparse_rows<3, Offsets>,  sparse_rows<4, Offsets>,
    sparse_rows<5, Offsets>,  sparse_rows<6, Offsets>,  sparse_rows<7, Offsets>,  sparse_rows<8, Offsets>,
    sparse_rows<9, Offsets>,  sparse_rows<10, Offsets>, sparse_rows<11, Offsets>, sparse_rows<12, Offsets>,
#if defined(__AVX512F__)
    sparse_rows<13, Offsets>, sparse_rows<14, Offsets>, sparse_rows<15, Offsets>, sparse_rows<16, Offsets>,
    sparse_rows<17, Offsets>, sparse_rows<18, Offsets>, sparse_rows<19, Offsets>, sparse_rows<20, Offsets>,
    sparse_rows<21, Offsets>, sparse_rows<22, Offsets>, sparse_rows<23, Offsets>, sparse_rows<24, Offsets>,
#endif
};

template <class Offsets>
SECATEUR_INLINE void sparse_block(const ConvView& v, const Block& b, const ConvRow* row, const ConvRow* end, int block,
                                  Offsets offsets) {
  (v.quads ? sparse_rows_quads<Offsets> : kSparse<Offsets>[block])(v, b, row, end, offsets);
}

constexpr RowsFn kSparsePooled[] = {
    nullptr, sparse_rows_pooled<1>, sparse_rows_pooled<2>, sparse_rows_pooled<3>,
#if defined(__AVX512F__)
    sparse_rows_pooled<4>, sparse_rows_pooled<5>, sparse_rows_pooled<6>, sparse_rows_pooled<7>,
#endif
};
static_assert(sizeof kSparse<Near> / sizeof *kSparse<Near> == kMaxBlock + 1);
static_assert(sizeof kSparsePooled / sizeof *kSparsePooled == kMaxPooledBlock + 1);

SECATEUR_INLINE void sparse_task(const ConvView& v, const ConvTask& t) {
  const int row0 = t.tile * v.tile_rows;
  const int rows = v.rows - row0 < v.tile_rows ? v.rows - row0 : v.tile_rows;
  const int flat = rows * v.pitch, vectors = (flat + kLanes - 1) / kLanes;
  const int planes_wide = v.pooled ? 4 : 1;  // partial sums per pixel
  Block b;
  b.buffer = t.scratch + v.buffer_at;
  const int64_t first = int64_t{row0} * v.cols;
  b.y = t.y + (v.fold ? first / 4 : first);
  b.residual = t.residual ? t.residual + first : nullptr;
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
      b.partial = t.scratch + v.partial_at + int64_t{b.at} * planes_wide;
      if (v.pooled) {
        kSparsePooled[block](v, b, begin, end);
      } else if (v.middle) {
        middle_block(v, b, begin, end, block);
      } else if (v.near) {
        sparse_block(v, b, begin, end, block, Near{v.near, v.near_unit});
      } else {
        sparse_block(v, b, begin, end, block, Far{v.far});
      }
    }
  }
}

// ---- dense -----------------------------------------------------------------------------------------------------------

template <int M, int P>
void dense_block(const ConvView& v, const Block& b, const ConvChunk& chunk, const float* w, int out0, bool first,
                 bool last) {
  Vec sums[M][P];
  SECATEUR_UNROLL
  for (int m = 0; m < M; ++m) {
    const float* from = b.partial + (out0 + m) * v.tile_floats;
    const Vec bias = Vec::set1(v.bias[out0 + m]);
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[m][p] = first ? bias : Vec::load(from + p * kLanes);
  }
  const int32_t* tap = v.taps + chunk.tap_begin;
  for (const int32_t* stop = v.taps + chunk.tap_end; tap != stop; ++tap, w += M) {
    const float* x = b.panel + *tap;
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

#define SECATEUR_DENSE_ROW(m) \
  { dense_block<m, 1>, dense_block<m, 2>, dense_block<m, 3> }
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
  const float* panel = v.in_place ? t.x + first : t.scratch;
  for (int c = 0; c < v.n_chunks; ++c) {
    const ConvChunk& chunk = v.chunks[c];
    const int64_t taps = chunk.tap_end - chunk.tap_begin;
    fill_panel(v, chunk, t.x, row0, rows, t.scratch);
    const bool last = c + 1 == v.n_chunks && !v.pooled;
    for (int at = 0; at < vectors; at += v.block) {
      const int block = vectors - at < v.block ? vectors - at : v.block;
      b.at = at * kLanes;
      b.n = flat - b.at < block * kLanes ? flat - b.at : block * kLanes;
      b.panel = panel + b.at;
      b.partial = t.scratch + v.partial_at + b.at;
      for (int out = out_begin; out < out_end; out += kMaxRows) {
        const int m = out_end - out < kMaxRows ? out_end - out : kMaxRows;
        kDense[m - 1][block - 1](v, b, chunk, v.weights + chunk.weight_begin + out * taps, out, c == 0, last);
      }
    }
  }
  if (v.pooled) {
    for (int out = out_begin; out < out_end; ++out)
      pool_rows(v, t.scratch + v.partial_at + out * v.tile_floats, t.y + out * v.out_plane + int64_t{row0 / 2} * (v.cols / 2),
                rows);
  }
}

}  // namespace
}  // namespace secateur

#include "kernels/conv/blocks.h"
