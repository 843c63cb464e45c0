// One ymm register of quads; with AVX-VNNI where the file is compiled for it; the contract is in int8.h.
#pragma once

#include "simd/int8.h"

#include <immintrin.h>

namespace secateur {
namespace {

struct Q {
  static constexpr int kLanes = 8;
  __m256i v;
  using Mask = __m256i;
  static SECATEUR_INLINE Mask mask(int lo, int hi) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(lo), lane),
                               _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), lane));
  }
  static SECATEUR_INLINE Q load(const void* p) { return {_mm256_loadu_si256(static_cast<const __m256i*>(p))}; }
  static SECATEUR_INLINE Q load_or(Q fill, Mask m, const int32_t* p) {
    return {_mm256_blendv_epi8(fill.v, _mm256_maskload_epi32(p, m), m)};
  }
  struct Even {
    Mask m, a, b;
  };
  static SECATEUR_INLINE Even even(int lo, int hi) {
    return {mask(lo, hi), mask(2 * lo, 2 * hi - 1), mask(2 * lo - 8, 2 * hi - 9)};
  }
  static SECATEUR_INLINE Q load_even_or(Q fill, const Even& e, const int32_t* p) {
    const __m256 a = _mm256_castsi256_ps(_mm256_maskload_epi32(p, e.a));
    const __m256 b = _mm256_castsi256_ps(_mm256_maskload_epi32(p + 8, e.b));
    const __m256i t =
        _mm256_castps_si256(_mm256_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0)));  // a0 a2 b0 b2 | a4 a6 b4 b6
    return {_mm256_blendv_epi8(fill.v, _mm256_permute4x64_epi64(t, _MM_SHUFFLE(3, 1, 2, 0)), e.m)};
  }
  // Of two vectors one after the other, every second word.
  template <int Picked>
  static SECATEUR_INLINE Q seconds(Q a, Q b) {
    const __m256 t = _mm256_shuffle_ps(_mm256_castsi256_ps(a.v), _mm256_castsi256_ps(b.v), Picked);
    return {_mm256_permute4x64_epi64(_mm256_castps_si256(t), _MM_SHUFFLE(3, 1, 2, 0))};
  }
  static SECATEUR_INLINE Q evens(Q a, Q b) { return seconds<_MM_SHUFFLE(2, 0, 2, 0)>(a, b); }
  static SECATEUR_INLINE Q odds(Q a, Q b) { return seconds<_MM_SHUFFLE(3, 1, 3, 1)>(a, b); }
  static SECATEUR_INLINE Q load_even(const int32_t* p) { return evens(load(p), load(p + kLanes)); }
  static SECATEUR_INLINE Q set1(int32_t x) { return {_mm256_set1_epi32(x)}; }
  static SECATEUR_INLINE Q zero() { return {_mm256_setzero_si256()}; }
  SECATEUR_INLINE void store(void* p) const { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
  SECATEUR_INLINE void store_masked(void* p, Mask m) const { _mm256_maskstore_epi32(static_cast<int*>(p), m, v); }
  // A masked store takes a dozen cycles on Zen 3.
  SECATEUR_INLINE void store_first(int32_t* p, int n) const {
    if (n >= kLanes) return store(p);
    __m128i left = _mm256_castsi256_si128(v);
    if (n & 4) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(p), left);
      left = _mm256_extracti128_si256(v, 1), p += 4;
    }
    if (n & 2) {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(p), left);
      left = _mm_srli_si128(left, 8), p += 2;
    }
    if (n & 1) *p = _mm_cvtsi128_si32(left);
  }
};

#if defined(__AVXVNNI__) || SECATEUR_VNNI_STAND_IN
SECATEUR_INLINE __m256i dpbusd(__m256i a, __m256i x, __m256i w) {
#if SECATEUR_VNNI_STAND_IN
  // What the instruction computes, for tests on machines that lack it.
  const __m256i even =
      _mm256_madd_epi16(_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), _mm256_srai_epi16(w, 8));
  return _mm256_add_epi32(a, _mm256_add_epi32(even, odd));
#else
  return _mm256_dpbusd_avx_epi32(a, x, w);
