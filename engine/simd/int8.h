// Contract of the integer vectors: every int8_*.h defines these in an unnamed namespace of its ISA file.
//
//   Q            kLanes 32-bit words. Q::load, store, set1, zero; Mask Q::mask(lo, hi) selects lanes lo <= i < hi;
//                load_or(fill, m, p) reads no lane outside m; store_masked(p, m); store_first(p, n) lanes below n, 0 <
//                n. load_even_or(fill, even(lo, hi), p): lane i from word 2 i, 0 <= lo < hi <= kLanes; load_even(p)
//                reads words 0 ... 2 kLanes - 1, all of them. evens(a, b), odds(a, b) words 0, 2, ... and 1, 3, ... of
//                both, one after the other.
//   X, expand(Q) u8 x 4 of every word, ready to be multiplied.
//   W            one block of four weights for all lanes; W::load(words) reads kWeightWords words.
//   dot(a, x, w) a + sum of the four products, exact in int32.
//   dot_words(a, x, w)         as dot(), with four s8 weights of its own in every lane of w, a Q
//   dot_pair(a, x, w, y, u)    where SECATEUR_BYTE_PAIRS is defined, a + products of x with w and of y with u, all Q:
//                bytes added in 16 bits, exact where packed.h's pair_blocks() put the weights together;
//                dot_bytes(a, x, w) a + products of x with w
//   interleave(t0..t3, out)    byte c of t0, t1, t2, t3 for each c: out[v] holds pixels v, v + 4, ..., a word a channel
//   turn_lanes(q)              q[0..3], sums of out[0..3] of interleave(): q[c] becomes channel c, pixels in order
//   repeat4(p)                 words p[0..3] again and again, as the channels of interleave(); load_lanes(p) weights,
//   [kWeightWords][4] rescaled(a, scale)         round(float(a) * scale), lane by lane join(a, b, zero, lo, hi)   a, b
//   narrow_words of out[0], out[1] and of out[2], out[3]: + zero, saturated to u8, clamped, pixels in order add(a, b)
//   lane by lane H            2 * kLanes 16-bit numbers, in an order of its own. narrow(a, b, scale)        round(float
//   * scale) of both, saturated to 16 bits Bytes, bytes_of(Q)         words of a residual, ready for narrow_sum<k>(a,
//   b, s, scale, ra, rb)  the residual formula of qconv.h for byte k of the residual words pick(m, a, b) bits of a
//   where m has ones, of b where it has zeros to_float(a, scale, offset) float(a) * scale + offset, as bits gelu(a,
//   scale, offset, inverse)  round(gelu(float(a) * scale + offset) * inverse), words; gelu as in gelu.h
//   store_turned(from, step, p, to)     p[i * to + k] = from[k * step + i], i, k < kLanes
//   store_bytes(a, zero, p)    lane + zero, which lies in 0..255, as one byte each
//   load_bytes(p)              kLanes bytes, a word each
//   maximum(a, b)              of bytes
//   sum_bytes(a, b, s, k)      round(float(byte k of a - s.a_zero) * s.a + float(byte k of b - s.r_zero) * s.b), words
//   from_float(p, m, s)        clamp(round(p[i] / s.scale), s.lo, s.hi), words; lanes outside m are not read
//   bytes_to_float(a, k, zero, scale, p, n)   p[i] = float(byte k of a - zero) * scale, i < n
//   narrow_words(a, b)         saturated to 16 bits
//   quads(h0..h3, zero, lo, hi, &a, &b)  four channels, + zero, saturated to u8, clamped, interleaved into words
#pragma once

#include <cstdint>

#if defined(__GNUC__) && !defined(__clang__)
// GCC's own header leaves the operand of an unmasked min or max undefined on purpose (GCC bug 105593), and it cannot
// see that what a template stores under a condition is only loaded under the same one.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include "simd/gelu.h"
#include "simd/vec.h"

#if defined(__GNUC__)
#define SECATEUR_NOINLINE inline __attribute__((noinline))
#else
#define SECATEUR_NOINLINE inline
#endif

namespace secateur {
namespace {

// Constants of narrow_sum, all as in qconv.h: bounds are of q - zero.
struct Sum {
  float scale, lo, hi, a, b;  // narrow_sum: scale comes apart
  int32_t r_zero, a_zero;
};

}  // namespace
}  // namespace secateur
