// One zmm register of quads; with AVX512-VNNI where the file is compiled for it. The contract is in int8.h.
#pragma once

#include "simd/int8.h"

#include <immintrin.h>

namespace secateur {
namespace {

struct Q {
  static constexpr int kLanes = 16;
  __m512i v;
  using Mask = __mmask16;
  static SECATEUR_INLINE uint32_t below(int n) { return n <= 0 ? 0u : n >= 16 ? 0xffffu : (1u << n) - 1; }
  static SECATEUR_INLINE Mask mask(int lo, int hi) { return static_cast<__mmask16>(below(hi) & ~below(lo)); }
  static SECATEUR_INLINE Q load(const void* p) { return {_mm512_loadu_si512(p)}; }
  static SECATEUR_INLINE Q load_or(Q fill, Mask m, const int32_t* p) { return {_mm512_mask_loadu_epi32(fill.v, m, p)}; }
  // Words 0, 2, 4, ... of p, lanes outside the mask from fill.
  struct Even {
    Mask m, a, b;
  };
  // Lane i reads word 2i: the words up to 2 * (hi - 1).
  static SECATEUR_INLINE Even even(int lo, int hi) {
    return {mask(lo, hi), mask(2 * lo, 2 * hi - 1), mask(2 * lo - 16, 2 * hi - 17)};
  }
  static SECATEUR_INLINE Q load_even_or(Q fill, const Even& e, const int32_t* p) {
    const __m512i index = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i a = _mm512_maskz_loadu_epi32(e.a, p);
    const __m512i b = _mm512_maskz_loadu_epi32(e.b, p + 16);
    return {_mm512_mask_mov_epi32(fill.v, e.m, _mm512_permutex2var_epi32(a, index, b))};
  }
  static SECATEUR_INLINE Q evens(Q a, Q b) {
    const __m512i index = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return {_mm512_permutex2var_epi32(a.v, index, b.v)};
  }
  static SECATEUR_INLINE Q odds(Q a, Q b) {
    const __m512i index = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return {_mm512_permutex2var_epi32(a.v, index, b.v)};
  }
  static SECATEUR_INLINE Q load_even(const int32_t* p) { return evens(load(p), load(p + kLanes)); }
  static SECATEUR_INLINE Q set1(int32_t x) { return {_mm512_set1_epi32(x)}; }
  static SECATEUR_INLINE Q zero() { return {_mm512_setzero_si512()}; }
  SECATEUR_INLINE void store(void* p) const { _mm512_storeu_si512(p, v); }
  SECATEUR_INLINE void store_masked(void* p, Mask m) const { _mm512_mask_storeu_epi32(p, m, v); }
  SECATEUR_INLINE void store_first(int32_t* p, int n) const {
    if (n >= kLanes) return store(p);
    store_masked(p, mask(0, n));
  }
};

#if defined(__AVX512VNNI__)
constexpr int kWeightWords = 1;
using X = Q;
SECATEUR_INLINE X expand(Q x) { return x; }
struct W {
  __m512i v;
  static SECATEUR_INLINE W load(const int32_t* p) { return {_mm512_set1_epi32(*p)}; }
};
SECATEUR_INLINE Q dot(Q a, X x, W w) { return {_mm512_dpbusd_epi32(a.v, x.v, w.v)}; }
SECATEUR_INLINE Q dot_words(Q a, X x, Q w) { return {_mm512_dpbusd_epi32(a.v, x.v, w.v)}; }
#else
constexpr int kWeightWords = 2;
struct X {
  __m512i even, odd;
};
SECATEUR_INLINE X expand(Q x) {
  return {_mm512_and_si512(x.v, _mm512_set1_epi32(0x00ff00ff)), _mm512_srli_epi16(x.v, 8)};
}
struct W {
  __m512i even, odd;
  static SECATEUR_INLINE W load(const int32_t* p) { return {_mm512_set1_epi32(p[0]), _mm512_set1_epi32(p[1])}; }
};
SECATEUR_INLINE Q dot(Q a, X x, W w) {
  const __m512i s = _mm512_add_epi32(_mm512_madd_epi16(x.even, w.even), _mm512_madd_epi16(x.odd, w.odd));
  return {_mm512_add_epi32(a.v, s)};
}
SECATEUR_INLINE Q dot_words(Q a, X x, Q w) {
  return dot(a, x, {_mm512_srai_epi16(_mm512_slli_epi16(w.v, 8), 8), _mm512_srai_epi16(w.v, 8)});
}
#define SECATEUR_BYTE_PAIRS 1
SECATEUR_INLINE Q dot_bytes(Q a, Q x, Q w) {
  return {_mm512_add_epi32(a.v, _mm512_madd_epi16(_mm512_maddubs_epi16(x.v, w.v), _mm512_set1_epi16(1)))};
}
SECATEUR_INLINE Q dot_pair(Q a, Q x, Q w, Q y, Q u) {
  const __m512i t = _mm512_add_epi16(_mm512_maddubs_epi16(x.v, w.v), _mm512_maddubs_epi16(y.v, u.v));
  return {_mm512_add_epi32(a.v, _mm512_madd_epi16(t, _mm512_set1_epi16(1)))};
}
#endif

SECATEUR_INLINE Q add(Q a, Q b) { return {_mm512_add_epi32(a.v, b.v)}; }

struct H {
  __m512i v;
  SECATEUR_INLINE void store(int16_t* p) const { _mm512_storeu_si512(p, v); }
  static SECATEUR_INLINE H load(const int16_t* p) { return {_mm512_loadu_si512(p)}; }
};
SECATEUR_INLINE __m512i scaled(Q a, float scale) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(a.v), _mm512_set1_ps(scale)));
}
SECATEUR_INLINE H narrow(Q a, Q b, float scale) { return {_mm512_packs_epi32(scaled(a, scale), scaled(b, scale))}; }
// The byte goes into the mantissa of 2^23 or 2^15: one operation makes a float of it.
struct Bytes {
  __m512i low, high;
};
SECATEUR_INLINE Bytes bytes_of(Q r) { return {r.v, _mm512_srli_epi32(r.v, 16)}; }
template <int K>
SECATEUR_INLINE __m512 byte_minus(const Bytes& r, int zero) {
  constexpr int kMask = K % 2 ? 0xff00 : 0xff, kBits = K % 2 ? 0x47000000 : 0x4b000000;
  const __m512i f = _mm512_ternarylogic_epi32(K < 2 ? r.low : r.high, _mm512_set1_epi32(kMask),
                                              _mm512_set1_epi32(kBits), 0xea);  // a & b | c
  return _mm512_sub_ps(_mm512_castsi512_ps(f), _mm512_set1_ps((K % 2 ? 0x1p15f : 0x1p23f) + static_cast<float>(zero)));
}
template <int K>
SECATEUR_INLINE __m512i summed(Q a, const Sum& s, float scale, const Bytes& r) {
  __m512 f = _mm512_roundscale_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(a.v), _mm512_set1_ps(scale)), 8);
  f = _mm512_min_ps(_mm512_max_ps(f, _mm512_set1_ps(s.lo)), _mm512_set1_ps(s.hi));
  const __m512 other = _mm512_mul_ps(byte_minus<K>(r, s.r_zero), _mm512_set1_ps(s.b));
  return _mm512_cvtps_epi32(_mm512_add_ps(_mm512_mul_ps(f, _mm512_set1_ps(s.a)), other));
}
template <int K>
SECATEUR_INLINE H narrow_sum(Q a, Q b, const Sum& s, float scale, const Bytes& ra, const Bytes& rb) {
  return {_mm512_packs_epi32(summed<K>(a, s, scale, ra), summed<K>(b, s, scale, rb))};
}
SECATEUR_INLINE Q pick(Q m, Q a, Q b) { return {_mm512_ternarylogic_epi32(m.v, a.v, b.v, 0xca)}; }
SECATEUR_INLINE void quads(H h0, H h1, H h2, H h3, int zero, int lo, int hi, Q* a, Q* b) {
  const __m512i z = _mm512_set1_epi16(static_cast<int16_t>(zero));
  const __m512i l = _mm512_set1_epi8(static_cast<char>(lo)), u = _mm512_set1_epi8(static_cast<char>(hi));
  __m512i p = _mm512_packus_epi16(_mm512_adds_epi16(h0.v, z), _mm512_adds_epi16(h2.v, z));
  __m512i q = _mm512_packus_epi16(_mm512_adds_epi16(h1.v, z), _mm512_adds_epi16(h3.v, z));
  p = _mm512_min_epu8(_mm512_max_epu8(p, l), u);
  q = _mm512_min_epu8(_mm512_max_epu8(q, l), u);
  const __m512i c01 = _mm512_unpacklo_epi8(p, q), c23 = _mm512_unpackhi_epi8(p, q);
  a->v = _mm512_unpacklo_epi16(c01, c23);
  b->v = _mm512_unpackhi_epi16(c01, c23);
}

