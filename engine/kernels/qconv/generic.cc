// The convolution of one tile, written once for all ISAs: compiled for every level of kernels/table.h.
#include <utility>

#include "simd/int8_here.h"
//
#include "kernels/qconv/depthwise.h"
#include "kernels/qconv/fill.h"
#include "kernels/qconv/finish.h"
#include "kernels/qconv/panel.h"
#include "kernels/qconv/row.h"
#include "kernels/qconv/rows.h"

namespace secateur {
namespace {

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

#if SECATEUR_BYTE_PAIRS
// One output channel's pairs of blocks.
template <int P>
SECATEUR_INLINE void walk_pairs(const int32_t* entry, const int32_t* end, const uint8_t* panel, Sums<P>& s) {
  for (; entry < end; entry += 4) {
    const uint8_t *a = panel + static_cast<uint32_t>(entry[0]), *b = panel + static_cast<uint32_t>(entry[1]);
    const Q w = Q::set1(entry[2]), u = Q::set1(entry[3]);
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p)
      s.a[p] = dot_pair(s.a[p], Q::load(a + p * 4 * Q::kLanes), w, Q::load(b + p * 4 * Q::kLanes), u);
  }
}
#endif

struct Piece {
  const QConvView& v;
  const Target& to;
  int chunk, vector;
  const uint8_t* panel;  // of the first vector
  int32_t* partial;      // null with one chunk
};

// Output by output; walk(entries, end, panel, sums) adds the products of this chunk.
template <int P, class Walk>
SECATEUR_INLINE void each_output(const Piece& c, Walk walk) {
  const QConvView& v = c.v;
  Ends ends;
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
      walk(v.entries + begin[o], v.entries + begin[o + 1], c.panel, s);
      if (last) {
        finish_channel<P>(v, c.to, o, c.vector, s, ends, k);
      } else {
        s.store(partial);
      }
    }
    if (last) finish_quad(v, c.to, quad, c.vector, P, ends);
  }
}

template <int P>
void sparse_block(const Piece& c) {
  each_output<P>(c, walk<P>);
}

#if SECATEUR_BYTE_PAIRS
template <int P>
void pair_block(const Piece& c) {
  each_output<P>(c, walk_pairs<P>);
}
#endif

// Vectors of pixels whose sums are too few to hide the latency of the products, and leave registers for as many again.
constexpr int kLonely = Q::kLanes == 16 ? 2 : 1;

// One vector of pixels for the weights of four outputs.
template <int P>
SECATEUR_INLINE void multiply(const uint8_t* x, const int32_t* w, Sums<P> (&s)[4]) {
  const W w0 = W::load(w), w1 = W::load(w + kWeightWords), w2 = W::load(w + 2 * kWeightWords),
          w3 = W::load(w + 3 * kWeightWords);
  SECATEUR_UNROLL
  for (int p = 0; p < P; ++p) {
    const X e = expand(Q::load(x + p * 4 * Q::kLanes));
    s[0].a[p] = dot(s[0].a[p], e, w0);
    s[1].a[p] = dot(s[1].a[p], e, w1);
    s[2].a[p] = dot(s[2].a[p], e, w2);
    s[3].a[p] = dot(s[3].a[p], e, w3);
  }
}

// The products of `n` entries: x(i) the pixels, w(i) the weights of four outputs.
template <int P, class Pixels, class Weights>
SECATEUR_INLINE void multiply_all(int64_t n, Pixels x, Weights w, Sums<P> (&s)[4]) {
  int64_t i = 0;
  if constexpr (P <= kLonely) {
    // Four sums, each as late as the product before it: a second set.
    Sums<P> other[4];
    for (Sums<P>& o : other) o.start(0);
    for (; i + 2 <= n; i += 2) {
      multiply<P>(x(i), w(i), s);
      multiply<P>(x(i + 1), w(i + 1), other);
    }
    for (int k = 0; k < 4; ++k)
      for (int p = 0; p < P; ++p) s[k].a[p] = add(s[k].a[p], other[k].a[p]);
  }
  for (; i < n; ++i) multiply<P>(x(i), w(i), s);
}

// All quads of outputs of a task; walk(quad, sums) adds the products of this chunk.
template <int P, class Walk>
SECATEUR_INLINE void each_quad(const Piece& c, Walk walk) {
  const QConvView& v = c.v;
  Ends ends;
  const int64_t tile_words = int64_t{v.n_vectors} * Q::kLanes;
  const bool first = c.chunk == 0, last = c.chunk + 1 == v.n_chunks;
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
    walk(quad, s);
    SECATEUR_UNROLL
    for (int k = 0; k < 4; ++k) {
      if (last) {
        finish_channel<P>(v, c.to, 4 * quad + k, c.vector, s[k], ends, k);
      } else {
        s[k].store(partial + k * tile_words);
      }
    }
    if (last) finish_quad(v, c.to, quad, c.vector, P, ends);
  }
}

