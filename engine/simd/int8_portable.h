// Four quads in plain integers; the contract is in int8.h.
#pragma once

#include "simd/int8.h"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace secateur {
namespace {

struct Q {
  static constexpr int kLanes = 4;
  int32_t v[4];
  struct Mask {
    int lo, hi;
  };
  static SECATEUR_INLINE Mask mask(int lo, int hi) { return {lo, hi}; }
  static SECATEUR_INLINE Q load(const void* p) {
    Q q;
    std::memcpy(q.v, p, sizeof q.v);
    return q;
  }
  static SECATEUR_INLINE Q load_or(Q fill, Mask m, const int32_t* p) {
    if (m.lo <= 0 && m.hi >= 4) return load(p);
    for (int i = 0; i < 4; ++i)
      if (m.lo <= i && i < m.hi) std::memcpy(&fill.v[i], reinterpret_cast<const uint8_t*>(p) + 4 * i, 4);
    return fill;
  }
  using Even = Mask;
  static SECATEUR_INLINE Even even(int lo, int hi) { return {lo, hi}; }
  static SECATEUR_INLINE Q load_even_or(Q fill, Even m, const int32_t* p) {
    for (int i = 0; i < 4; ++i)
      if (m.lo <= i && i < m.hi) std::memcpy(&fill.v[i], reinterpret_cast<const uint8_t*>(p) + 8 * i, 4);
    return fill;
  }
  static SECATEUR_INLINE Q load_even(const int32_t* p) { return load_even_or(zero(), {0, 4}, p); }
  static SECATEUR_INLINE Q evens(Q a, Q b) { return {{a.v[0], a.v[2], b.v[0], b.v[2]}}; }
  static SECATEUR_INLINE Q odds(Q a, Q b) { return {{a.v[1], a.v[3], b.v[1], b.v[3]}}; }
  static SECATEUR_INLINE Q set1(int32_t x) { return {{x, x, x, x}}; }
  static SECATEUR_INLINE Q zero() { return set1(0); }
  SECATEUR_INLINE void store(void* p) const { std::memcpy(p, v, sizeof v); }
  SECATEUR_INLINE void store_masked(void* p, Mask m) const {
    for (int i = 0; i < 4; ++i)
      if (m.lo <= i && i < m.hi) std::memcpy(static_cast<uint8_t*>(p) + 4 * i, &v[i], 4);
  }
  SECATEUR_INLINE void store_first(int32_t* p, int n) const {
    if (n >= kLanes) return store(p);
    store_masked(p, mask(0, n));
  }
};

constexpr int kWeightWords = 1;
using X = Q;
SECATEUR_INLINE X expand(Q x) { return x; }
struct W {
  int32_t v[4];
  static SECATEUR_INLINE W load(const int32_t* p) {
    const auto w = static_cast<uint32_t>(*p);
    return {{static_cast<int8_t>(w), static_cast<int8_t>(w >> 8), static_cast<int8_t>(w >> 16),
             static_cast<int8_t>(w >> 24)}};
  }
};
SECATEUR_INLINE Q dot(Q a, X x, W w) {
  for (int i = 0; i < 4; ++i) {
    const auto u = static_cast<uint32_t>(x.v[i]);
    const int32_t s = static_cast<int32_t>(u & 255) * w.v[0] + static_cast<int32_t>((u >> 8) & 255) * w.v[1] +
                      static_cast<int32_t>((u >> 16) & 255) * w.v[2] + static_cast<int32_t>(u >> 24) * w.v[3];
    // Sums wrap, as the vector instructions do.
    a.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) + static_cast<uint32_t>(s));
  }
  return a;
}

SECATEUR_INLINE Q add(Q a, Q b) {
  for (int i = 0; i < 4; ++i)
    a.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) + static_cast<uint32_t>(b.v[i]));
  return a;
}