SECATEUR_INLINE Q to_float(Q a, float scale, float offset) {
  return {_mm512_castps_si512(
      _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(a.v), _mm512_set1_ps(scale)), _mm512_set1_ps(offset)))};
}
SECATEUR_INLINE Q gelu(Q a, float scale, float offset, float inverse) {
  const __m512 v = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(a.v), _mm512_set1_ps(scale)), _mm512_set1_ps(offset));
  const __m512 u = _mm512_min_ps(_mm512_mul_ps(_mm512_abs_ps(v), _mm512_set1_ps(kGeluStep)), _mm512_set1_ps(kGeluLast));
  const __m512 magic = _mm512_set1_ps(kGeluMagic), t = _mm512_add_ps(u, magic),
               d = _mm512_sub_ps(u, _mm512_sub_ps(t, magic));
  const __m512i n = _mm512_castps_si512(t);
  const auto c = [&](int k) {
    return _mm512_permutex2var_ps(_mm512_loadu_ps(kGelu[k]), n, _mm512_loadu_ps(kGelu[k] + 16));
  };
  __m512 r = _mm512_add_ps(_mm512_mul_ps(c(3), d), c(2));
  r = _mm512_add_ps(_mm512_mul_ps(r, d), c(1));
  r = _mm512_add_ps(_mm512_mul_ps(r, d), c(0));
  const __m512i sign = _mm512_set1_epi32(static_cast<int>(0x80000000u));
  r = _mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(_mm512_castps_si512(r), _mm512_castps_si512(v), sign, 0xf8));  // a | (b & c)
  const __m512 y = _mm512_mul_ps(v, _mm512_add_ps(_mm512_set1_ps(0.5f), r));
  return {_mm512_cvtps_epi32(_mm512_mul_ps(y, _mm512_set1_ps(inverse)))};
}
SECATEUR_INLINE void store_turned(const float* from, int64_t step, float* p, int64_t to) {
  __m512 r[16], t[16];
  SECATEUR_UNROLL
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(from + i * step);
  SECATEUR_UNROLL
  for (int i = 0; i < 16; i += 2)
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  // r[4 g + c]: rows 4 g to 4 g + 3 of column c of each 128-bit lane.
  SECATEUR_UNROLL
  for (int i = 0; i < 16; i += 4) {
    const __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]), c = _mm512_castps_pd(t[i + 2]),
                  d = _mm512_castps_pd(t[i + 3]);
    r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)), r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)), r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
  SECATEUR_UNROLL
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88),
                 b = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);  // lanes 0, 2
    const __m512 d = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd),
                 e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);  // lanes 1, 3
    _mm512_storeu_ps(p + c * to, _mm512_shuffle_f32x4(a, b, 0x88));
    _mm512_storeu_ps(p + (4 + c) * to, _mm512_shuffle_f32x4(d, e, 0x88));
    _mm512_storeu_ps(p + (8 + c) * to, _mm512_shuffle_f32x4(a, b, 0xdd));
    _mm512_storeu_ps(p + (12 + c) * to, _mm512_shuffle_f32x4(d, e, 0xdd));
  }
}
SECATEUR_INLINE void store_bytes(Q a, int zero, uint8_t* p) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_add_epi32(a.v, _mm512_set1_epi32(zero))));
}
SECATEUR_INLINE Q load_bytes(const uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}

