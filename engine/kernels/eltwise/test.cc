// Every row of the table this machine can run, against double, for lengths around vector edges and random broadcasts.
#include "kernels/eltwise/eltwise.h"

#include "kernels/testing.h"

namespace secateur {
namespace {

using testing::check;
using testing::Guarded;
using testing::Random;

int64_t n_checks = 0;

double activate(double v, const Activation& a) {
  if (v < 0) v *= a.slope;
  return std::min<double>(std::max<double>(v, a.lo), a.hi);
}

double exact(const UnaryArgs& u, double v) {
  switch (u.op) {
    case Unary::kAct:
      return activate(v, u.act);
    case Unary::kSigmoid:
      return 1 / (1 + std::exp(-v));
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
      return std::max(0.0, std::min(1.0, u.alpha * v + u.beta));
    case Unary::kHardSwish:
      return v * std::max(0.0, std::min(1.0, v / 6 + 0.5));
    case Unary::kSoftplus:
      return std::log1p(std::exp(v));
    case Unary::kErf:
      return std::erf(v);
    case Unary::kGelu:
      return 0.5 * v * (1 + std::erf(v * std::sqrt(0.5)));
    case Unary::kGeluTanh:
      return 0.5 * v * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (v + 0.044715 * v * v * v)));
    case Unary::kSilu:
      return v / (1 + std::exp(-u.alpha * v));
    case Unary::kMish:
      return v * std::tanh(std::log1p(std::exp(v)));
    case Unary::kSelu:
      return u.beta * (v > 0 ? v : u.alpha * std::expm1(v));
    case Unary::kCelu:
      return v > 0 ? v : u.alpha * std::expm1(v / u.alpha);
    case Unary::kThreshold:
      return v > u.alpha ? v : 0;
    case Unary::kSoftsign:
      return v / (1 + std::fabs(v));
    case Unary::kFloor:
      return std::floor(v);
    case Unary::kCeil:
      return std::ceil(v);
    case Unary::kRound:
      return std::nearbyint(v);
    case Unary::kReciprocal:
      return 1 / v;
    case Unary::kSign:
      return v > 0 ? 1 : v < 0 ? -1 : 0;
    case Unary::kSin:
      return std::sin(v);
    case Unary::kCos:
      return std::cos(v);
  }
  return 0;
}

