// BatchNormalization that no convolution or linear layer could take in; Softmax; reductions.
#include <cmath>
#include <map>

#include "kernels/eltwise/eltwise.h"
#include "kernels/pool/pool.h"
#include "kernels/reduce/reduce.h"
#include "kernels/softmax/softmax.h"
#include "plan/lower/handlers.h"

namespace secateur {
namespace {

struct AffineStep {
  void (*fn)(const AffineArgs&);
  AffineArgs args;
  std::shared_ptr<const std::vector<float>> scale, shift;
  int x, y;
  void run(const Exec& e) const noexcept {
    AffineArgs now = args;
    now.x = e.f32(x);
    now.y = e.f32_out(y);
    now.scale = scale->data();
    now.shift = shift->data();
    fn(now);
  }
};

struct SoftmaxStep {
  void (*fn)(const SoftmaxArgs&);
  SoftmaxArgs args;
  int x, y;
  void run(const Exec& e) const noexcept {
    SoftmaxArgs now = args;
    now.x = e.f32(x);
    now.y = e.f32_out(y);
    fn(now);
  }
};

ReduceOp reduce_op(const std::string& name) {
  static const std::map<std::string, ReduceOp> ops{
      {"ReduceMean", ReduceOp::kMean},     {"ReduceSum", ReduceOp::kSum},
      {"ReduceMax", ReduceOp::kMax},       {"ReduceMin", ReduceOp::kMin},
      {"ReduceProd", ReduceOp::kProd},     {"ReduceL1", ReduceOp::kL1},
      {"ReduceL2", ReduceOp::kL2},         {"ReduceSumSquare", ReduceOp::kSumSquare},
      {"ReduceLogSum", ReduceOp::kLogSum}, {"ReduceLogSumExp", ReduceOp::kLogSumExp}};
  return ops.at(name);
}

struct ReduceStep {
  Reduce p;
  bool integer;
  int x, y;
  void run(const Exec& e) const noexcept {
    if (integer) reduce_i64_ref(p, static_cast<const int64_t*>(e.ptr[x]), static_cast<int64_t*>(e.ptr[y]));
    else reduce_f32_ref(p, e.f32(x), e.f32_out(y));
  }
};

struct GlobalMeanStep {
  void (*fn)(const PoolArgs&);
  PoolArgs args;
  int x, y;
  void run(const Exec& e) const noexcept {
    PoolArgs now = args;
    now.x = e.f32(x);
    now.y = e.f32_out(y);
    now.threads = e.threads;
    fn(now);
  }
};

StepInfo named(const char* kernel) {
  StepInfo info;
  info.kernel = kernel;
  info.anywhere = true;
  return info;
}

}  // namespace

void lower_batch_norm(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0);
  if (attr_i(n, "training_mode", 0) != 0) L.unsupported(n, "training_mode 1; export the model in evaluation mode");
  for (size_t i = 1; i < n.outputs.size(); ++i)
    if (!n.outputs[i].empty()) L.unsupported(n, "more than one output; export the model in evaluation mode");
  const Dims xd = L.dims(x);
  if (xd.size() < 2) L.unsupported(n, "input " + dims_text(xd));
  const int64_t channels = xd[1];
  std::vector<double> p[4];
  for (size_t i = 0; i < 4; ++i) {
    const auto v = L.numbers(L.in(n, i + 1));
    if (!v) L.unsupported(n, "scale, bias, mean and variance must be constant");
    if (static_cast<int64_t>(v->size()) != channels)
      L.invalid(n, "input " + std::to_string(i + 1) + " does not have " + std::to_string(channels) + " values");
    p[i] = *v;
  }
  const double eps = attr_f(n, "epsilon", 1e-5f);
  auto scale = std::make_shared<std::vector<float>>(), shift = std::make_shared<std::vector<float>>();
  for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
    const double s = p[0][c] / std::sqrt(p[3][c] + eps);
    scale->push_back(static_cast<float>(s));
    shift->push_back(static_cast<float>(p[1][c] - s * p[2][c]));
  }
  AffineArgs a;
  a.planes = xd[0] * channels;
  a.channels = channels;
  a.plane = 1;
  for (size_t i = 2; i < xd.size(); ++i) a.plane *= xd[i];
  a.act = fused_activation(n);
  const int y = L.out(n, 0, DType::kFloat, xd);
  L.emit(n, AffineStep{eltwise_kernels(L.isa()).affine, a, scale, shift, x, y}, {x}, {y}, named("affine_f32"));
}