SECATEUR_INLINE Q maximum(Q a, Q b) { return {_mm512_max_epu8(a.v, b.v)}; }
SECATEUR_INLINE __m512 byte_to_float(Q a, int k, int zero) {
  const __m512i byte = _mm512_and_si512(_mm512_srl_epi32(a.v, _mm_cvtsi32_si128(8 * k)), _mm512_set1_epi32(255));
  return _mm512_cvtepi32_ps(_mm512_sub_epi32(byte, _mm512_set1_epi32(zero)));
}
SECATEUR_INLINE Q sum_bytes(Q a, Q b, const Sum& s, int k) {
  const __m512 left = _mm512_mul_ps(byte_to_float(a, k, s.a_zero), _mm512_set1_ps(s.a));
  const __m512 right = _mm512_mul_ps(byte_to_float(b, k, s.r_zero), _mm512_set1_ps(s.b));
  return {_mm512_cvtps_epi32(_mm512_add_ps(left, right))};
}
SECATEUR_INLINE Q from_float(const float* p, Q::Mask m, const Sum& s) {
  __m512 f = _mm512_div_ps(_mm512_maskz_loadu_ps(m, p), _mm512_set1_ps(s.scale));
  f = _mm512_min_ps(_mm512_max_ps(f, _mm512_set1_ps(s.lo)), _mm512_set1_ps(s.hi));
  return {_mm512_cvtps_epi32(f)};
}
SECATEUR_INLINE void bytes_to_float(Q a, int k, int zero, float scale, float* p, int n) {
  _mm512_mask_storeu_ps(p, Q::mask(0, n), _mm512_mul_ps(byte_to_float(a, k, zero), _mm512_set1_ps(scale)));
}
SECATEUR_INLINE H narrow_words(Q a, Q b) { return {_mm512_packs_epi32(a.v, b.v)}; }

