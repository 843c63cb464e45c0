// The oracle, and the path for functions and broadcasts no fast kernel covers.
#include <algorithm>
#include <cmath>

#include "kernels/eltwise/eltwise.h"
#include "kernels/table.h"

namespace secateur {
namespace {

float activate(float v, const Activation& a) {
  if (v < 0) v *= a.slope;
  return std::min(std::max(v, a.lo), a.hi);
}

float apply(Binary op, float a, float b) {
  switch (op) {
    case Binary::kAdd:
      return a + b;
    case Binary::kSub:
      return a - b;
    case Binary::kMul:
      return a * b;
    case Binary::kDiv:
      return a / b;
    case Binary::kMax:
      return std::max(a, b);
    case Binary::kMin:
      return std::min(a, b);
    case Binary::kPow:
      return std::pow(a, b);
    case Binary::kPRelu:
      return a < 0 ? a * b : a;
  }
  return 0;
}

float apply(const UnaryArgs& u, float v) {
  switch (u.op) {
    case Unary::kAct:
      return activate(v, u.act);
    case Unary::kSigmoid:
      return 1.0f / (1.0f + std::exp(-v));
    case Unary::kTanh:
      return std::tanh(v);
    case Unary::kExp:
      return std::exp(v);
    case Unary::kLog:
      return std::log(v);
    case Unary::kSqrt:
      return std::sqrt(v);
    case Unary::kNeg:
      return -v;
    case Unary::kAbs:
      return std::fabs(v);
    case Unary::kElu:
      return v < 0 ? u.alpha * std::expm1(v) : v;
    case Unary::kHardSigmoid:
      return std::max(0.0f, std::min(1.0f, u.alpha * v + u.beta));
    case Unary::kHardSwish:
      return v * std::max(0.0f, std::min(1.0f, v / 6.0f + 0.5f));
    case Unary::kSoftplus:
      return std::max(v, 0.0f) + std::log1p(std::exp(-std::fabs(v)));
    case Unary::kErf:
      return std::erf(v);
    case Unary::kGelu:
      return 0.5f * v * (1.0f + std::erf(v * 0.70710678f));
    case Unary::kGeluTanh:
      return 0.5f * v * (1.0f + std::tanh(0.79788456f * (v + 0.044715f * v * v * v)));
    case Unary::kSilu:
      return v / (1.0f + std::exp(-u.alpha * v));
    case Unary::kMish:
      return v * std::tanh(std::max(v, 0.0f) + std::log1p(std::exp(-std::fabs(v))));
    case Unary::kSelu:
      return u.beta * (v > 0 ? v : u.alpha * std::expm1(v));
    case Unary::kCelu:
      return v > 0 ? v : u.alpha * std::expm1(v / u.alpha);
    case Unary::kThreshold:
      return v > u.alpha ? v : 0.0f;
    case Unary::kSoftsign:
      return v / (1.0f + std::fabs(v));
    case Unary::kFloor:
      return std::floor(v);
    case Unary::kCeil:
      return std::ceil(v);
    case Unary::kRound:
      return std::nearbyint(v);  // the default mode: half to even
    case Unary::kReciprocal:
      return 1.0f / v;
    case Unary::kSign:
      return v > 0 ? 1.0f : v < 0 ? -1.0f : 0.0f;
    case Unary::kSin:
      return std::sin(v);
    case Unary::kCos:
      return std::cos(v);
  }
  return 0;
}

}  // namespace

void add_act_ref(const float* a, const float* b, float* y, int64_t n, const Activation& act) {
  for (int64_t i = 0; i < n; ++i) y[i] = activate(a[i] + b[i], act);
}

void unary_ref(const UnaryArgs& u) {
  for (int64_t i = 0; i < u.n; ++i) u.y[i] = apply(u, u.a[i]);
}

void binary_ref(const BinaryArgs& args) {
  int64_t index[kMaxDims] = {0}, total = 1;
  for (int d = 0; d < args.n_dims; ++d) total *= args.dims[d];
  for (int64_t k = 0; k < total; ++k) {
    int64_t a = 0, b = 0;
    for (int d = 0; d < args.n_dims; ++d) {
      a += index[d] * args.a_strides[d];
      b += index[d] * args.b_strides[d];
    }
    args.y[k] = apply(args.op, args.a[a], args.b[b]);
    for (int d = args.n_dims - 1; d >= 0 && ++index[d] == args.dims[d]; --d) index[d] = 0;
  }
}

void affine_ref(const AffineArgs& args) {
  for (int64_t p = 0; p < args.planes; ++p)
    for (int64_t k = 0; k < args.plane; ++k) {
      const int64_t c = p % args.channels, i = p * args.plane + k;
      args.y[i] = activate(args.scale[c] * args.x[i] + args.shift[c], args.act);
    }
}

namespace ref {
extern const EltwiseKernels eltwise_row = {kIsa, add_act_ref, unary_ref, binary_ref, affine_ref};
}
SECATEUR_TABLE(SECATEUR_WITH_REF, EltwiseKernels, eltwise_row, eltwise_kernels)

}  // namespace secateur