// Half to even whatever the caller's rounding mode is; exact up to 2^23, beyond which floats are integers.
SECATEUR_INLINE float round_even(float v) {
  const float f = std::floor(v), d = v - f;
  if (d < 0.5f) return f;
  if (d > 0.5f) return f + 1.0f;
  return std::floor(f * 0.5f) * 2.0f == f ? f : f + 1.0f;
}
SECATEUR_INLINE int16_t saturated(float v) {
  return static_cast<int16_t>(v < -32768.0f ? -32768.0f : v > 32767.0f ? 32767.0f : v);
}
struct H {
  int16_t v[8];
  SECATEUR_INLINE void store(int16_t* p) const { std::memcpy(p, v, sizeof v); }
  static SECATEUR_INLINE H load(const int16_t* p) {
    H h;
    std::memcpy(h.v, p, sizeof h.v);
    return h;
  }
};
SECATEUR_INLINE H narrow(Q a, Q b, float scale) {
  H h;
  for (int i = 0; i < 8; ++i) h.v[i] = saturated(round_even(static_cast<float>(i < 4 ? a.v[i] : b.v[i - 4]) * scale));
  return h;
}
using Bytes = Q;
SECATEUR_INLINE Bytes bytes_of(Q r) { return r; }
template <int K>
SECATEUR_INLINE H narrow_sum(Q a, Q b, const Sum& s, float scale, const Bytes& ra, const Bytes& rb) {
  H h;
  for (int i = 0; i < 8; ++i) {
    const int32_t sum = i < 4 ? a.v[i] : b.v[i - 4];
    const auto word = static_cast<uint32_t>(i < 4 ? ra.v[i] : rb.v[i - 4]);
    float f = round_even(static_cast<float>(sum) * scale);
    f = f < s.lo ? s.lo : f > s.hi ? s.hi : f;
    const float left = f * s.a,
                right = static_cast<float>(static_cast<int32_t>((word >> (8 * K)) & 255) - s.r_zero) * s.b;
    h.v[i] = saturated(round_even(left + right));
  }
  return h;
}
SECATEUR_INLINE void quads(H h0, H h1, H h2, H h3, int zero, int lo, int hi, Q* a, Q* b) {
  const auto byte = [&](int16_t h) {
    const int x = h + zero;
    return static_cast<uint32_t>(x < lo ? lo : x > hi ? hi : x);
  };
  for (int i = 0; i < 8; ++i) {
    const uint32_t word = byte(h0.v[i]) | byte(h1.v[i]) << 8 | byte(h2.v[i]) << 16 | byte(h3.v[i]) << 24;
    (i < 4 ? a->v[i] : b->v[i - 4]) = static_cast<int32_t>(word);
  }
}

SECATEUR_INLINE Q to_float(Q a, float scale, float offset) {
  for (int i = 0; i < 4; ++i) {
    const float scaled = static_cast<float>(a.v[i]) * scale, f = scaled + offset;
    std::memcpy(&a.v[i], &f, 4);
  }
  return a;
}
SECATEUR_INLINE Q gelu(Q a, float scale, float offset, float inverse) {
  for (int i = 0; i < 4; ++i) {
    const float scaled = static_cast<float>(a.v[i]) * scale, v = scaled + offset, steps = std::fabs(v) * kGeluStep;
    const float u = steps < kGeluLast ? steps : kGeluLast, n = round_even(u), d = u - n;
    const int k = static_cast<int>(n);
    float r = kGelu[3][k] * d + kGelu[2][k];
    r = r * d + kGelu[1][k];
    r = r * d + kGelu[0][k];
    const float y = v * (0.5f + std::copysign(r, v));
    a.v[i] = saturated(round_even(y * inverse));
  }
  return a;
}
SECATEUR_INLINE Q pick(Q m, Q a, Q b) {
  for (int i = 0; i < 4; ++i) a.v[i] = (a.v[i] & m.v[i]) | (b.v[i] & ~m.v[i]);
  return a;
}
SECATEUR_INLINE void store_turned(const float* from, int64_t step, float* p, int64_t to) {
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 4; ++k) p[i * to + k] = from[k * step + i];
}
SECATEUR_INLINE void store_bytes(Q a, int zero, uint8_t* p) {
  for (int i = 0; i < 4; ++i) p[i] = static_cast<uint8_t>(a.v[i] + zero);
}
SECATEUR_INLINE Q load_bytes(const uint8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }

