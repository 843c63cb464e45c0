// Four floats in whatever the baseline CPU has (SSE2 on x86-64), no fused multiply-add; the contract is in vec.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "simd/vec.h"

namespace secateur {
namespace {

struct Vec {
  static constexpr int kLanes = 4;
  static constexpr int kRegisters = 16;
#if defined(__GNUC__)
  typedef float Lanes __attribute__((vector_size(16)));
#else
  struct Lanes {
    float a[4];
    float& operator[](int i) { return a[i]; }
    float operator[](int i) const { return a[i]; }
  };
#endif
  Lanes v;

  static SECATEUR_INLINE Vec load(const float* p) {
    Vec r;
    std::memcpy(&r.v, p, sizeof r.v);
    return r;
  }
  static SECATEUR_INLINE Vec set1(float x) { return {Lanes{x, x, x, x}}; }
  static SECATEUR_INLINE Vec zero() { return set1(0.0f); }
  SECATEUR_INLINE void store(float* p) const { std::memcpy(p, &v, sizeof v); }
  struct Mask {
    int lo, hi;
  };
  static SECATEUR_INLINE Mask mask(int lo, int hi) { return {lo, hi}; }
  static SECATEUR_INLINE Vec load_masked(const float* p, Mask m) {
    if (m.lo <= 0 && m.hi >= 4) return load(p);
    float t[4] = {0, 0, 0, 0};
    for (int i = 0; i < 4; ++i)
      if (m.lo <= i && i < m.hi) t[i] = p[i];
    return load(t);
  }
  static SECATEUR_INLINE Vec load_range(const float* p, int lo, int hi) { return load_masked(p, mask(lo, hi)); }
  static SECATEUR_INLINE Vec load_bits(const float* p, uint32_t bits) {
    if ((bits & 15) == 15) return load(p);
    float t[4] = {0, 0, 0, 0};
    for (int i = 0; i < 4; ++i)
      if (bits >> i & 1) t[i] = p[i];
    return load(t);
  }
  static SECATEUR_INLINE Vec quads(const float* p, const int64_t* o) { return load(p + o[0]); }
  static SECATEUR_INLINE Vec spread(const float* p) { return set1(*p); }
  SECATEUR_INLINE void sum_quads(float* p) const { store(p); }
  static SECATEUR_INLINE Vec low(Vec x) { return x; }
  SECATEUR_INLINE void store_first(float* p, int n) const {
    for (int i = 0; i < n; ++i) p[i] = v[i];
  }
};

#if defined(__GNUC__)
SECATEUR_INLINE Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
SECATEUR_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
SECATEUR_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
SECATEUR_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
SECATEUR_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
SECATEUR_INLINE Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
SECATEUR_INLINE Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
#else
template <class F>
SECATEUR_INLINE Vec lanewise(Vec a, Vec b, F f) {
  Vec r;
  for (int i = 0; i < 4; ++i) r.v[i] = f(a.v[i], b.v[i]);
  return r;
}
SECATEUR_INLINE Vec operator+(Vec a, Vec b) {
  return lanewise(a, b, [](float x, float y) { return x + y; });
}
SECATEUR_INLINE Vec operator-(Vec a, Vec b) {
  return lanewise(a, b, [](float x, float y) { return x - y; });
}
SECATEUR_INLINE Vec operator*(Vec a, Vec b) {
  return lanewise(a, b, [](float x, float y) { return x * y; });
}
SECATEUR_INLINE Vec operator/(Vec a, Vec b) {
  return lanewise(a, b, [](float x, float y) { return x / y; });
}
SECATEUR_INLINE Vec min(Vec a, Vec b) {
  return lanewise(a, b, [](float x, float y) { return x < y ? x : y; });
}
SECATEUR_INLINE Vec max(Vec a, Vec b) {
  return lanewise(a, b, [](float x, float y) { return x > y ? x : y; });
}
SECATEUR_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
#endif

SECATEUR_INLINE Vec even(Vec a, Vec b) { return {Vec::Lanes{a.v[0], a.v[2], b.v[0], b.v[2]}}; }
SECATEUR_INLINE Vec odd(Vec a, Vec b) { return {Vec::Lanes{a.v[1], a.v[3], b.v[1], b.v[3]}}; }
SECATEUR_INLINE Vec even_near(Vec a, Vec b) { return even(a, b); }
SECATEUR_INLINE Vec odd_near(Vec a, Vec b) { return odd(a, b); }
SECATEUR_INLINE Vec in_order(Vec a) { return a; }
SECATEUR_INLINE void zip(Vec a, Vec b, Vec* lo, Vec* hi) {
  *lo = {Vec::Lanes{a.v[0], b.v[0], a.v[1], b.v[1]}};
  *hi = {Vec::Lanes{a.v[2], b.v[2], a.v[3], b.v[3]}};
}
SECATEUR_INLINE Vec shift_up(Vec a, Vec b) { return {Vec::Lanes{a.v[3], b.v[0], b.v[1], b.v[2]}}; }
SECATEUR_INLINE Vec shift_down(Vec a, Vec b) { return {Vec::Lanes{a.v[1], a.v[2], a.v[3], b.v[0]}}; }
SECATEUR_INLINE void halves(Vec a, Vec b, Vec* lo, Vec* hi) {
  *lo = {Vec::Lanes{a.v[0], a.v[1], b.v[0], b.v[1]}};
  *hi = {Vec::Lanes{a.v[2], a.v[3], b.v[2], b.v[3]}};
}

constexpr bool kHasHalf = false;
using Half = Vec;

SECATEUR_INLINE Vec held(Vec x) { return x; }

SECATEUR_INLINE float sum(Vec a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
SECATEUR_INLINE float maximum(Vec a) {
  const float p = a.v[0] > a.v[1] ? a.v[0] : a.v[1], q = a.v[2] > a.v[3] ? a.v[2] : a.v[3];
  return p > q ? p : q;
}

struct Eight {
  Vec lo, hi;
  static SECATEUR_INLINE Eight load(const float* p) { return {Vec::load(p), Vec::load(p + 4)}; }
  static SECATEUR_INLINE Eight set1(float x) { return {Vec::set1(x), Vec::set1(x)}; }
  SECATEUR_INLINE void store(float* p) const {
    lo.store(p);
    hi.store(p + 4);
  }
  template <class Column>
  static SECATEUR_INLINE Eight pick(const float* x, const Column* c) {
    return {{Vec::Lanes{x[c[0]], x[c[1]], x[c[2]], x[c[3]]}}, {Vec::Lanes{x[c[4]], x[c[5]], x[c[6]], x[c[7]]}}};
  }
};
SECATEUR_INLINE Eight fma(Eight a, Eight b, Eight c) { return {fma(a.lo, b.lo, c.lo), fma(a.hi, b.hi, c.hi)}; }
SECATEUR_INLINE Eight operator+(Eight a, Eight b) { return {a.lo + b.lo, a.hi + b.hi}; }
SECATEUR_INLINE Eight operator*(Eight a, Eight b) { return {a.lo * b.lo, a.hi * b.hi}; }
SECATEUR_INLINE Eight min(Eight a, Eight b) { return {min(a.lo, b.lo), min(a.hi, b.hi)}; }
SECATEUR_INLINE Eight max(Eight a, Eight b) { return {max(a.lo, b.lo), max(a.hi, b.hi)}; }

SECATEUR_INLINE float madd(float a, float b, float c) { return a * b + c; }
SECATEUR_INLINE void transpose4(const float* from, int64_t fs, float* to, int64_t ts) {
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) to[j * ts + i] = from[i * fs + j];
}

SECATEUR_INLINE Vec sqrt(Vec a) {
  return {Vec::Lanes{std::sqrt(a.v[0]), std::sqrt(a.v[1]), std::sqrt(a.v[2]), std::sqrt(a.v[3])}};
}
// x * 2^n: x in [0.5, 2), t = n + 1.5 * 2^23, the result normal.
SECATEUR_INLINE Vec scale2(Vec x, Vec t) {
  Vec p;
  for (int i = 0; i < 4; ++i) {
    const float a = x.v[i], b = t.v[i];
    uint32_t bits, n;
    std::memcpy(&bits, &a, 4);
    std::memcpy(&n, &b, 4);
    bits += n << 23;
    float f;
    std::memcpy(&f, &bits, 4);
    p.v[i] = f;
  }
  return p;
}

}  // namespace
}  // namespace secateur

#include "simd/math.h"
