// The convolution of one tile, written once for all ISAs. Include after exactly one simd/int8_*.h.
#pragma once

#include <utility>

#include "kernels/qconv/panel.h"

namespace secateur {
namespace {

constexpr int kMaxBlock = 14;

SECATEUR_INLINE const int32_t* words(const void* p) { return static_cast<const int32_t*>(p); }

// The planes of a chunk, for the tile whose first output row is row0.
inline void fill_panel(const QConvView& v, const QChunk& chunk, const uint8_t* x, int row0, int32_t* panel) {
  const Q zero = Q::set1(v.x_zero);
  for (int k = chunk.plane_begin; k < chunk.plane_end; ++k) {
    const QPlane& p = v.planes[k];
    // One vector a row, as in small maps: the same lanes in all rows.
    const bool narrow = v.pitch <= Q::kLanes && p.begin < p.end;
    const auto inside = Q::mask(p.begin, p.end);
    const auto even = Q::even(p.begin, p.end);
    const int32_t* from = words(x) + p.quad * v.in_plane;
    int32_t* to = panel + p.offset;
    const int rows = v.tile_rows + p.extra;
    for (int r = 0; r < rows; ++r, to += v.pitch) {
      const int64_t i = int64_t{row0 + r} * v.stride_h + p.row - v.pad_top;
      if (i < 0 || i >= v.in_h) {
        for (int j = 0; j < v.pitch; j += Q::kLanes) zero.store(to + j);
        continue;
      }
      // Column j is word j * stride + shift - pad of this row.
      const int32_t* line = from + i * v.in_w + p.shift - v.pad_left;
      if (narrow && v.stride_w == 1) {
        Q::load_or(zero, inside, line).store(to);
      } else if (narrow && v.stride_w == 2) {
        Q::load_even_or(zero, even, line).store(to);
      } else if (v.stride_w == 1) {
        for (int j = 0; j < v.pitch; j += Q::kLanes)
          Q::load_or(zero, Q::mask(p.begin - j, p.end - j), line + j).store(to + j);
      } else if (v.stride_w == 2) {
        for (int j = 0; j < v.pitch; j += Q::kLanes) {
          const int lo = p.begin - j < 0 ? 0 : p.begin - j, hi = p.end - j > Q::kLanes ? Q::kLanes : p.end - j;
          if (lo >= hi) {
            zero.store(to + j);
            continue;
          }
          Q::load_even_or(zero, Q::even(lo, hi), line + 2 * j).store(to + j);
        }
      } else {
        for (int j = 0; j < v.pitch; ++j)
          to[j] = j >= p.begin && j < p.end ? line[int64_t{j} * v.stride_w] : v.x_zero;
      }
    }
  }
}

// Sums of one output channel over `P` vectors.
template <int P>
struct Sums {
  Q a[P];
  SECATEUR_INLINE void start(int32_t bias) {
    const Q b = Q::set1(bias);
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) a[p] = b;
  }
  SECATEUR_INLINE void load(const int32_t* from) {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) a[p] = Q::load(from + p * Q::kLanes);
  }
  SECATEUR_INLINE void store(int32_t* to) const {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) a[p].store(to + p * Q::kLanes);
  }
};

struct Target {
  const QConvTask& t;
  int64_t tile_at;         // first pixel of the tile in an output plane
  int32_t limit;           // pixels of the tile that exist
};

SECATEUR_INLINE int stored(const QSpan& s, int32_t limit) { return s.at + s.count <= limit ? s.count : limit - s.at; }

// What a quad's four channels leave for finish_quad(): 16-bit results, float32 ones of kF32Rows, or sums that wait for a residual.
union Ends {
  alignas(64) int16_t half[4][kMaxBlock * Q::kLanes];
  alignas(64) float rows[4][kMaxBlock * Q::kLanes];
  alignas(64) int32_t sums[4][kMaxBlock * Q::kLanes];
};