#endif
}
constexpr int kWeightWords = 1;
using X = Q;
SECATEUR_INLINE X expand(Q x) { return x; }
struct W {
  __m256i v;
  static SECATEUR_INLINE W load(const int32_t* p) { return {_mm256_set1_epi32(*p)}; }
};
SECATEUR_INLINE Q dot(Q a, X x, W w) { return {dpbusd(a.v, x.v, w.v)}; }
SECATEUR_INLINE Q dot_words(Q a, X x, Q w) { return {dpbusd(a.v, x.v, w.v)}; }
#else
constexpr int kWeightWords = 2;
struct X {
  __m256i even, odd;
};
SECATEUR_INLINE X expand(Q x) {
  return {_mm256_and_si256(x.v, _mm256_set1_epi32(0x00ff00ff)), _mm256_srli_epi16(x.v, 8)};
}
struct W {
  __m256i even, odd;
  static SECATEUR_INLINE W load(const int32_t* p) { return {_mm256_set1_epi32(p[0]), _mm256_set1_epi32(p[1])}; }
};
SECATEUR_INLINE Q dot(Q a, X x, W w) {
  const __m256i s = _mm256_add_epi32(_mm256_madd_epi16(x.even, w.even), _mm256_madd_epi16(x.odd, w.odd));
  return {_mm256_add_epi32(a.v, s)};
}

SECATEUR_INLINE Q dot_words(Q a, X x, Q w) {
  return dot(a, x, {_mm256_srai_epi16(_mm256_slli_epi16(w.v, 8), 8), _mm256_srai_epi16(w.v, 8)});
}

#define SECATEUR_BYTE_PAIRS 1
SECATEUR_INLINE Q dot_bytes(Q a, Q x, Q w) {
  return {_mm256_add_epi32(a.v, _mm256_madd_epi16(_mm256_maddubs_epi16(x.v, w.v), _mm256_set1_epi16(1)))};
}
SECATEUR_INLINE Q dot_pair(Q a, Q x, Q w, Q y, Q u) {
  const __m256i t = _mm256_add_epi16(_mm256_maddubs_epi16(x.v, w.v), _mm256_maddubs_epi16(y.v, u.v));
  return {_mm256_add_epi32(a.v, _mm256_madd_epi16(t, _mm256_set1_epi16(1)))};
}
#endif

SECATEUR_INLINE Q add(Q a, Q b) { return {_mm256_add_epi32(a.v, b.v)}; }

struct H {
  __m256i v;
  SECATEUR_INLINE void store(int16_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static SECATEUR_INLINE H load(const int16_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
};
SECATEUR_INLINE __m256i scaled(Q a, float scale) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(a.v), _mm256_set1_ps(scale)));
}
SECATEUR_INLINE H narrow(Q a, Q b, float scale) { return {_mm256_packs_epi32(scaled(a, scale), scaled(b, scale))}; }
// The byte goes into the mantissa of 2^23 or 2^15: no conversion makes a float of it.
struct Bytes {
  __m256i low, high;
};
SECATEUR_INLINE Bytes bytes_of(Q r) { return {r.v, _mm256_srli_epi32(r.v, 16)}; }
template <int K>
SECATEUR_INLINE __m256 byte_minus(const Bytes& r, int zero) {
  constexpr int kMask = K % 2 ? 0xff00 : 0xff, kBits = K % 2 ? 0x47000000 : 0x4b000000;
  const __m256i f =
      _mm256_or_si256(_mm256_and_si256(K < 2 ? r.low : r.high, _mm256_set1_epi32(kMask)), _mm256_set1_epi32(kBits));
  return _mm256_sub_ps(_mm256_castsi256_ps(f), _mm256_set1_ps((K % 2 ? 0x1p15f : 0x1p23f) + static_cast<float>(zero)));
}
template <int K>
SECATEUR_INLINE __m256i summed(Q a, const Sum& s, float scale, const Bytes& r) {
  __m256 f = _mm256_round_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(a.v), _mm256_set1_ps(scale)),
                             _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  f = _mm256_min_ps(_mm256_max_ps(f, _mm256_set1_ps(s.lo)), _mm256_set1_ps(s.hi));
  const __m256 other = _mm256_mul_ps(byte_minus<K>(r, s.r_zero), _mm256_set1_ps(s.b));
  return _mm256_cvtps_epi32(_mm256_add_ps(_mm256_mul_ps(f, _mm256_set1_ps(s.a)), other));
}
template <int K>
SECATEUR_INLINE H narrow_sum(Q a, Q b, const Sum& s, float scale, const Bytes& ra, const Bytes& rb) {
  return {_mm256_packs_epi32(summed<K>(a, s, scale, ra), summed<K>(b, s, scale, rb))};
}
SECATEUR_INLINE Q pick(Q m, Q a, Q b) { return {_mm256_blendv_epi8(b.v, a.v, m.v)}; }
SECATEUR_INLINE void quads(H h0, H h1, H h2, H h3, int zero, int lo, int hi, Q* a, Q* b) {
  const __m256i z = _mm256_set1_epi16(static_cast<int16_t>(zero));
  const __m256i l = _mm256_set1_epi8(static_cast<char>(lo)), u = _mm256_set1_epi8(static_cast<char>(hi));
  __m256i p = _mm256_packus_epi16(_mm256_adds_epi16(h0.v, z), _mm256_adds_epi16(h2.v, z));
  __m256i q = _mm256_packus_epi16(_mm256_adds_epi16(h1.v, z), _mm256_adds_epi16(h3.v, z));
  p = _mm256_min_epu8(_mm256_max_epu8(p, l), u);
  q = _mm256_min_epu8(_mm256_max_epu8(q, l), u);
  const __m256i c01 = _mm256_unpacklo_epi8(p, q), c23 = _mm256_unpackhi_epi8(p, q);
  a->v = _mm256_unpacklo_epi16(c01, c23);
  b->v = _mm256_unpackhi_epi16(c01, c23);
}

