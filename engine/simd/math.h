// Functions written once in terms of Vec. Included at the end of each ISA header; not on its own.
#pragma once

namespace secateur {
namespace {

// exp(x) = 2^n * exp(r), n = round(x / ln 2), |r| <= ln 2 / 2; degree-6 minimax polynomial of (exp(r) - 1 - r) / r^2.
// ln 2 is split in two so that n * ln2_hi is exact.
SECATEUR_INLINE Vec exp(Vec x) {
  x = max(min(x, Vec::set1(88.02f)), Vec::set1(-87.33f));
  const Vec n = round(x * Vec::set1(1.44269504088896341f));
  Vec r = fma(n, Vec::set1(-0.693359375f), x);
  r = fma(n, Vec::set1(2.12194440e-4f), r);
  Vec p = Vec::set1(1.9875691500e-4f);
  p = fma(p, r, Vec::set1(1.3981999507e-3f));
  p = fma(p, r, Vec::set1(8.3334519073e-3f));
  p = fma(p, r, Vec::set1(4.1665795894e-2f));
  p = fma(p, r, Vec::set1(1.6666665459e-1f));
  p = fma(p, r, Vec::set1(5.0000001201e-1f));
  return scale2(fma(p, r * r, r) + Vec::set1(1.0f), n);
}

}  // namespace
}  // namespace secateur
