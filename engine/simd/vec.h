// What every vector header offers, so that one kernel source serves all ISAs. Each of portable.h, avx2.h, avx512.h
// defines, in an unnamed namespace (nothing an ISA file compiles may be merged with code that runs on any CPU):
//
//   struct Vec { static constexpr int kLanes, kRegisters; ... }   one register of floats
//   load(p) store(p)                    any alignment
//   Mask mask(lo, hi)                   lanes lo <= i < hi (any int)
//   load_masked(p, m)                   those lanes from p[i], 0 elsewhere; touches only those
//   load_range(p, lo, hi)               load_masked(p, mask(lo, hi))
//   store_first(p, n)                   lanes 0 <= i < n, touches only those, n <= kLanes
//   set1(x) zero() fma(a, b, c) = a*b + c    + - * /  min max
//   even(a, b) odd(a, b)                elements 0, 2, 4, ... (1, 3, 5, ...) of a followed by b
//   even_near(a, b) odd_near(a, b)      the same elements in an order that costs less; in_order(x) puts them right
//   load_bits(p, bits)                  lane i from p[i] where bit i is set, 0 elsewhere; touches only those
//   zip(a, b, &lo, &hi)                 lo, hi = a[0] b[0] a[1] b[1] ...
//   shift_up(a, b) shift_down(a, b)     the run a, b moved by one lane: last of a, then b without its last; a without
//   its
//                                       first, then the first of b
//   quads(p, o) spread(p)               one group of four floats per four lanes: from p + o[0], p + o[1], ...; p[0]
//   four
//                                       times, p[1] four times, ...
//   keep(bits)                          lanes whose bit is set, 0 elsewhere; only where kHasHalf
//   sum_quads(p)                        p[i] = sum of lanes i, i + 4, ..., i < 4
//   halves(a, b, &lo, &hi)              lo = first halves of a and b, hi = their second halves
//   Half                                half a register: load, store, load_masked, mask, even, low(v); kHasHalf tells
//   if it exists sum(v) maximum(v)                   across lanes; a sum by halves: lanes i and i + kLanes / 2 first
//   held(v)                             v in a register, however often it is used
//   madd(a, b, c)                       a*b + c of single floats, fused where the ISA has it
//   Eight                               eight floats: load, store, set1, fma, +, min, max, pick(x, c) = x[c[0]], ...,
//   x[c[7]] transpose4(from, fs, to, ts)        to[j * ts + i] = from[i * fs + j], i, j < 4 exp(v) e^v, relative error
//   < 2e-7 for |v| < 87, 0 below, clamped above erf(v) tanh(v)                      relative error < 5e-7; NaN passes
//   through sqrt(v)
//
// Exactly one of them is included by a kernel file.
#pragma once

#if defined(__clang__)
#define SECATEUR_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define SECATEUR_UNROLL _Pragma("GCC unroll 32")
#else
#define SECATEUR_UNROLL
#endif

#if defined(__GNUC__)
#define SECATEUR_INLINE inline __attribute__((always_inline))
#else
#define SECATEUR_INLINE inline
#endif
