// One ymm register of floats, with FMA3; the contract is in vec.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "simd/eight.h"
#include "simd/vec.h"

namespace secateur {
namespace {

struct Vec {
  static constexpr int kLanes = 8;
  static constexpr int kRegisters = 16;
  __m256 v;

  static SECATEUR_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static SECATEUR_INLINE Vec set1(float x) { return {_mm256_set1_ps(x)}; }
  static SECATEUR_INLINE Vec zero() { return {_mm256_setzero_ps()}; }
  SECATEUR_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }

  using Mask = __m256i;
  static SECATEUR_INLINE Mask mask(int lo, int hi) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(lo), lane),
                               _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), lane));
  }
  static SECATEUR_INLINE Vec load_masked(const float* p, Mask m) { return {_mm256_maskload_ps(p, m)}; }
  static SECATEUR_INLINE Vec load_range(const float* p, int lo, int hi) { return load_masked(p, mask(lo, hi)); }
  static SECATEUR_INLINE Vec load_bits(const float* p, uint32_t bits) {
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return load_masked(p, _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane), lane));
  }
  static SECATEUR_INLINE Vec quads(const float* p, const int64_t* o) {
    return {_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + o[0])), _mm_loadu_ps(p + o[1]), 1)};
  }
  static SECATEUR_INLINE Vec spread(const float* p) {
    return {_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_broadcast_ss(p)), _mm_broadcast_ss(p + 1), 1)};
  }
  static SECATEUR_INLINE Vec low(Vec x) { return x; }
  SECATEUR_INLINE void sum_quads(float* p) const {
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)));
  }
  SECATEUR_INLINE void store_first(float* p, int n) const {
    if (n >= kLanes) return store(p);
    // In pieces: a masked store takes 13 cycles on Zen 3, 22 across a line of the cache.
    __m128 rest = _mm256_castps256_ps128(v);
    if (n & 4) {
      _mm_storeu_ps(p, rest);
      rest = _mm256_extractf128_ps(v, 1);
      p += 4;
    }
    if (n & 2) {
      _mm_storel_pi(reinterpret_cast<__m64*>(p), rest);
      rest = _mm_movehl_ps(rest, rest);
      p += 2;
    }
    if (n & 1) _mm_store_ss(p, rest);
  }
};

SECATEUR_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
SECATEUR_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
SECATEUR_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
SECATEUR_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
SECATEUR_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
SECATEUR_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
SECATEUR_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }

SECATEUR_INLINE Vec even(Vec a, Vec b) {
  const __m256 t = _mm256_shuffle_ps(a.v, b.v, _MM_SHUFFLE(2, 0, 2, 0));  // a0 a2 b0 b2 | a4 a6 b4 b6
  return {_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(t), _MM_SHUFFLE(3, 1, 2, 0)))};
}

SECATEUR_INLINE Vec odd(Vec a, Vec b) {
  const __m256 t = _mm256_shuffle_ps(a.v, b.v, _MM_SHUFFLE(3, 1, 3, 1));
  return {_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(t), _MM_SHUFFLE(3, 1, 2, 0)))};
}
SECATEUR_INLINE Vec even_near(Vec a, Vec b) { return {_mm256_shuffle_ps(a.v, b.v, _MM_SHUFFLE(2, 0, 2, 0))}; }
SECATEUR_INLINE Vec odd_near(Vec a, Vec b) { return {_mm256_shuffle_ps(a.v, b.v, _MM_SHUFFLE(3, 1, 3, 1))}; }
SECATEUR_INLINE Vec in_order(Vec a) {
  return {_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(a.v), _MM_SHUFFLE(3, 1, 2, 0)))};
}
SECATEUR_INLINE void zip(Vec a, Vec b, Vec* lo, Vec* hi) {
  const __m256 p = _mm256_unpacklo_ps(a.v, b.v), q = _mm256_unpackhi_ps(a.v, b.v);
  lo->v = _mm256_permute2f128_ps(p, q, 0x20);
  hi->v = _mm256_permute2f128_ps(p, q, 0x31);
}
SECATEUR_INLINE Vec shift_up(Vec a, Vec b) {
  const __m256i middle = _mm256_castps_si256(_mm256_permute2f128_ps(a.v, b.v, 0x21));  // high of a, low of b
  return {_mm256_castsi256_ps(_mm256_alignr_epi8(_mm256_castps_si256(b.v), middle, 12))};
}
SECATEUR_INLINE Vec shift_down(Vec a, Vec b) {
  const __m256i middle = _mm256_castps_si256(_mm256_permute2f128_ps(a.v, b.v, 0x21));
  return {_mm256_castsi256_ps(_mm256_alignr_epi8(middle, _mm256_castps_si256(a.v), 4))};
}
SECATEUR_INLINE void halves(Vec a, Vec b, Vec* lo, Vec* hi) {
  lo->v = _mm256_permute2f128_ps(a.v, b.v, 0x20);
  hi->v = _mm256_permute2f128_ps(a.v, b.v, 0x31);
}

constexpr bool kHasHalf = false;
using Half = Vec;

// Otherwise GCC loads what several sums need once for each of them.
SECATEUR_INLINE Vec held(Vec x) {
#if defined(__GNUC__)
  __asm__("" : "+x"(x.v));
#endif
  return x;
}

SECATEUR_INLINE float sum(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
SECATEUR_INLINE float maximum(Vec a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

SECATEUR_INLINE Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.v)}; }
// x * 2^n: x in [0.5, 2), t = n + 1.5 * 2^23, the result normal.
SECATEUR_INLINE Vec scale2(Vec x, Vec t) {
  return {
      _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x.v), _mm256_slli_epi32(_mm256_castps_si256(t.v), 23)))};
}

}  // namespace
}  // namespace secateur

#include "simd/math.h"