SECATEUR_INLINE uint32_t byte_of(int32_t word, int k) { return (static_cast<uint32_t>(word) >> (8 * k)) & 255; }
SECATEUR_INLINE Q maximum(Q a, Q b) {
  for (int i = 0; i < 4; ++i) {
    uint32_t word = 0;
    for (int k = 0; k < 4; ++k) {
      const uint32_t u = byte_of(a.v[i], k), v = byte_of(b.v[i], k);
      word |= (u > v ? u : v) << (8 * k);
    }
    a.v[i] = static_cast<int32_t>(word);
  }
  return a;
}
SECATEUR_INLINE float byte_to_float(int32_t word, int k, int zero) {
  return static_cast<float>(static_cast<int32_t>(byte_of(word, k)) - zero);
}
SECATEUR_INLINE Q sum_bytes(Q a, Q b, const Sum& s, int k) {
  for (int i = 0; i < 4; ++i) {
    const float left = byte_to_float(a.v[i], k, s.a_zero) * s.a, right = byte_to_float(b.v[i], k, s.r_zero) * s.b;
    a.v[i] = saturated(round_even(left + right));
  }
  return a;
}
SECATEUR_INLINE Q from_float(const float* p, Q::Mask m, const Sum& s) {
  Q q = Q::zero();
  for (int i = 0; i < 4; ++i) {
    if (m.lo > i || i >= m.hi) continue;
    float f = p[i] / s.scale;
    f = f > s.lo ? f : s.lo;  // also of NaN, as the vector instructions
    f = f < s.hi ? f : s.hi;
    q.v[i] = static_cast<int32_t>(round_even(f));
  }
  return q;
}
SECATEUR_INLINE void bytes_to_float(Q a, int k, int zero, float scale, float* p, int n) {
  for (int i = 0; i < 4 && i < n; ++i) p[i] = byte_to_float(a.v[i], k, zero) * scale;
}
SECATEUR_INLINE H narrow_words(Q a, Q b) {
  H h;
  for (int i = 0; i < 8; ++i) h.v[i] = saturated(static_cast<float>(i < 4 ? a.v[i] : b.v[i - 4]));
  return h;
}

SECATEUR_INLINE void interleave(Q t0, Q t1, Q t2, Q t3, Q* out) {
  for (int v = 0; v < 4; ++v)
    for (int c = 0; c < 4; ++c)
      out[v].v[c] = static_cast<int32_t>(byte_of(t0.v[v], c) | byte_of(t1.v[v], c) << 8 | byte_of(t2.v[v], c) << 16 |
                                         byte_of(t3.v[v], c) << 24);
}
SECATEUR_INLINE void turn_lanes(Q* q) {
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < i; ++k) {
      const int32_t t = q[i].v[k];
      q[i].v[k] = q[k].v[i];
      q[k].v[i] = t;
    }
}
SECATEUR_INLINE Q repeat4(const void* p) { return Q::load(p); }
// Weights that differ from lane to lane.
struct Lanes {
  W lane[4];
};
SECATEUR_INLINE Lanes load_lanes(const int32_t* p) {
  return {{W::load(p), W::load(p + 1), W::load(p + 2), W::load(p + 3)}};
}
SECATEUR_INLINE Q dot(Q a, X x, const Lanes& w) {
  for (int i = 0; i < 4; ++i) {
    const auto u = static_cast<uint32_t>(x.v[i]);
    const int32_t* k = w.lane[i].v;
    const int32_t s = static_cast<int32_t>(u & 255) * k[0] + static_cast<int32_t>((u >> 8) & 255) * k[1] +
                      static_cast<int32_t>((u >> 16) & 255) * k[2] + static_cast<int32_t>(u >> 24) * k[3];
    a.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) + static_cast<uint32_t>(s));
  }
  return a;
}
SECATEUR_INLINE Q dot_words(Q a, X x, Q w) { return dot(a, x, load_lanes(w.v)); }
SECATEUR_INLINE Q rescaled(Q a, Q scale) {
  for (int i = 0; i < 4; ++i) {
    float s;
    std::memcpy(&s, &scale.v[i], 4);
    a.v[i] = saturated(round_even(static_cast<float>(a.v[i]) * s));
  }
  return a;
}
SECATEUR_INLINE Q join(H a, H b, int zero, int lo, int hi) {
  Q q = Q::zero();
  for (int i = 0; i < 16; ++i) {
    const int x = (i < 8 ? a.v[i] : b.v[i - 8]) + zero;
    q.v[i / 4] |= static_cast<int32_t>(static_cast<uint32_t>(x < lo ? lo : x > hi ? hi : x) << (8 * (i % 4)));
  }
  return q;
}

}  // namespace
}  // namespace secateur