SECATEUR_INLINE void interleave(Q t0, Q t1, Q t2, Q t3, Q* out) {
  const __m512i a = _mm512_unpacklo_epi8(t0.v, t1.v), b = _mm512_unpackhi_epi8(t0.v, t1.v);
  const __m512i c = _mm512_unpacklo_epi8(t2.v, t3.v), d = _mm512_unpackhi_epi8(t2.v, t3.v);
  out[0].v = _mm512_unpacklo_epi16(a, c), out[1].v = _mm512_unpackhi_epi16(a, c);
  out[2].v = _mm512_unpacklo_epi16(b, d), out[3].v = _mm512_unpackhi_epi16(b, d);
}
// Of each 128-bit lane, four vectors of four channels become a vector of each channel.
SECATEUR_INLINE void turn_lanes(Q* q) {
  const __m512i a = _mm512_unpacklo_epi32(q[0].v, q[1].v), b = _mm512_unpackhi_epi32(q[0].v, q[1].v);
  const __m512i c = _mm512_unpacklo_epi32(q[2].v, q[3].v), d = _mm512_unpackhi_epi32(q[2].v, q[3].v);
  q[0].v = _mm512_unpacklo_epi64(a, c), q[1].v = _mm512_unpackhi_epi64(a, c);
  q[2].v = _mm512_unpacklo_epi64(b, d), q[3].v = _mm512_unpackhi_epi64(b, d);
}
SECATEUR_INLINE Q repeat4(const void* p) {
  return {_mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(p)))};
}
SECATEUR_INLINE W load_lanes(const int32_t* p) {
#if defined(__AVX512VNNI__)
  return {repeat4(p).v};
#else
  return {repeat4(p).v, repeat4(p + 4).v};
#endif
}
SECATEUR_INLINE Q rescaled(Q a, Q scale) {
  return {_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(a.v), _mm512_castsi512_ps(scale.v)))};
}
SECATEUR_INLINE Q join(H a, H b, int zero, int lo, int hi) {
  const __m512i z = _mm512_set1_epi16(static_cast<int16_t>(zero));
  const __m512i p = _mm512_packus_epi16(_mm512_adds_epi16(a.v, z), _mm512_adds_epi16(b.v, z));
  return {_mm512_min_epu8(_mm512_max_epu8(p, _mm512_set1_epi8(static_cast<char>(lo))),
                          _mm512_set1_epi8(static_cast<char>(hi)))};
}

}  // namespace
}  // namespace secateur
