// From sums to bytes, words or floats: the ends of output channels. Part of generic.cc.
#pragma once

#include "kernels/qconv/panel.h"

namespace secateur {
namespace {

constexpr int kMaxBlock = 14;

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
  int64_t tile_at;  // first pixel of the tile in an output plane
  int32_t limit;    // pixels of the tile that exist
};

SECATEUR_INLINE int stored(const QSpan& s, int32_t limit) { return s.at + s.count <= limit ? s.count : limit - s.at; }

// Nearly all vectors are whole; masked moves are slower and masks take time to make.
SECATEUR_INLINE Q take(const int32_t* p, int count) {
  return count == Q::kLanes ? Q::load(p) : Q::load_or(Q::zero(), Q::mask(0, count), p);
}
SECATEUR_INLINE void put(Q q, int32_t* p, int count) { q.store_first(p, count); }

// What channels leave for finish_quad(): a quad's 16-bit results, its sums that wait for a residual, or 16 channels of
// 32 bits for rows of features, so that whole cache lines are stored: rows may lie 4096 bytes apart.
constexpr int kGroup = 16;
union Ends {
  alignas(64) int16_t half[4][kMaxBlock * Q::kLanes];
  alignas(64) int32_t sums[4][kMaxBlock * Q::kLanes];
  alignas(64) float rows[kGroup][kMaxBlock * Q::kLanes];
};

// Sums as they are, or floats made of them.
SECATEUR_NOINLINE void finish_words(const QConvView& v, const Target& to, int o, int vector, int n,
                                    const int32_t* sums) {
  if (o >= v.out_c) return;
  int32_t* y = static_cast<int32_t*>(to.t.y) + o * v.out_plane + to.tile_at;
  for (int p = 0; p < n; ++p) {
    const QSpan& span = v.spans[vector + p];
    put(Q::load(sums + p * Q::kLanes), y + span.at, stored(span, to.limit));
  }
}

// The four channels of a quad with their residual.
SECATEUR_NOINLINE void finish_sum(const QConvView& v, const Target& to, int quad, int vector, int n, const Ends& ends) {
  const int64_t plane = quad * v.out_plane + to.tile_at;
  const int32_t* r = words(to.t.residual) + plane;
  int32_t* y = static_cast<int32_t*>(to.t.y) + plane;
  const Sum sum{0, static_cast<float>(v.lo - v.zero), static_cast<float>(v.hi - v.zero), v.a, v.b, v.r_zero, 0};
  const float scale[4] = {v.scale[4 * quad], v.scale[4 * quad + 1], v.scale[4 * quad + 2], v.scale[4 * quad + 3]};
  const int sum_zero = v.sum_zero, lo = v.sum_lo, hi = v.sum_hi;
  for (int p = 0; p < n; p += 2) {
    const int second = p + 1 < n ? p + 1 : p, at = p * Q::kLanes, next = second * Q::kLanes;
    const QSpan &a = v.spans[vector + p], &b = v.spans[vector + second];
    const int na = stored(a, to.limit), nb = stored(b, to.limit);
    const Bytes ra = bytes_of(take(r + a.at, na)), rb = bytes_of(take(r + b.at, nb));
    const auto channel = [&]<int K>() {
      return narrow_sum<K>(Q::load(ends.sums[K] + at), Q::load(ends.sums[K] + next), sum, scale[K], ra, rb);
    };
    Q first, other;
    quads(channel.template operator()<0>(), channel.template operator()<1>(), channel.template operator()<2>(),
          channel.template operator()<3>(), sum_zero, lo, hi, &first, &other);
    put(first, y + a.at, na);
    if (p + 1 < n) put(other, y + b.at, nb);
  }
}

// The four channels of a quad with their GELU.
SECATEUR_NOINLINE void finish_gelu(const QConvView& v, const Target& to, int quad, int vector, int n,
                                   const Ends& ends) {
  int32_t* y = static_cast<int32_t*>(to.t.y) + quad * v.out_plane + to.tile_at;
  const float* scale = v.scale + 4 * quad;
  const float* offset = v.offset + 4 * quad;
  const float inverse = v.inverse;
  const int zero = v.zero, lo = v.lo, hi = v.hi;
  for (int p = 0; p < n; p += 2) {
    const int second = p + 1 < n ? p + 1 : p, at = p * Q::kLanes, next = second * Q::kLanes;
    const QSpan &a = v.spans[vector + p], &b = v.spans[vector + second];
    H h[4];
    for (int k = 0; k < 4; ++k)
      h[k] = narrow_words(gelu(Q::load(ends.sums[k] + at), scale[k], offset[k], inverse),
                          gelu(Q::load(ends.sums[k] + next), scale[k], offset[k], inverse));
    Q first, other;
    quads(h[0], h[1], h[2], h[3], zero, lo, hi, &first, &other);
    put(first, y + a.at, stored(a, to.limit));
    if (p + 1 < n) put(other, y + b.at, stored(b, to.limit));
  }
}

// Channel `o`, the k-th of its quad: into `ends`, or words straight into y.
template <int P>
SECATEUR_INLINE void finish_channel(const QConvView& v, const Target& to, int o, int vector, const Sums<P>& s,
                                    Ends& ends, int k) {
  if (v.simple) {
    int16_t* half = ends.half[k];
    SECATEUR_UNROLL
    for (int p = 0; p < P; p += 2) narrow(s.a[p], s.a[p + 1 < P ? p + 1 : p], v.scale[o]).store(half + p * Q::kLanes);
    return;
  }
  const bool rows = v.output == kQI32Rows || v.output == kQF32Rows;
  auto* words = rows ? reinterpret_cast<int32_t*>(ends.rows[o % kGroup]) : ends.sums[k];
  if (v.output >= kQF32Rows) {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) to_float(s.a[p], v.scale[o], v.offset[o]).store(words + p * Q::kLanes);
  } else {
    s.store(words);
  }
  if (v.output != kQU8 && !rows) finish_words(v, to, o, vector, P, words);
}

