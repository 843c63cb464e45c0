// Functions written once in terms of Vec. Included at the end of each ISA header; not on its own.
#pragma once

namespace secateur {
namespace {

// exp(x) = 2^n * exp(r), n = round(x / ln 2), |r| <= ln 2 / 2; minimax polynomial of exp(r) with the first two
// coefficients 1, of relative error 5e-9. ln 2 is split in two so that n * ln2_hi is exact. n is read off the lowest
// bits of n + 1.5 * 2^23.
SECATEUR_INLINE Vec exp(Vec x) {
  x = max(min(x, Vec::set1(88.02f)), Vec::set1(-87.33f));
  const Vec magic = Vec::set1(12582912.0f), t = fma(x, Vec::set1(1.44269504088896341f), magic), n = t - magic;
  Vec r = fma(n, Vec::set1(-0.693359375f), x);
  r = fma(n, Vec::set1(2.12194440e-4f), r);
  Vec p = Vec::set1(0.00138144672f);
  p = fma(p, r, Vec::set1(0.00836878084f));
  p = fma(p, r, Vec::set1(0.0416683927f));
  p = fma(p, r, Vec::set1(0.166665196f));
  p = fma(p, r, Vec::set1(0.49999994f));
  return scale2(fma(p, r * r, r) + Vec::set1(1.0f), t);
}

// x P(x^2) / Q(x^2), clamped to [-1, 1]; the coefficients below were fitted for the smallest relative error.
template <int N, int M>
SECATEUR_INLINE Vec odd_rational(Vec x, const float (&p)[N], const float (&q)[M]) {
  const Vec t = x * x;
  Vec a = Vec::set1(p[N - 1]), b = Vec::set1(q[M - 1]);
  SECATEUR_UNROLL
  for (int i = N - 2; i >= 0; --i) a = fma(a, t, Vec::set1(p[i]));
  SECATEUR_UNROLL
  for (int i = M - 2; i >= 0; --i) b = fma(b, t, Vec::set1(q[i]));
  return min(Vec::set1(1.0f), max(Vec::set1(-1.0f), x * a / b));
}

// Relative error < 8 * 2^-24. erf(3.92) rounds to 1, tanh(7.9) is 1 - 2.7e-7.
SECATEUR_INLINE Vec erf(Vec x) {
  constexpr float p[] = {1.12837915f, 0.19040658f, 0.0527487011f, 0.00376561192f, 0.000284880857f, 2.05006298e-06f};
  constexpr float q[] = {1.0f, 0.50207618f, 0.114109125f, 0.0149692077f, 0.00116253104f, 3.80913667e-05f};
  return odd_rational(min(Vec::set1(3.92f), max(Vec::set1(-3.92f), x)), p, q);
}

SECATEUR_INLINE Vec tanh(Vec x) {
  constexpr float p[] = {1.0f, 0.137305217f, 0.00393209318f, 2.93192174e-05f, 3.38678465e-08f, -1.47940574e-11f};
  constexpr float q[] = {1.0f, 0.470638548f, 0.0274782811f, 0.00040518963f, 1.38060251e-06f};
  return odd_rational(min(Vec::set1(7.9f), max(Vec::set1(-7.9f), x)), p, q);
}

}  // namespace
}  // namespace secateur
