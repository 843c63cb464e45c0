// Add, Sub, ..., Relu, ..., Clip, Cast.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/eltwise/eltwise.h"
#include "kernels/eltwise/typed.h"
#include "plan/lower/handlers.h"

namespace secateur {
namespace {

struct FloatBinaryStep {
  void (*fn)(const BinaryArgs&);
  BinaryArgs args;
  int a, b, y;
  void run(const Exec& e) const noexcept {
    BinaryArgs now = args;
    now.a = e.f32(a);
    now.b = e.f32(b);
    now.y = e.f32_out(y);
    fn(now);
  }
};

struct AddStep {
  void (*fn)(const float*, const float*, float*, int64_t, const Activation&);
  Activation act;
  int64_t n;
  int a, b, y;
  void run(const Exec& e) const noexcept { fn(e.f32(a), e.f32(b), e.f32_out(y), n, act); }
};

struct BroadcastStep {
  Broadcast p;
  DType dtype;
  int a, b, y;
  void run(const Exec& e) const noexcept {
    switch (dtype) {
      case DType::kDouble:
        return binary_f64_ref(p, static_cast<const double*>(e.ptr[a]), static_cast<const double*>(e.ptr[b]),
                              static_cast<double*>(e.ptr[y]));
      case DType::kInt64:
        return binary_i64_ref(p, static_cast<const int64_t*>(e.ptr[a]), static_cast<const int64_t*>(e.ptr[b]),
                              static_cast<int64_t*>(e.ptr[y]));
      default:
        return binary_i32_ref(p, static_cast<const int32_t*>(e.ptr[a]), static_cast<const int32_t*>(e.ptr[b]),
                              static_cast<int32_t*>(e.ptr[y]));
    }
  }
};

struct UnaryStep {
  void (*fn)(const UnaryArgs&);
  UnaryArgs args;
  int x, y;
  void run(const Exec& e) const noexcept {
    UnaryArgs now = args;
    now.a = e.f32(x);
    now.y = e.f32_out(y);
    fn(now);
  }
};

BinaryOp binary_op(const Node& n) {
  if (n.op == "Add") return BinaryOp::kAdd;
  if (n.op == "Sub") return BinaryOp::kSub;
  if (n.op == "Mul") return BinaryOp::kMul;
  if (n.op == "Div") return BinaryOp::kDiv;
  if (n.op == "Min") return BinaryOp::kMin;
  if (n.op == "Max") return BinaryOp::kMax;
  return BinaryOp::kPow;
}

Binary float_op(BinaryOp op) {
  switch (op) {
    case BinaryOp::kAdd:
      return Binary::kAdd;
    case BinaryOp::kSub:
      return Binary::kSub;
    case BinaryOp::kMul:
      return Binary::kMul;
    case BinaryOp::kDiv:
      return Binary::kDiv;
    case BinaryOp::kMin:
      return Binary::kMin;
    case BinaryOp::kMax:
      return Binary::kMax;
    default:
      return Binary::kPow;
  }
}

StepInfo named(const char* kernel) {
  StepInfo info;
  info.kernel = kernel;
  info.anywhere = true;
  return info;
}

struct NegI64Step {
  int64_t n;
  int x, y;
  void run(const Exec& e) const noexcept {
    const auto* a = static_cast<const int64_t*>(e.ptr[x]);
    auto* b = static_cast<int64_t*>(e.ptr[y]);
    for (int64_t i = 0; i < n; ++i) b[i] = static_cast<int64_t>(0 - static_cast<uint64_t>(a[i]));
  }
};

template <class F>
void with_number(DType t, F f) {
  switch (t) {
    case DType::kFloat:
      return f(float{});
    case DType::kDouble:
      return f(double{});
    case DType::kInt64:
      return f(int64_t{});
    case DType::kInt32:
      return f(int32_t{});
    case DType::kInt16:
      return f(int16_t{});
    case DType::kInt8:
      return f(int8_t{});
    case DType::kUInt8:
      return f(uint8_t{});
    case DType::kUInt16:
      return f(uint16_t{});
    case DType::kUInt32:
      return f(uint32_t{});
    case DType::kUInt64:
      return f(uint64_t{});
    case DType::kBool:
      return f(bool{});
    default:
      return;
  }
}

bool castable(DType t) { return dtype_size(t) > 0 && t != DType::kFloat16 && t != DType::kBFloat16; }

// Float to integer: C++ leaves out-of-range undefined, so it saturates here (as numpy and ORT do on x86 for none of
// the cases anyone relies on).
template <class To, class From>
To convert(From v) {
  if constexpr (std::is_same_v<To, bool>) {
    return v != From(0);
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    if (v != v) return To(0);
    const auto d = static_cast<double>(v);
    if (d <= static_cast<double>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    if (d >= static_cast<double>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    return static_cast<To>(v);
  } else {
    return static_cast<To>(v);
  }
}

struct CastStep {
  DType from, to;
  int64_t n;
  int x, y;
  void run(const Exec& e) const noexcept {
    with_number(from, [&](auto f) {
      with_number(to, [&](auto t) {
        using F = decltype(f);
        using T = decltype(t);
        // A bool of a caller or a file is any byte; not zero is true.
        using Stored = std::conditional_t<std::is_same_v<F, bool>, uint8_t, F>;
        const auto* a = static_cast<const Stored*>(e.ptr[x]);
        T* b = static_cast<T*>(e.ptr[y]);
        for (int64_t i = 0; i < n; ++i) b[i] = convert<T>(static_cast<F>(a[i]));
      });
    });
  }
};

}  // namespace

namespace {

void unary(Lowering& L, const Node& n, int x, UnaryArgs args) {
  const int y = L.out(n, 0, DType::kFloat, L.dims(x));
  args.n = L.value(x).numel();
  L.emit(n, UnaryStep{eltwise_kernels(L.isa()).unary, args, x, y}, {x}, {y}, named("unary_f32"));
}

}  // namespace

Activation fused_activation(const Node& n) {
  Activation act;
  if (n.post.act) act.lo = n.post.act->lo, act.hi = n.post.act->hi, act.slope = n.post.act->slope;
  return act;
}

std::string epilogue_key(const Epilogue& e) {
  char text[96];
  std::snprintf(text, sizeof text, "%a,%a,%a,%d,%d", static_cast<double>(e.act.lo), static_cast<double>(e.act.hi),
                static_cast<double>(e.act.slope), e.residual ? 1 : 0, static_cast<int>(e.pool));
  return text;
}

int lower_add(Lowering& L, const Node& n, int a, int b, int y, const Activation& act) {
  if (L.dims(a) == L.dims(b)) {
    L.emit(n, AddStep{eltwise_kernels(L.isa()).add_act, act, L.value(y).numel(), a, b, y}, {a, b}, {y},
           named("add_act_f32"));
    return y;
  }
  BinaryArgs args;
  if (!broadcast(L.dims(a).data(), L.rank(a), L.dims(b).data(), L.rank(b), &args))
    L.invalid(n, "shapes " + dims_text(L.dims(a)) + " and " + dims_text(L.dims(b)) + " do not broadcast");
  L.emit(n, FloatBinaryStep{eltwise_kernels(L.isa()).binary, args, a, b, y}, {a, b}, {y}, named("binary_f32"));
  if (has_activation(act)) lower_activation(L, n, y, y, act);
  return y;
}

void lower_activation(Lowering& L, const Node& n, int x, int y, const Activation& act) {
  UnaryArgs args;
  args.op = Unary::kAct;
  args.act = act;
  args.n = L.value(y).numel();
  L.emit(n, UnaryStep{eltwise_kernels(L.isa()).unary, args, x, y}, {x}, {y}, named("act_f32"));
}

bool has_activation(const Activation& act) {
  const Activation none;
  return act.lo != none.lo || act.hi != none.hi || act.slope != none.slope;
}

Dims broadcast_dims(Lowering& L, const Node& n, int a, int b) {
  const int rank = std::max(L.rank(a), L.rank(b));
  Dims dims(static_cast<size_t>(rank));
  for (int i = 0; i < rank; ++i) {
    const int ia = i - rank + L.rank(a), ib = i - rank + L.rank(b);
    const int64_t da = ia >= 0 ? L.dims(a)[static_cast<size_t>(ia)] : 1,
                  db = ib >= 0 ? L.dims(b)[static_cast<size_t>(ib)] : 1;
    if (da != db && da != 1 && db != 1)
      L.invalid(n, "shapes " + dims_text(L.dims(a)) + " and " + dims_text(L.dims(b)) + " do not broadcast");
    dims[static_cast<size_t>(i)] = da == 1 ? db : da;
  }
  return dims;
}

void lower_binary(Lowering& L, const Node& n) {
  if (n.inputs.size() == 1) return L.alias(n, 0, L.in(n, 0), L.dims(L.in(n, 0)));  // Max(x), Min(x)
  int a = L.in(n, 0);
  for (size_t i = 1; i < n.inputs.size(); ++i) {
    const int b = L.in(n, i);
    const DType t = L.value(a).dtype;
    if (t != L.value(b).dtype)
      L.unsupported(n, std::string("operands have dtypes ") + dtype_name(t) + " and " + dtype_name(L.value(b).dtype));
    const bool integer = t == DType::kInt64 || t == DType::kInt32;
    if ((t != DType::kFloat && t != DType::kDouble && !integer) || (n.op == "Pow" && integer))
      L.unsupported(n, std::string("dtype ") + dtype_name(t) + ", supported: float32, float64" +
                           (n.op == "Pow" ? "" : ", int32, int64"));
    if (t != DType::kFloat && has_activation(fused_activation(n)))
      L.unsupported(n, std::string("an activation of dtype ") + dtype_name(t) + ", supported: float32");
    const Dims dims = broadcast_dims(L, n, a, b);
    const bool last = i + 1 == n.inputs.size();
    const int y = last ? L.out(n, 0, t, dims) : L.temp(t, dims);
    const BinaryOp op = binary_op(n);
    if (t == DType::kFloat && op == BinaryOp::kAdd) {
      lower_add(L, n, a, b, y, last ? fused_activation(n) : Activation::none());
    } else if (t == DType::kFloat) {
      BinaryArgs args;
      args.op = float_op(op);
      broadcast(L.dims(a).data(), L.rank(a), L.dims(b).data(), L.rank(b), &args);
      args.op = float_op(op);
      L.emit(n, FloatBinaryStep{eltwise_kernels(L.isa()).binary, args, a, b, y}, {a, b}, {y}, named("binary_f32"));
    } else {
      BroadcastStep s{{}, t, a, b, y};
      s.p.op = op;
      int64_t out_dims[kMaxRank];
      make_broadcast(L.dims(a).data(), L.rank(a), L.dims(b).data(), L.rank(b), s.p, out_dims);
      L.emit(n, s, {a, b}, {y}, named("binary_ref"));
    }
    a = y;
  }
}

void lower_unary(Lowering& L, const Node& n) {
  const int x0 = L.in(n, 0);
  if (L.value(x0).dtype == DType::kInt64 && n.op == "Neg") {
    const int y = L.out(n, 0, DType::kInt64, L.dims(x0));
    return L.emit(n, NegI64Step{L.value(x0).numel(), x0, y}, {x0}, {y}, named("neg_i64_ref"));
  }
  const int x = L.in_f32(n, 0);
  UnaryArgs args;
  static const std::pair<const char*, Unary> table[] = {{"Abs", Unary::kAbs},
                                                        {"Ceil", Unary::kCeil},
                                                        {"Cos", Unary::kCos},
                                                        {"Erf", Unary::kErf},
                                                        {"Exp", Unary::kExp},
                                                        {"Floor", Unary::kFloor},
                                                        {"HardSwish", Unary::kHardSwish},
                                                        {"Log", Unary::kLog},
                                                        {"Mish", Unary::kMish},
                                                        {"Neg", Unary::kNeg},
                                                        {"Reciprocal", Unary::kReciprocal},
                                                        {"Round", Unary::kRound},
                                                        {"Sigmoid", Unary::kSigmoid},
                                                        {"Sign", Unary::kSign},
                                                        {"Sin", Unary::kSin},
                                                        {"Softplus", Unary::kSoftplus},
                                                        {"Softsign", Unary::kSoftsign},
                                                        {"Sqrt", Unary::kSqrt},
                                                        {"Tanh", Unary::kTanh}};
  for (const auto& [name, op] : table)
    if (n.op == name) args.op = op;
  if (n.op == "Relu") args.act = Activation::relu();
  if (n.op == "LeakyRelu") args.act = Activation::leaky(attr_f(n, "alpha", 0.01f));
  unary(L, n, x, args);
}

// Unary functions with attributes.
void lower_unary_shaped(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0);
  UnaryArgs args;
  const auto set = [&](Unary op, float alpha, float beta = 0.0f) {
    args.op = op;
    args.alpha = attr_f(n, "alpha", alpha);
    args.beta = attr_f(n, n.op == "Selu" ? "gamma" : "beta", beta);
  };
  if (n.op == "Elu") set(Unary::kElu, 1.0f);
  if (n.op == "Celu") set(Unary::kCelu, 1.0f);
  if (n.op == "Selu") set(Unary::kSelu, 1.67326319217681884765625f, 1.05070102214813232421875f);
  if (n.op == "HardSigmoid") set(Unary::kHardSigmoid, 0.2f, 0.5f);
  if (n.op == "ThresholdedRelu") set(Unary::kThreshold, 1.0f);
  if (n.op == "Swish") set(Unary::kSilu, 1.0f);
  if (n.op == "Celu" && args.alpha == 0.0f) L.invalid(n, "alpha is zero");
  if (n.op == "Gelu") {
    const std::string how = attr_s(n, "approximate", "none");
    if (how != "none" && how != "tanh") L.invalid(n, "approximate '" + how + "' is not known");
    args.op = how == "tanh" ? Unary::kGeluTanh : Unary::kGelu;
  }
  unary(L, n, x, args);
}

void lower_prelu(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0), slope = L.in_f32(n, 1);
  if (broadcast_dims(L, n, x, slope) != L.dims(x))
    L.invalid(n, "slope " + dims_text(L.dims(slope)) + " does not broadcast to " + dims_text(L.dims(x)));
  const int y = L.out(n, 0, DType::kFloat, L.dims(x));
  BinaryArgs args;
  broadcast(L.dims(x).data(), L.rank(x), L.dims(slope).data(), L.rank(slope), &args);
  args.op = Binary::kPRelu;
  L.emit(n, FloatBinaryStep{eltwise_kernels(L.isa()).binary, args, x, slope, y}, {x, slope}, {y}, named("binary_f32"));
}

void lower_clip(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0);
  UnaryArgs args;
  for (size_t i = 1; i <= 2; ++i) {
    const int id = L.in_or(n, i);
    if (id < 0) continue;
    const auto v = L.numbers(id);
    if (!v || v->size() != 1) L.unsupported(n, "the bounds must be constant scalars");
    (i == 1 ? args.act.lo : args.act.hi) = static_cast<float>((*v)[0]);
  }
  unary(L, n, x, args);
}

void lower_cast(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  const DType to = n.op == "CastLike" ? L.value(L.in(n, 1)).dtype : static_cast<DType>(attr_i(n, "to", 0));
  const DType from = L.value(x).dtype;
  if (!castable(to) || !castable(from))
    L.unsupported(n, std::string("cast from ") + dtype_name(from) + " to " + dtype_name(to));
  if (from == to) return L.alias(n, 0, x, L.dims(x));
  const int y = L.out(n, 0, to, L.dims(x));
  L.emit(n, CastStep{from, to, L.value(x).numel(), x, y}, {x}, {y}, named("cast_ref"));
}

}  // namespace secateur