template <int P>
void dense_block(const Piece& c) {
  const QConvView& v = c.v;
  const QChunk& chunk = v.chunks[c.chunk];
  const int n_taps = chunk.tap_end - chunk.tap_begin;
  const int32_t* taps = v.taps + chunk.tap_begin;
  each_quad<P>(c, [&](int quad, Sums<P>(&s)[4]) {
    const int32_t* w = v.weights + chunk.weight_begin + int64_t{quad} * n_taps * 4 * kWeightWords;
    multiply_all<P>(
        n_taps, [&](int64_t i) { return c.panel + static_cast<uint32_t>(taps[i]); },
        [&](int64_t i) { return w + i * 4 * kWeightWords; }, s);
  });
}

// 4x4 blocks: a load serves four products.
template <int P>
void quad_block(const Piece& c) {
  const QConvView& v = c.v;
  constexpr int kEntry = 1 + 4 * kWeightWords;
  const int64_t* begin = v.row_begin + int64_t{c.chunk} * ((v.out_c + 3) / 4 + 1);
  each_quad<P>(c, [&](int quad, Sums<P>(&s)[4]) {
    const int32_t* e = v.entries + begin[quad];
    multiply_all<P>((begin[quad + 1] - begin[quad]) / kEntry,
                    [&](int64_t i) { return c.panel + static_cast<uint32_t>(e[i * kEntry]); },
                    [&](int64_t i) { return e + i * kEntry + 1; }, s);
  });
}

#if SECATEUR_BYTE_PAIRS
// 4x4 blocks in pairs.
template <int P>
void quad_pair_block(const Piece& c) {
  const QConvView& v = c.v;
  const int64_t* begin = v.row_begin + int64_t{c.chunk} * ((v.out_c + 3) / 4 + 1);
  each_quad<P>(c, [&](int quad, Sums<P>(&s)[4]) {
    const int32_t* end = v.entries + begin[quad + 1];
    for (const int32_t* e = v.entries + begin[quad]; e < end; e += 10) {
      const uint8_t *a = c.panel + static_cast<uint32_t>(e[0]), *b = c.panel + static_cast<uint32_t>(e[1]);
      Q x[P], y[P];
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) x[p] = Q::load(a + p * 4 * Q::kLanes), y[p] = Q::load(b + p * 4 * Q::kLanes);
      SECATEUR_UNROLL
      for (int k = 0; k < 4; ++k) {
        const Q w = Q::set1(e[2 + k]), u = Q::set1(e[6 + k]);
        SECATEUR_UNROLL
        for (int p = 0; p < P; ++p) s[k].a[p] = dot_pair(s[k].a[p], x[p], w, y[p], u);
      }
    }
  });
}
#endif

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

#if SECATEUR_BYTE_PAIRS
template <int... I>
void pair_task(const QConvView& v, const QConvTask& t, std::integer_sequence<int, I...>) {
  static constexpr BlockFn blocks[] = {pair_block<I + 1>...};
  run_task(v, t, blocks);
}

template <int... I>
void quad_pair_task(const QConvView& v, const QConvTask& t, std::integer_sequence<int, I...>) {
  static constexpr BlockFn blocks[] = {quad_pair_block<I + 1>...};
  run_task(v, t, blocks);
}
#endif

template <int... I>
void quad_task(const QConvView& v, const QConvTask& t, std::integer_sequence<int, I...>) {
  static constexpr BlockFn blocks[] = {quad_block<I + 1>...};
  run_task(v, t, blocks);
}

template <int... I>
void dense_task(const QConvView& v, const QConvTask& t, std::integer_sequence<int, I...>) {
  static constexpr BlockFn blocks[] = {dense_block<I + 1>...};
  run_task(v, t, blocks);
}

// Vectors that a block of sums may have, as many as the registers hold; kernels.inc says the same.
constexpr int kSparseVectors = Q::kLanes == 16 ? 14 : Q::kLanes;
constexpr int kDenseVectors = Q::kLanes == 16                       ? (kWeightWords == 1 ? 6 : 4)
                              : Q::kLanes == 8 && kWeightWords == 1 ? 3
                                                                    : 2;

}  // namespace

namespace SECATEUR_LEVEL {

void sparse_task(const QConvView& v, const QConvTask& t) {
  secateur::sparse_task(v, t, std::make_integer_sequence<int, kSparseVectors>());
}
#if SECATEUR_BYTE_PAIRS
void pair_task(const QConvView& v, const QConvTask& t) {
  secateur::pair_task(v, t, std::make_integer_sequence<int, kSparseVectors>());
}
void quad_pair_task(const QConvView& v, const QConvTask& t) {
  secateur::quad_pair_task(v, t, std::make_integer_sequence<int, kDenseVectors>());
}
#endif
void quad_task(const QConvView& v, const QConvTask& t) {
  secateur::quad_task(v, t, std::make_integer_sequence<int, kDenseVectors>());
}
void dense_task(const QConvView& v, const QConvTask& t) {
  secateur::dense_task(v, t, std::make_integer_sequence<int, kDenseVectors>());
}
void depthwise_task(const QConvView& v, const QConvTask& t) { secateur::depthwise_task(v, t); }
void row_task(const QConvView& v, const QConvTask& t) { secateur::row_task(v, t); }

}  // namespace SECATEUR_LEVEL
}  // namespace secateur