SECATEUR_INLINE Q to_float(Q a, float scale, float offset) {
  return {_mm256_castps_si256(
      _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(a.v), _mm256_set1_ps(scale)), _mm256_set1_ps(offset)))};
}
// The four coefficients of a cubic side by side.
struct GeluRows {
  alignas(16) float at[32][4];
};
constexpr GeluRows kGeluRows = [] {
  GeluRows rows{};
  for (int n = 0; n < 32; ++n)
    for (int k = 0; k < 4; ++k) rows.at[n][k] = kGelu[k][n];
  return rows;
}();
SECATEUR_INLINE Q gelu(Q a, float scale, float offset, float inverse) {
  const __m256 v = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(a.v), _mm256_set1_ps(scale)), _mm256_set1_ps(offset));
  const __m256 sign = _mm256_set1_ps(-0.0f);
  const __m256 u =
      _mm256_min_ps(_mm256_mul_ps(_mm256_andnot_ps(sign, v), _mm256_set1_ps(kGeluStep)), _mm256_set1_ps(kGeluLast));
  const __m256 magic = _mm256_set1_ps(kGeluMagic), t = _mm256_add_ps(u, magic),
               d = _mm256_sub_ps(u, _mm256_sub_ps(t, magic));
  alignas(32) int32_t n[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(n), _mm256_and_si256(_mm256_castps_si256(t), _mm256_set1_epi32(31)));
  // Rows of lanes i and i + 4, turned: c[k] is coefficient k of all lanes.
  __m256 row[4];
  SECATEUR_UNROLL
  for (int i = 0; i < 4; ++i)
    row[i] = _mm256_set_m128(_mm_load_ps(kGeluRows.at[n[i + 4]]), _mm_load_ps(kGeluRows.at[n[i]]));
  const __m256 p = _mm256_unpacklo_ps(row[0], row[1]), q = _mm256_unpackhi_ps(row[0], row[1]);
  const __m256 e = _mm256_unpacklo_ps(row[2], row[3]), f = _mm256_unpackhi_ps(row[2], row[3]);
  const __m256 c[4] = {_mm256_shuffle_ps(p, e, 0x44), _mm256_shuffle_ps(p, e, 0xee), _mm256_shuffle_ps(q, f, 0x44),
                       _mm256_shuffle_ps(q, f, 0xee)};
  __m256 r = _mm256_add_ps(_mm256_mul_ps(c[3], d), c[2]);
  r = _mm256_add_ps(_mm256_mul_ps(r, d), c[1]);
  r = _mm256_add_ps(_mm256_mul_ps(r, d), c[0]);
  r = _mm256_or_ps(r, _mm256_and_ps(v, sign));
  const __m256 y = _mm256_mul_ps(v, _mm256_add_ps(_mm256_set1_ps(0.5f), r));
  return {_mm256_cvtps_epi32(_mm256_mul_ps(y, _mm256_set1_ps(inverse)))};
}
SECATEUR_INLINE void store_turned(const float* from, int64_t step, float* p, int64_t to) {
  __m256 r[8], t[8];
  SECATEUR_UNROLL
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(from + i * step);
  SECATEUR_UNROLL
  for (int i = 0; i < 8; i += 2)
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]), t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  SECATEUR_UNROLL
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44), r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44), r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  SECATEUR_UNROLL
  for (int c = 0; c < 4; ++c) {
    _mm256_storeu_ps(p + c * to, _mm256_permute2f128_ps(r[c], r[4 + c], 0x20));
    _mm256_storeu_ps(p + (4 + c) * to, _mm256_permute2f128_ps(r[c], r[4 + c], 0x31));
  }
}
SECATEUR_INLINE void store_bytes(Q a, int zero, uint8_t* p) {
  const __m256i w = _mm256_add_epi32(a.v, _mm256_set1_epi32(zero));
  const __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(h, h));
}
SECATEUR_INLINE Q load_bytes(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
}

