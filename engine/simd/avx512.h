// One zmm register of floats; the contract is in vec.h.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// GCC's own header leaves the operand of an unmasked min or max undefined on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstdint>

#include "simd/eight.h"
#include "simd/vec.h"

namespace secateur {
namespace {

struct Vec {
  static constexpr int kLanes = 16;
  static constexpr int kRegisters = 32;
  __m512 v;

  static SECATEUR_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static SECATEUR_INLINE Vec set1(float x) { return {_mm512_set1_ps(x)}; }
  static SECATEUR_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
  SECATEUR_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }

  static SECATEUR_INLINE uint32_t below(int n) { return n <= 0 ? 0u : n >= 16 ? 0xffffu : (1u << n) - 1; }
  using Mask = __mmask16;
  static SECATEUR_INLINE Mask mask(int lo, int hi) { return static_cast<__mmask16>(below(hi) & ~below(lo)); }
  static SECATEUR_INLINE Vec load_masked(const float* p, Mask m) { return {_mm512_maskz_loadu_ps(m, p)}; }
  static SECATEUR_INLINE Vec load_range(const float* p, int lo, int hi) { return load_masked(p, mask(lo, hi)); }
  static SECATEUR_INLINE Vec load_bits(const float* p, uint32_t bits) {
    return load_masked(p, static_cast<__mmask16>(bits));
  }
  SECATEUR_INLINE Vec keep(uint32_t bits) const { return {_mm512_maskz_mov_ps(static_cast<__mmask16>(bits), v)}; }
  static SECATEUR_INLINE Vec quads(const float* p, const int64_t* o) {
    __m512 r = _mm512_castps128_ps512(_mm_loadu_ps(p + o[0]));
    r = _mm512_mask_broadcast_f32x4(r, 0x00f0, _mm_loadu_ps(p + o[1]));
    r = _mm512_mask_broadcast_f32x4(r, 0x0f00, _mm_loadu_ps(p + o[2]));
    return {_mm512_mask_broadcast_f32x4(r, 0xf000, _mm_loadu_ps(p + o[3]))};
  }
  static SECATEUR_INLINE Vec spread(const float* p) {
    const __m512i index = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return {_mm512_permutexvar_ps(index, _mm512_castps128_ps512(_mm_loadu_ps(p)))};
  }
  SECATEUR_INLINE void sum_quads(float* p) const {
    const __m256 half =
        _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
  }
  SECATEUR_INLINE void store_first(float* p, int n) const {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(below(n)), v);
  }
};

SECATEUR_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
SECATEUR_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
SECATEUR_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
SECATEUR_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
SECATEUR_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
SECATEUR_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
SECATEUR_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }

SECATEUR_INLINE Vec even(Vec a, Vec b) {
  const __m512i index = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return {_mm512_permutex2var_ps(a.v, index, b.v)};
}

SECATEUR_INLINE Vec odd(Vec a, Vec b) {
  const __m512i index = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  return {_mm512_permutex2var_ps(a.v, index, b.v)};
}
SECATEUR_INLINE Vec even_near(Vec a, Vec b) { return even(a, b); }
SECATEUR_INLINE Vec odd_near(Vec a, Vec b) { return odd(a, b); }
SECATEUR_INLINE Vec in_order(Vec a) { return a; }
SECATEUR_INLINE void zip(Vec a, Vec b, Vec* lo, Vec* hi) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  lo->v = _mm512_permutex2var_ps(a.v, first, b.v);
  hi->v = _mm512_permutex2var_ps(a.v, _mm512_add_epi32(first, _mm512_set1_epi32(8)), b.v);
}
SECATEUR_INLINE Vec shift_up(Vec a, Vec b) {
  return {_mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(b.v), _mm512_castps_si512(a.v), 15))};
}
SECATEUR_INLINE Vec shift_down(Vec a, Vec b) {
  return {_mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(b.v), _mm512_castps_si512(a.v), 1))};
}
SECATEUR_INLINE void halves(Vec a, Vec b, Vec* lo, Vec* hi) {
  lo->v = _mm512_shuffle_f32x4(a.v, b.v, _MM_SHUFFLE(1, 0, 1, 0));
  hi->v = _mm512_shuffle_f32x4(a.v, b.v, _MM_SHUFFLE(3, 2, 3, 2));
}

constexpr bool kHasHalf = true;
struct Half {
  __m256 v;
  using Mask = __mmask8;
  static SECATEUR_INLINE Mask mask(int lo, int hi) { return static_cast<__mmask8>(Vec::mask(lo, hi)); }
  static SECATEUR_INLINE Half load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static SECATEUR_INLINE Half load_masked(const float* p, Mask m) { return {_mm256_maskz_loadu_ps(m, p)}; }
  static SECATEUR_INLINE Half low(Vec x) { return {_mm512_castps512_ps256(x.v)}; }
  static SECATEUR_INLINE Half zero() { return {_mm256_setzero_ps()}; }
  SECATEUR_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
};
SECATEUR_INLINE Half even(Half a, Half b) {
  return {_mm256_permutex2var_ps(a.v, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14), b.v)};
}

// Otherwise GCC loads what several sums need once for each of them.
SECATEUR_INLINE Vec held(Vec x) {
#if defined(__GNUC__)
  __asm__("" : "+v"(x.v));
#endif
  return x;
}

SECATEUR_INLINE float sum(Vec a) { return _mm512_reduce_add_ps(a.v); }
SECATEUR_INLINE float maximum(Vec a) { return _mm512_reduce_max_ps(a.v); }

SECATEUR_INLINE Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
// x * 2^n: x in [0.5, 2), t = n + 1.5 * 2^23, the result normal.
SECATEUR_INLINE Vec scale2(Vec x, Vec t) {
  return {
      _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x.v), _mm512_slli_epi32(_mm512_castps_si512(t.v), 23)))};
}

}  // namespace
}  // namespace secateur

#include "simd/math.h"