// Rows of features, once their group of channels is whole or the task ends.
SECATEUR_NOINLINE void finish_rows(const QConvView& v, const Target& to, int quad, int vector, int n,
                                   const Ends& ends) {
  const int group = 4 * quad / kGroup * kGroup;
  if (4 * quad + 4 != group + kGroup && quad + 1 != to.t.quad_end) return;
  const int begin = group < 4 * to.t.quad_begin ? 4 * to.t.quad_begin - group : 0;
  const int end = (4 * quad + 4 < v.out_c ? 4 * quad + 4 : v.out_c) - group;
  float* y = static_cast<float*>(to.t.y) + to.tile_at * v.out_c + group;
  for (int p = 0; p < n; ++p) {
    const QSpan& span = v.spans[vector + p];
    const int count = stored(span, to.limit), at = p * Q::kLanes;
    float* row = y + int64_t{span.at} * v.out_c;
    if (end - begin == kGroup && count == Q::kLanes) {
      for (int c = 0; c < kGroup; c += Q::kLanes)
        store_turned(ends.rows[c] + at, kMaxBlock * Q::kLanes, row + c, v.out_c);
    } else {
      for (int j = 0; j < count; ++j)
        for (int c = begin; c < end; ++c) row[int64_t{j} * v.out_c + c] = ends.rows[c][at + j];
    }
  }
}

// The four channels of a quad over n vectors, joined and stored.
SECATEUR_NOINLINE void finish_quad(const QConvView& v, const Target& to, int quad, int vector, int n,
                                   const Ends& ends) {
  if (!v.simple) {
    if (v.residual) return finish_sum(v, to, quad, vector, n, ends);
    if (v.gelu) return finish_gelu(v, to, quad, vector, n, ends);
    if (v.output == kQI32Rows || v.output == kQF32Rows) finish_rows(v, to, quad, vector, n, ends);
    return;
  }
  const auto& half = ends.half;
  int32_t* y = static_cast<int32_t*>(to.t.y) + quad * v.out_plane + to.tile_at;
  const int zero = v.zero, lo = v.lo, hi = v.hi;
  for (int p = 0; p < n; p += 2) {
    const int at = p * Q::kLanes;
    Q a, b;
    quads(H::load(half[0] + at), H::load(half[1] + at), H::load(half[2] + at), H::load(half[3] + at), zero, lo, hi, &a,
          &b);
    const QSpan& span = v.spans[vector + p];
    put(a, y + span.at, stored(span, to.limit));
    if (p + 1 < n) {
      const QSpan& next = v.spans[vector + p + 1];
      put(b, y + next.at, stored(next, to.limit));
    }
  }
}

}  // namespace
}  // namespace secateur