SECATEUR_INLINE Q maximum(Q a, Q b) { return {_mm256_max_epu8(a.v, b.v)}; }
SECATEUR_INLINE __m256 byte_to_float(Q a, int k, int zero) {
  const __m256i byte = _mm256_and_si256(_mm256_srl_epi32(a.v, _mm_cvtsi32_si128(8 * k)), _mm256_set1_epi32(255));
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(byte, _mm256_set1_epi32(zero)));
}
SECATEUR_INLINE Q sum_bytes(Q a, Q b, const Sum& s, int k) {
  const __m256 left = _mm256_mul_ps(byte_to_float(a, k, s.a_zero), _mm256_set1_ps(s.a));
  const __m256 right = _mm256_mul_ps(byte_to_float(b, k, s.r_zero), _mm256_set1_ps(s.b));
  return {_mm256_cvtps_epi32(_mm256_add_ps(left, right))};
}
SECATEUR_INLINE Q from_float(const float* p, Q::Mask m, const Sum& s) {
  __m256 f = _mm256_div_ps(_mm256_maskload_ps(p, m), _mm256_set1_ps(s.scale));
  f = _mm256_min_ps(_mm256_max_ps(f, _mm256_set1_ps(s.lo)), _mm256_set1_ps(s.hi));
  return {_mm256_cvtps_epi32(f)};
}
SECATEUR_INLINE void bytes_to_float(Q a, int k, int zero, float scale, float* p, int n) {
  const Q f{_mm256_castps_si256(_mm256_mul_ps(byte_to_float(a, k, zero), _mm256_set1_ps(scale)))};
  f.store_first(reinterpret_cast<int32_t*>(p), n);
}
SECATEUR_INLINE H narrow_words(Q a, Q b) { return {_mm256_packs_epi32(a.v, b.v)}; }

SECATEUR_INLINE void interleave(Q t0, Q t1, Q t2, Q t3, Q* out) {
  const __m256i a = _mm256_unpacklo_epi8(t0.v, t1.v), b = _mm256_unpackhi_epi8(t0.v, t1.v);
  const __m256i c = _mm256_unpacklo_epi8(t2.v, t3.v), d = _mm256_unpackhi_epi8(t2.v, t3.v);
  out[0].v = _mm256_unpacklo_epi16(a, c), out[1].v = _mm256_unpackhi_epi16(a, c);
  out[2].v = _mm256_unpacklo_epi16(b, d), out[3].v = _mm256_unpackhi_epi16(b, d);
}
// Of each 128-bit lane, four vectors of four channels become a vector of each channel.
SECATEUR_INLINE void turn_lanes(Q* q) {
  const __m256i a = _mm256_unpacklo_epi32(q[0].v, q[1].v), b = _mm256_unpackhi_epi32(q[0].v, q[1].v);
  const __m256i c = _mm256_unpacklo_epi32(q[2].v, q[3].v), d = _mm256_unpackhi_epi32(q[2].v, q[3].v);
  q[0].v = _mm256_unpacklo_epi64(a, c), q[1].v = _mm256_unpackhi_epi64(a, c);
  q[2].v = _mm256_unpacklo_epi64(b, d), q[3].v = _mm256_unpackhi_epi64(b, d);
}
SECATEUR_INLINE Q repeat4(const void* p) {
  return {_mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)))};
}
SECATEUR_INLINE W load_lanes(const int32_t* p) {
#if defined(__AVXVNNI__) || SECATEUR_VNNI_STAND_IN
  return {repeat4(p).v};
#else
  return {repeat4(p).v, repeat4(p + 4).v};
#endif
}
SECATEUR_INLINE Q rescaled(Q a, Q scale) {
  return {_mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(a.v), _mm256_castsi256_ps(scale.v)))};
}
SECATEUR_INLINE Q join(H a, H b, int zero, int lo, int hi) {
  const __m256i z = _mm256_set1_epi16(static_cast<int16_t>(zero));
  const __m256i p = _mm256_packus_epi16(_mm256_adds_epi16(a.v, z), _mm256_adds_epi16(b.v, z));
  return {_mm256_min_epu8(_mm256_max_epu8(p, _mm256_set1_epi8(static_cast<char>(lo))),
                          _mm256_set1_epi8(static_cast<char>(hi)))};
}

}  // namespace
}  // namespace secateur
