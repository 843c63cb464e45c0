// The element-wise kernels, once for all ISAs: compiled for every level of kernels/table.h.
#include "kernels/eltwise/eltwise.h"
#include "kernels/table.h"
#include "simd/vec_here.h"

namespace secateur {
namespace {

constexpr int kLanes = Vec::kLanes;

SECATEUR_INLINE Vec activate(Vec x, const Activation& a) {
  if (a.slope != 1.0f) x = max(x, Vec::zero()) + min(x, Vec::zero()) * Vec::set1(a.slope);
  return min(Vec::set1(a.hi), max(Vec::set1(a.lo), x));  // this order lets NaN through
}

// y[i] = f(i-th vector of a, of b); a step of 0 repeats one value.
template <class F>
SECATEUR_INLINE void map2(const float* a, bool a_moves, const float* b, bool b_moves, float* y, int64_t n, F f) {
  const Vec a1 = a_moves ? Vec::zero() : Vec::set1(*a), b1 = b_moves ? Vec::zero() : Vec::set1(*b);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(a_moves ? Vec::load(a + i) : a1, b_moves ? Vec::load(b + i) : b1).store(y + i);
  if (i < n) {
    const int left = static_cast<int>(n - i);
    f(a_moves ? Vec::load_range(a + i, 0, left) : a1, b_moves ? Vec::load_range(b + i, 0, left) : b1)
        .store_first(y + i, left);
  }
}

void add_act(const float* a, const float* b, float* y, int64_t n, const Activation& act) {
  map2(a, true, b, true, y, n, [&](Vec p, Vec q) { return activate(p + q, act); });
}

Vec one_over(Vec x) { return Vec::set1(1.0f) / x; }

// x < -87 would make exp(-x) infinite, and 1 / (1 + inf) is 0 as it should be; exp() clamps instead, which is as good.
SECATEUR_INLINE Vec sigmoid(Vec x) { return one_over(Vec::set1(1.0f) + exp(Vec::zero() - x)); }

template <class F>
SECATEUR_INLINE void map1(const UnaryArgs& u, F f) {
  map2(u.a, true, u.a, true, u.y, u.n, [&](Vec p, Vec) { return f(p); });
}

// False: left to the reference.
SECATEUR_INLINE bool unary(const UnaryArgs& u) {
  const Vec zero = Vec::zero(), one = Vec::set1(1.0f);
  switch (u.op) {
    case Unary::kAct:
      map1(u, [&](Vec x) { return activate(x, u.act); });
      return true;
    case Unary::kSigmoid:
      map1(u, [](Vec x) { return sigmoid(x); });
      return true;
    case Unary::kNeg:
      map1(u, [&](Vec x) { return x * Vec::set1(-1.0f); });
      return true;
    case Unary::kAbs:
      map1(u, [&](Vec x) { return max(x, x * Vec::set1(-1.0f)); });
      return true;
    case Unary::kHardSigmoid:
      map1(u, [&](Vec x) { return max(zero, min(one, x * Vec::set1(u.alpha) + Vec::set1(u.beta))); });
      return true;
    case Unary::kHardSwish:
      map1(u, [&](Vec x) { return x * max(zero, min(one, x * Vec::set1(1.0f / 6.0f) + Vec::set1(0.5f))); });
      return true;
    case Unary::kTanh:
      map1(u, [](Vec x) { return tanh(x); });
      return true;
    case Unary::kErf:
      map1(u, [](Vec x) { return erf(x); });
      return true;
    case Unary::kGelu:
      map1(u, [&](Vec x) { return Vec::set1(0.5f) * x * (one + erf(x * Vec::set1(0.70710678f))); });
      return true;
    case Unary::kGeluTanh:  // (1 + tanh(z)) / 2 = sigmoid(2z)
      map1(u, [&](Vec x) { return x * sigmoid(x * fma(x * x, Vec::set1(0.0713548163f), Vec::set1(1.59576912f))); });
      return true;
    case Unary::kSilu:
      map1(u, [&](Vec x) { return x * sigmoid(x * Vec::set1(u.alpha)); });
      return true;
    case Unary::kMish:  // tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2); e^2 must not overflow
      map1(u, [&](Vec x) {
        const Vec e = exp(min(x, Vec::set1(20.0f))), n = e * (e + Vec::set1(2.0f));
        return x * (n / (n + Vec::set1(2.0f)));
      });
      return true;
    case Unary::kSqrt:
      map1(u, [](Vec x) { return sqrt(x); });
      return true;
    case Unary::kReciprocal:
      map1(u, [](Vec x) { return one_over(x); });
      return true;
    case Unary::kSoftsign:
      map1(u, [&](Vec x) { return x / (one + max(x, x * Vec::set1(-1.0f))); });
      return true;
    default:
      return false;
  }
}

SECATEUR_INLINE bool row(Binary op, const float* a, bool a_moves, const float* b, bool b_moves, float* y, int64_t n) {
  switch (op) {
    case Binary::kAdd:
      map2(a, a_moves, b, b_moves, y, n, [](Vec p, Vec q) { return p + q; });
      return true;
    case Binary::kSub:
      map2(a, a_moves, b, b_moves, y, n, [](Vec p, Vec q) { return p - q; });
      return true;
    case Binary::kMul:
      map2(a, a_moves, b, b_moves, y, n, [](Vec p, Vec q) { return p * q; });
      return true;
    case Binary::kDiv:
      map2(a, a_moves, b, b_moves, y, n, [](Vec p, Vec q) { return p / q; });
      return true;
    case Binary::kMax:
      map2(a, a_moves, b, b_moves, y, n, [](Vec p, Vec q) { return max(p, q); });
      return true;
    case Binary::kMin:
      map2(a, a_moves, b, b_moves, y, n, [](Vec p, Vec q) { return min(p, q); });
      return true;
    case Binary::kPRelu:
      map2(a, a_moves, b, b_moves, y, n, [](Vec p, Vec q) { return fma(min(p, Vec::zero()), q, max(p, Vec::zero())); });
      return true;
    case Binary::kPow:
      return false;
  }
  return false;
}

// The trailing dimensions over which both inputs are contiguous, or stay, make one row; false: left to the reference.
SECATEUR_INLINE bool binary(const BinaryArgs& g) {
  int64_t n = 1, total = 1;
  int first = g.n_dims;
  bool a_moves = false, b_moves = false, started = false;
  for (int d = g.n_dims - 1; d >= 0; --d) {
    const int64_t size = g.dims[d];
    if (size == 0) return true;
    if (size == 1) {
      first = d;
      continue;
    }
    const bool a = g.a_strides[d] != 0, b = g.b_strides[d] != 0;
    if (started && (a != a_moves || b != b_moves)) break;
    if ((a && g.a_strides[d] != n) || (b && g.b_strides[d] != n)) break;
    a_moves = a;
    b_moves = b;
    started = true;
    n *= size;
    first = d;
  }
  for (int d = 0; d < first; ++d) total *= g.dims[d];
  int64_t index[kMaxDims] = {0}, a = 0, b = 0;
  for (int64_t k = 0; k < total; ++k) {
    if (!row(g.op, g.a + a, a_moves, g.b + b, b_moves, g.y + k * n, n)) return false;
    for (int d = first - 1; d >= 0; --d) {
      a += g.a_strides[d];
      b += g.b_strides[d];
      if (++index[d] < g.dims[d]) break;
      a -= g.dims[d] * g.a_strides[d];
      b -= g.dims[d] * g.b_strides[d];
      index[d] = 0;
    }
  }
  return true;
}

SECATEUR_INLINE void affine(const AffineArgs& g) {
  for (int64_t p = 0; p < g.planes; ++p) {
    const Vec scale = Vec::set1(g.scale[p % g.channels]), shift = Vec::set1(g.shift[p % g.channels]);
    const float* x = g.x + p * g.plane;
    map2(x, true, x, true, g.y + p * g.plane, g.plane,
         [&](Vec v, Vec) { return activate(fma(scale, v, shift), g.act); });
  }
}

void unary_or_ref(const UnaryArgs& u) {
  if (!unary(u)) unary_ref(u);
}
void binary_or_ref(const BinaryArgs& g) {
  if (!binary(g)) binary_ref(g);
}

}  // namespace

namespace SECATEUR_LEVEL {
extern const EltwiseKernels eltwise_row = {kIsa, add_act, unary_or_ref, binary_or_ref, affine};
}
}  // namespace secateur