double exact(Binary op, double a, double b) {
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

// A few units in the last place of the result, and of its size where it comes near zero by cancellation.
bool near(double got, double want, double scale = 0) {
  return std::fabs(got - want) <= 8 * 0x1p-24 * std::max(std::fabs(want), scale) + 1e-37;
}

void unaries(int64_t n, Isa isa, Random& rng) {
  const EltwiseKernels& k = eltwise_kernels(isa);
  Guarded a(n, rng.below(3)), y(n, rng.below(3), 7.0f);
  for (int op = 0; op <= static_cast<int>(Unary::kCos); ++op) {
    UnaryArgs u;
    u.op = static_cast<Unary>(op);
    u.act = rng.below(2) ? Activation::leaky(0.2f) : Activation::clip(-0.5f, 1.0f);
    u.alpha = 0.2f;
    u.a = a.data();
    u.y = y.data();
    u.n = n;
    const bool positive = u.op == Unary::kLog || u.op == Unary::kSqrt;
    // What cancels, or multiplies the input by a rounded number, errs in proportion to the input.
    const bool scaled = u.op == Unary::kGelu || u.op == Unary::kGeluTanh || u.op == Unary::kHardSwish ||
                        u.op == Unary::kSilu || u.op == Unary::kMish;
    for (int64_t i = 0; i < n; ++i) a[i] = positive ? std::fabs(3 * rng.normal()) + 0.01f : 3 * rng.normal();
    k.unary(u);
    ++n_checks;
    bool ok = y.intact() && a.intact();
    for (int64_t i = 0; i < n; ++i)
      ok &= near(y[i], exact(u, a[i]),
                 scaled                                               ? std::fabs(a[i])
                 : u.op == Unary::kLog || u.op == Unary::kHardSigmoid ? 1
                                                                      : 0);
    check(ok, std::string(isa_name(isa)) + " unary " + std::to_string(op) + " n " + std::to_string(n));
  }
}

void binaries(Isa isa, Random& rng) {
  int64_t a_dims[4], b_dims[4];
  const int rank = 1 + rng.below(4);
  int64_t na = 1, nb = 1, ny = 1;
  for (int d = 0; d < rank; ++d) {
    const int64_t size = 1 + rng.below(d + 1 == rank ? 40 : 5);
    a_dims[d] = rng.below(4) == 0 ? 1 : size;
    b_dims[d] = rng.below(4) == 0 ? 1 : size;
    na *= a_dims[d];
    nb *= b_dims[d];
    ny *= std::max(a_dims[d], b_dims[d]);
  }
  Guarded a(na), b(nb), y(ny, 0, 7.0f), y_ref(ny);
  BinaryArgs args;
  check(broadcast(a_dims, rank, b_dims, rank, &args), "broadcast refused what fits");
  args.op = static_cast<Binary>(rng.below(8));
  for (int64_t i = 0; i < na; ++i) a[i] = std::fabs(rng.normal()) + 0.1f;
  if (args.op == Binary::kPRelu)
    for (int64_t i = 0; i < na; i += 2) a[i] = -a[i];
  for (int64_t i = 0; i < nb; ++i) b[i] = std::fabs(rng.normal()) + 0.1f;
  args.a = a.data();
  args.b = b.data();
  args.y = y.data();
  eltwise_kernels(isa).binary(args);
  ++n_checks;
  bool ok = y.intact();
  for (int64_t k = 0; k < ny; ++k) {
    int64_t rest = k, ia = 0, ib = 0, step_a = 1, step_b = 1;
    for (int d = rank - 1; d >= 0; --d) {
      const int64_t size = std::max(a_dims[d], b_dims[d]), at = rest % size;
      rest /= size;
      ia += (a_dims[d] == 1 ? 0 : at) * step_a;
      ib += (b_dims[d] == 1 ? 0 : at) * step_b;
      step_a *= a_dims[d];
      step_b *= b_dims[d];
    }
    ok &= near(y[k], exact(args.op, a[ia], b[ib]), args.op == Binary::kSub ? a[ia] + b[ib] : 0);
  }
  check(ok, std::string(isa_name(isa)) + " binary " + std::to_string(static_cast<int>(args.op)));
}

void rest(int64_t n, Isa isa, Random& rng) {
  const EltwiseKernels& k = eltwise_kernels(isa);
  Guarded a(n, 1), b(n, 2), y(n, 0, 7.0f);
  for (int64_t i = 0; i < n; ++i) {
    a[i] = rng.normal();
    b[i] = rng.normal();
  }
  k.add_act(a.data(), b.data(), y.data(), n, Activation::relu());
  ++n_checks;
  bool ok = y.intact();
  for (int64_t i = 0; i < n; ++i) ok &= y[i] == std::max(0.0f, a[i] + b[i]);
  check(ok, std::string(isa_name(isa)) + " add_act n " + std::to_string(n));
  std::vector<float> scale(3), shift(3);
  for (int c = 0; c < 3; ++c) {
    scale[c] = rng.normal();
    shift[c] = rng.normal();
  }
  Guarded x(6 * n), z(6 * n, 0, 7.0f);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = rng.normal();
  AffineArgs args;
  args.x = x.data();
  args.y = z.data();
  args.scale = scale.data();
  args.shift = shift.data();
  args.planes = 6;
  args.channels = 3;
  args.plane = n;
  args.act = Activation::clip(-1, 1);
  k.affine(args);
  ++n_checks;
  ok = z.intact();
  for (int64_t i = 0; i < x.size(); ++i) {
    const int c = static_cast<int>(i / n % 3);
    ok &= near(z[i], activate(double(scale[c]) * x[i] + shift[c], args.act),
               std::fabs(scale[c] * x[i]) + std::fabs(shift[c]));
  }
  check(ok, std::string(isa_name(isa)) + " affine n " + std::to_string(n));
}

}  // namespace
}  // namespace secateur

int main() {
  using namespace secateur;
  const uint32_t seed = 20240614;
  std::printf("seed %u\n", seed);
  Random rng(seed);
  for (Isa isa : available_isas()) {
    for (int64_t n : {1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100}) {
      unaries(n, isa, rng);
      rest(n, isa, rng);
    }
    for (int i = 0; i < 300; ++i) binaries(isa, rng);
  }
  const int64_t two[] = {2}, three[] = {3};
  BinaryArgs args;
  check(!broadcast(two, 1, three, 1, &args), "broadcast took 2 against 3");
  return testing::finish("eltwise", n_checks);
}