// The rarer ends of a channel, from sums in memory: once for all block sizes, to keep the code small.
SECATEUR_NOINLINE void finish_words(const QConvView& v, const Target& to, int o, int vector, int n, const int32_t* sums) {
  if (o >= v.out_c) return;
  int32_t* y = static_cast<int32_t*>(to.t.y) + o * v.out_plane + to.tile_at;
  for (int p = 0; p < n; ++p) {
    const QSpan& span = v.spans[vector + p];
    const Q s = Q::load(sums + p * Q::kLanes);
    (v.output == 1 ? s : to_float(s, v.scale[o], v.offset[o])).store_masked(y + span.at, Q::mask(0, stored(span, to.limit)));
  }
}

// The four channels of a quad with their residual.
SECATEUR_NOINLINE void finish_sum(const QConvView& v, const Target& to, int quad, int vector, int n, const Ends& ends) {
  const int64_t plane = quad * v.out_plane + to.tile_at;
  const int32_t* r = words(to.t.residual) + plane;
  int32_t* y = static_cast<int32_t*>(to.t.y) + plane;
  const Sum sum{0, static_cast<float>(v.lo - v.zero), static_cast<float>(v.hi - v.zero), v.a, v.b, v.r_zero, 0};
  const float* scale = v.scale + 4 * quad;
  for (int p = 0; p < n; p += 2) {
    const int second = p + 1 < n ? p + 1 : p, at = p * Q::kLanes, next = second * Q::kLanes;
    const QSpan &a = v.spans[vector + p], &b = v.spans[vector + second];
    const auto ma = Q::mask(0, stored(a, to.limit)), mb = Q::mask(0, stored(b, to.limit));
    const Q ra = Q::load_or(Q::zero(), ma, r + a.at), rb = Q::load_or(Q::zero(), mb, r + b.at);
    const auto channel = [&]<int K>() {
      return narrow_sum<K>(Q::load(ends.sums[K] + at), Q::load(ends.sums[K] + next), sum, scale[K], ra, rb);
    };
    Q first, other;
    quads(channel.template operator()<0>(), channel.template operator()<1>(), channel.template operator()<2>(),
          channel.template operator()<3>(), v.sum_zero, v.sum_lo, v.sum_hi, &first, &other);
    first.store_masked(y + a.at, ma);
    if (p + 1 < n) other.store_masked(y + b.at, mb);
  }
}

// Channel `o`: into row k of `ends`, or words straight into y.
template <int P>
SECATEUR_INLINE void finish_channel(const QConvView& v, const Target& to, int o, int vector, const Sums<P>& s, Ends& ends, int k) {
  if (v.output == 3) {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) to_float(s.a[p], v.scale[o], v.offset[o]).store(ends.rows[k] + p * Q::kLanes);
    return;
  }
  if (v.output != 0 || v.residual) {
    s.store(ends.sums[k]);
    if (v.output != 0) finish_words(v, to, o, vector, P, ends.sums[k]);
    return;
  }
  int16_t* half = ends.half[k];
  SECATEUR_UNROLL
  for (int p = 0; p < P; p += 2) narrow(s.a[p], s.a[p + 1 < P ? p + 1 : p], v.scale[o]).store(half + p * Q::kLanes);
}

// Rows of features, 16 channels at a time: whole cache lines, for rows may lie 4096 bytes apart.
struct Lines {
  alignas(64) float at[kMaxBlock * Q::kLanes][16];
};

SECATEUR_NOINLINE void finish_rows(const QConvView& v, const Target& to, int quad, int vector, int n, const Ends& ends, Lines& lines) {
  const int column = 4 * (quad % 4);
  for (int k = 0; k < n * Q::kLanes; k += 4)
    store_turned(ends.rows[0] + k, ends.rows[1] + k, ends.rows[2] + k, ends.rows[3] + k, lines.at[k] + column, 16);
  if (column != 12 && quad + 1 != to.t.quad_end) return;
  const int first = quad - quad % 4 < to.t.quad_begin ? to.t.quad_begin : quad - quad % 4, begin = 4 * (first % 4);
  const int end = column + (v.out_c - 4 * quad < 4 ? v.out_c - 4 * quad : 4);
  float* y = static_cast<float*>(to.t.y) + to.tile_at * v.out_c + 4 * (quad - quad % 4);
  for (int p = 0; p < n; ++p) {
    const QSpan& span = v.spans[vector + p];
    const int count = stored(span, to.limit);
    for (int j = 0; j < count; ++j) {
      const float* line = lines.at[p * Q::kLanes + j];
      float* row = y + int64_t{span.at + j} * v.out_c;
      if (end - begin == 16) {
        for (int c = 0; c < 16; c += Q::kLanes) Q::load(line + c).store(row + c);
      } else {
        for (int c = begin; c < end; ++c) row[c] = line[c];
      }
    }
  }
}

