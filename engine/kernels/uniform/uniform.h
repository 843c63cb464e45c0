// Uniform grids, the whole multiples of one scale: the nearest one to given values, and the one that values lie on.
// src/secateur/constraints/uniform.py names the papers.
#pragma once

#include <cstdint>

namespace secateur {

// The alpha > 0 that minimises E(alpha) = sum_j h_j min_q (a_j - alpha q)^2, q in {0 (`zero`) or 1, .., top}; 0 when
// every a that counts is 0. a [n] >= 0 and finite, h [n] >= 0, n < 2^31, 1 <= top. Values of h = 0 do not count (all 0:
// they all count, equally). Up to 1e-10 of the least E, and rounding.
//
// For fixed codes q the best scale is S1 / S2 and the error sum h a^2 - S1^2 / S2, with S1 = sum h a q, S2 = sum h q^2.
// Codes change only at alpha = a_j / (t - 1/2). Intervals of alpha are split, and dropped where a lower bound of E from
// prefix sums of the sorted values (O(top), whatever n) is above the best E seen; in those with few changes all are
// passed in order.
double best_scale(int64_t n, const double* a, const double* h, int64_t top, bool zero);

// A floating-point type: bits of the significand with the hidden one, and the exponent of the smallest normal number.
struct FloatKind {
  int digits, least;
};

// Codes q, |q| <= top, and a scale of `kind` with scale * q, rounded to `kind`, equal to x [n] in every place. False:
// there are none. Of several the one with the smallest codes; all zeros: scale 1. `nonzero`: 0 is no code, unless all
// are 0. The numbers x are of `kind`, finite; 1 <= top < 2^15.
bool grid_of(int64_t n, const double* x, int64_t top, bool nonzero, FloatKind kind, int16_t* codes, double* scale);

}  // namespace secateur
