// What every vector header offers, so that one kernel source serves all ISAs. Each of portable.h, avx2.h, avx512.h
// defines, in an unnamed namespace (nothing an ISA file compiles may be merged with code that runs on any CPU):
//
//   struct Vec { static constexpr int kLanes, kRegisters; ... }   one register of floats
//   load(p) store(p)                    any alignment
//   load_range(p, lo, hi)               lanes lo <= i < hi from p[i], 0 elsewhere; touches only those (lo, hi: any int)
//   store_first(p, n)                   lanes 0 <= i < n, touches only those, n <= kLanes
//   set1(x) zero() fma(a, b, c) = a*b + c    + - *  min max
//   even(a, b)                          elements 0, 2, 4, ... of a followed by b
//   sum(v) maximum(v)                   across lanes
//   exp(v)                              e^v, relative error < 2e-7 for |v| < 87, 0 below, clamped above
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