// The four channels of a quad over n vectors, joined and stored.
SECATEUR_NOINLINE void finish_quad(const QConvView& v, const Target& to, int quad, int vector, int n, const Ends& ends, Lines& lines) {
  if (v.output == 3) return finish_rows(v, to, quad, vector, n, ends, lines);
  if (v.output != 0) return;
  if (v.residual) return finish_sum(v, to, quad, vector, n, ends);
  const auto& half = ends.half;
  int32_t* y = static_cast<int32_t*>(to.t.y) + quad * v.out_plane + to.tile_at;
  for (int p = 0; p < n; p += 2) {
    const int at = p * Q::kLanes;
    Q a, b;
    quads(H::load(half[0] + at), H::load(half[1] + at), H::load(half[2] + at), H::load(half[3] + at), v.zero, v.lo, v.hi, &a, &b);
    const QSpan& span = v.spans[vector + p];
    a.store_masked(y + span.at, Q::mask(0, stored(span, to.limit)));
    if (p + 1 < n) {
      const QSpan& next = v.spans[vector + p + 1];
      b.store_masked(y + next.at, Q::mask(0, stored(next, to.limit)));
    }
  }
}

// One output channel's nonzero blocks.
template <int P>
SECATEUR_INLINE void walk(const int32_t* entry, const int32_t* end, const uint8_t* panel, Sums<P>& s) {
  constexpr int kEntry = 1 + kWeightWords;
  if constexpr (P <= 2) {
    // Too few sums to hide the latency of the products: a second set.
    Sums<P> other;
    other.start(0);
    for (; end - entry >= 2 * kEntry; entry += 2 * kEntry) {
      const uint8_t *a = panel + static_cast<uint32_t>(entry[0]), *b = panel + static_cast<uint32_t>(entry[kEntry]);
      const W w = W::load(entry + 1), u = W::load(entry + kEntry + 1);
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) {
        s.a[p] = dot(s.a[p], expand(Q::load(a + p * 4 * Q::kLanes)), w);
        other.a[p] = dot(other.a[p], expand(Q::load(b + p * 4 * Q::kLanes)), u);
      }
    }
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) s.a[p] = add(s.a[p], other.a[p]);
  }
  for (; entry < end; entry += kEntry) {
    const uint8_t* x = panel + static_cast<uint32_t>(entry[0]);
    const W w = W::load(entry + 1);
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) s.a[p] = dot(s.a[p], expand(Q::load(x + p * 4 * Q::kLanes)), w);
  }
}

struct Piece {
  const QConvView& v;
  const Target& to;
  int chunk, vector;
  const uint8_t* panel;    // of the first vector
  int32_t* partial;        // null with one chunk
};

template <int P>
void sparse_block(const Piece& c) {
  const QConvView& v = c.v;
  Ends ends;
  Lines lines;
  const int64_t* begin = v.row_begin + int64_t{c.chunk} * (int64_t{4} * ((v.out_c + 3) / 4) + 1);
  const int64_t tile_words = int64_t{v.n_vectors} * Q::kLanes;
  const bool first = c.chunk == 0, last = c.chunk + 1 == v.n_chunks;
  for (int quad = c.to.t.quad_begin; quad < c.to.t.quad_end; ++quad) {
    for (int k = 0; k < 4; ++k) {
      const int o = 4 * quad + k;
      int32_t* partial = c.partial + o * tile_words + c.vector * Q::kLanes;
      if (!first && !last && begin[o] == begin[o + 1]) continue;
      Sums<P> s;
      if (first) {
        s.start(v.bias[o]);
      } else {
        s.load(partial);
      }
      walk<P>(v.entries + begin[o], v.entries + begin[o + 1], c.panel, s);
      if (last) {
        finish_channel<P>(v, c.to, o, c.vector, s, ends, k);
      } else {
        s.store(partial);
      }
    }
    if (last) finish_quad(v, c.to, quad, c.vector, P, ends, lines);
  }
}