void lower_softmax(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0);
  const Dims xd = L.dims(x);
  const int rank = L.rank(x);
  if (rank == 0) L.unsupported(n, "a scalar input");
  SoftmaxArgs a;
  a.log = n.op == "LogSoftmax";
  if (L.opset() >= 13) {
    const int64_t axis = normal_axis(L, n, attr_i(n, "axis", -1), rank);
    for (int i = 0; i < rank; ++i) (i < axis ? a.outer : i == axis ? a.axis : a.inner) *= xd[static_cast<size_t>(i)];
  } else {
    // Before opset 13 the input is flattened to a matrix at `axis`.
    const int64_t axis = normal_axis(L, n, attr_i(n, "axis", 1), rank);
    for (int i = 0; i < rank; ++i) (i < axis ? a.outer : a.axis) *= xd[static_cast<size_t>(i)];
  }
  const int y = L.out(n, 0, DType::kFloat, xd);
  L.emit(n, SoftmaxStep{softmax_kernels(L.isa()).run, a, x, y}, {x}, {y}, named("softmax_f32"));
}

void lower_reduce(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  const Dims xd = L.dims(x);
  const bool integer = L.value(x).dtype == DType::kInt64;
  if (!integer) L.in_f32(n, 0);
  const int rank = L.rank(x);
  Reduce p;
  p.op = reduce_op(n.op);
  if (integer && (p.op == ReduceOp::kL2 || p.op == ReduceOp::kLogSum || p.op == ReduceOp::kLogSumExp))
    L.unsupported(n, "integers");
  std::vector<int64_t> axes;
  if (L.has(n, 1)) axes = L.need_ints(n, 1);
  else axes = attr_is(n, "axes");
  const bool keep = attr_i(n, "keepdims", 1) != 0;
  if (axes.empty() && attr_i(n, "noop_with_empty_axes", 0) != 0) {
    // The standard applies the function to every element, which for these is none.
    if (p.op == ReduceOp::kMean || p.op == ReduceOp::kSum || p.op == ReduceOp::kMax || p.op == ReduceOp::kMin ||
        p.op == ReduceOp::kProd)
      return L.alias(n, 0, x, xd);
    L.unsupported(n, "no axes");
  }
  p.rank = rank;
  for (int i = 0; i < rank; ++i) {
    p.dims[i] = xd[static_cast<size_t>(i)];
    p.reduce[i] = axes.empty();
  }
  for (int64_t a : axes) p.reduce[normal_axis(L, n, a, rank)] = true;
  Dims out;
  int64_t count = 1;
  for (int i = 0; i < rank; ++i) {
    if (p.reduce[i]) count *= p.dims[i];
    if (!p.reduce[i]) out.push_back(p.dims[i]);
    else if (keep) out.push_back(1);
  }
  const int y = L.out(n, 0, integer ? DType::kInt64 : DType::kFloat, out);
  // The usual form, a mean over the trailing spatial axes, is a global average pool.
  int first = 0;
  while (first < rank && !p.reduce[first]) ++first;
  bool trailing = first < rank;
  for (int i = first; i < rank; ++i) trailing = trailing && p.reduce[i];
  if (!integer && p.op == ReduceOp::kMean && trailing && count > 0 && count < (int64_t{1} << 30)) {
    PoolArgs a;
    a.planes = L.value(y).numel();
    a.in_w = static_cast<int>(count);
    return L.emit(n, GlobalMeanStep{pool_kernels(L.isa()).global_average, a, x, y}, {x}, {y},
                  named("global_average_pool_f32"));
  }
  L.emit(n, ReduceStep{p, integer, x, y}, {x}, {y}, named("reduce_ref"));
}

}  // namespace secateur
