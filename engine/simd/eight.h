// Eight floats in a ymm register, and four by four, for levels that have AVX2 or more; the contract is in vec.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "simd/vec.h"

namespace secateur {
namespace {

struct Eight {
  __m256 v;
  static SECATEUR_INLINE Eight load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static SECATEUR_INLINE Eight set1(float x) { return {_mm256_set1_ps(x)}; }
  SECATEUR_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  // Two 64-bit loads for eight columns, then scalar loads: 0.76 cycles an element on Zen 4; a gather takes 1.3 there
  // and 1.7 on Cascade Lake.
  static SECATEUR_INLINE Eight pick(const float* x, const uint16_t* c) {
    uint64_t a, b;
    __builtin_memcpy(&a, c, 8);
    __builtin_memcpy(&b, c + 4, 8);
    return {_mm256_setr_ps(x[a & 0xffff], x[(a >> 16) & 0xffff], x[(a >> 32) & 0xffff], x[a >> 48], x[b & 0xffff],
                           x[(b >> 16) & 0xffff], x[(b >> 32) & 0xffff], x[b >> 48])};
  }
  static SECATEUR_INLINE Eight pick(const float* x, const uint32_t* c) {
    return {_mm256_setr_ps(x[c[0]], x[c[1]], x[c[2]], x[c[3]], x[c[4]], x[c[5]], x[c[6]], x[c[7]])};
  }
};
SECATEUR_INLINE Eight fma(Eight a, Eight b, Eight c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
SECATEUR_INLINE Eight operator+(Eight a, Eight b) { return {_mm256_add_ps(a.v, b.v)}; }
SECATEUR_INLINE Eight operator*(Eight a, Eight b) { return {_mm256_mul_ps(a.v, b.v)}; }
SECATEUR_INLINE Eight min(Eight a, Eight b) { return {_mm256_min_ps(a.v, b.v)}; }
SECATEUR_INLINE Eight max(Eight a, Eight b) { return {_mm256_max_ps(a.v, b.v)}; }

SECATEUR_INLINE float madd(float a, float b, float c) {
  return _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
}
SECATEUR_INLINE void transpose4(const float* from, int64_t fs, float* to, int64_t ts) {
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + fs), c = _mm_loadu_ps(from + 2 * fs),
         d = _mm_loadu_ps(from + 3 * fs);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a);
  _mm_storeu_ps(to + ts, b);
  _mm_storeu_ps(to + 2 * ts, c);
  _mm_storeu_ps(to + 3 * ts, d);
}

}  // namespace
}  // namespace secateur