template <int P>
void dense_block(const Piece& c) {
  const QConvView& v = c.v;
  Ends ends;
  Lines lines;
  const QChunk& chunk = v.chunks[c.chunk];
  const int64_t tile_words = int64_t{v.n_vectors} * Q::kLanes;
  const bool first = c.chunk == 0, last = c.chunk + 1 == v.n_chunks;
  const int n_taps = chunk.tap_end - chunk.tap_begin;
  const int32_t* taps = v.taps + chunk.tap_begin;
  for (int quad = c.to.t.quad_begin; quad < c.to.t.quad_end; ++quad) {
    Sums<P> s[4];
    int32_t* partial = c.partial + int64_t{4} * quad * tile_words + c.vector * Q::kLanes;
    SECATEUR_UNROLL
    for (int k = 0; k < 4; ++k) {
      if (first) {
        s[k].start(v.bias[4 * quad + k]);
      } else {
        s[k].load(partial + k * tile_words);
      }
    }
    const int32_t* w = v.weights + chunk.weight_begin + int64_t{quad} * n_taps * 4 * kWeightWords;
    for (int t = 0; t < n_taps; ++t, w += 4 * kWeightWords) {
      const uint8_t* x = c.panel + static_cast<uint32_t>(taps[t]);
      const W w0 = W::load(w), w1 = W::load(w + kWeightWords), w2 = W::load(w + 2 * kWeightWords), w3 = W::load(w + 3 * kWeightWords);
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) {
        const X e = expand(Q::load(x + p * 4 * Q::kLanes));
        s[0].a[p] = dot(s[0].a[p], e, w0);
        s[1].a[p] = dot(s[1].a[p], e, w1);
        s[2].a[p] = dot(s[2].a[p], e, w2);
        s[3].a[p] = dot(s[3].a[p], e, w3);
      }
    }
    SECATEUR_UNROLL
    for (int k = 0; k < 4; ++k) {
      if (last) {
        finish_channel<P>(v, c.to, 4 * quad + k, c.vector, s[k], ends, k);
      } else {
        s[k].store(partial + k * tile_words);
      }
    }
    if (last) finish_quad(v, c.to, quad, c.vector, P, ends, lines);
  }
}

using BlockFn = void (*)(const Piece&);

inline void run_task(const QConvView& v, const QConvTask& t, const BlockFn* blocks) {
  const int row0 = t.tile * v.tile_rows;
  const int rows = v.rows - row0 < v.tile_rows ? v.rows - row0 : v.tile_rows;
  const Target to{t, int64_t{row0} * v.cols, rows * v.cols};
  // Vectors of a last, lower tile that hold pixels.
  int n = v.n_vectors;
  while (n > 1 && v.spans[n - 1].at >= to.limit) --n;
  const int32_t* base = t.direct ? words(t.x) + to.tile_at : t.scratch;
  int32_t* partial = v.n_chunks > 1 ? t.scratch + v.partial_at : t.scratch;
  for (int chunk = 0; chunk < v.n_chunks; ++chunk) {
    if (!t.direct) fill_panel(v, v.chunks[chunk], t.x, row0, t.scratch);
    // Blocks of nearly equal size: a last one of one vector would run at the latency of the products.
    const int count = (n + v.block - 1) / v.block;
    for (int k = 0, at = 0; k < count; ++k) {
      const int size = (n - at + count - k - 1) / (count - k);
      const auto* panel = reinterpret_cast<const uint8_t*>(base + at * Q::kLanes);
      blocks[size - 1](Piece{v, to, chunk, at, panel, partial});
      at += size;
    }
  }
}

template <int... I>
void sparse_task(const QConvView& v, const QConvTask& t, std::integer_sequence<int, I...>) {
  static constexpr BlockFn blocks[] = {sparse_block<I + 1>...};
  run_task(v, t, blocks);
}

template <int... I>
void dense_task(const QConvView& v, const QConvTask& t, std::integer_sequence<int, I...>) {
  static constexpr BlockFn blocks[] = {dense_block<I + 1>...};
  run_task(v, t, blocks);
}

}  // namespace
}  // namespace secateur
