// LayerNormalization and its kin: statistics of the input itself.
#include <algorithm>

#include "kernels/norm/norm.h"
#include "plan/lower/handlers.h"

namespace secateur {
namespace {

struct LayerNormStep {
  void (*fn)(const LayerNormArgs&);
  LayerNormArgs args;
  int x, residual, scale, bias, y, sum, mean, inv_std;
  void run(const Exec& e) const noexcept {
    LayerNormArgs now = args;
    now.x = e.f32(x);
    now.residual = e.f32(residual);
    now.scale = e.f32(scale);
    now.bias = e.f32(bias);
    now.y = e.f32_out(y);
    if (sum >= 0) now.sum = e.f32_out(sum);
    if (mean >= 0) now.mean = e.f32_out(mean);
    if (inv_std >= 0) now.inv_std = e.f32_out(inv_std);
    now.threads = e.threads;
    fn(now);
  }
};

struct GroupNormStep {
  void (*fn)(const GroupNormArgs&);
  GroupNormArgs args;
  int x, scale, bias, y;
  void run(const Exec& e) const noexcept {
    GroupNormArgs now = args;
    now.x = e.f32(x);
    now.scale = e.f32(scale);
    now.bias = e.f32(bias);
    now.y = e.f32_out(y);
    now.threads = e.threads;
    fn(now);
  }
};

struct LrnStep {
  LrnArgs args;
  int x, y;
  void run(const Exec& e) const noexcept {
    LrnArgs now = args;
    now.x = e.f32(x);
    now.y = e.f32_out(y);
    lrn_ref(now);
  }
};

StepInfo named(const char* kernel) {
  StepInfo info;
  info.kernel = kernel;
  return info;
}

bool wanted(const Node& n, size_t i) { return i < n.outputs.size() && !n.outputs[i].empty(); }

float epsilon(Lowering& L, const Node& n) {
  const float eps = attr_f(
      n, "epsilon", n.op == "SkipLayerNormalization" || n.op == "SkipSimplifiedLayerNormalization" ? 1e-12f : 1e-5f);
  if (!(eps >= 0)) L.invalid(n, "epsilon is negative");
  return eps;
}

// A parameter with one value per normalised element, -1 when left out.
int row_parameter(Lowering& L, const Node& n, size_t i, int64_t count) {
  if (!L.has(n, i)) return -1;
  const int id = L.in_f32(n, i);
  if (L.value(id).numel() != count)
    L.unsupported(n, "input " + std::to_string(i) + " " + dims_text(L.dims(id)) +
                         ", supported: " + std::to_string(count) + " values");
  return id;
}

// Before opset 21 scale and bias stand per group: each channel has its group's.
int per_channel(Lowering& L, const Node& n, size_t i, int64_t groups, int64_t channels) {
  const int id = L.in_f32(n, i);
  if (n.op != "GroupNormalization" || L.opset() >= 21 || groups == channels || L.value(id).numel() != groups) return id;
  if (!L.value(id).constant) L.unsupported(n, "scale and bias per group must be constant");
  std::vector<float> v;
  for (int64_t c = 0; c < channels; ++c)
    v.push_back(reinterpret_cast<const float*>(L.value(id).constant)[c / (channels / groups)]);
  const Node anonymous;
  return L.constant(anonymous, 0, DType::kFloat, {channels}, v.data());
}

}  // namespace

// LayerNormalization, RMSNormalization, SimplifiedLayerNormalization (the same, ONNX Runtime's name).
// A fused node has an input 3: the residual, of x's shape, added before.
void lower_layer_norm(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0);
  const Dims xd = L.dims(x);
  const int rank = L.rank(x);
  const bool rms = n.op != "LayerNormalization";
  if (attr_i(n, "stash_type", 1) != 1) L.unsupported(n, "stash_type other than 1");
  const int64_t axis = normal_axis(L, n, attr_i(n, "axis", -1), rank);
  LayerNormStep s{norm_kernels(L.isa()).layer, {}, x, -1, -1, -1, -1, -1, -1, -1};
  s.args.rms = rms;
  s.args.eps = epsilon(L, n);
  s.args.rows = s.args.n = 1;
  Dims stats = xd;
  for (int i = 0; i < rank; ++i) {
    (i < axis ? s.args.rows : s.args.n) *= xd[static_cast<size_t>(i)];
    if (i >= axis) stats[static_cast<size_t>(i)] = 1;
  }
  if (s.args.n == 0 && (wanted(n, 1) || wanted(n, 2)) && !L.is_empty(stats))
    L.unsupported(n, "a mean over no elements");
  s.scale = row_parameter(L, n, 1, s.args.n);
  s.bias = rms ? -1 : row_parameter(L, n, 2, s.args.n);
  if (L.has(n, 3)) {
    s.residual = L.in_f32(n, 3);
    if (L.dims(s.residual) != xd) {
      // It broadcasts: an Add of its own.
      const Dims sum = broadcast_dims(L, n, x, s.residual);
      if (sum != xd)
        L.unsupported(n, "a residual " + dims_text(L.dims(s.residual)) + " larger than the input " + dims_text(xd));
      const int added = L.temp(DType::kFloat, xd);
      lower_add(L, n, x, s.residual, added, Activation::none());
      s.x = added;
      s.residual = -1;
    }
  }
  s.y = L.out(n, 0, DType::kFloat, xd);
  const size_t mean = 1, inv_std = rms ? 1 : 2;
  if (!rms && wanted(n, mean)) s.mean = L.out(n, mean, DType::kFloat, stats);
  if (wanted(n, inv_std)) s.inv_std = L.out(n, inv_std, DType::kFloat, stats);
  StepInfo info = named(rms ? "rms_norm_f32" : "layer_norm_f32");
  if (s.residual >= 0) info.why = "residual fused";
  L.emit(n, s, {s.x, s.residual, s.scale, s.bias}, {s.y, s.mean, s.inv_std}, info);
}

// com.microsoft SkipLayerNormalization(input, skip, gamma, beta, bias) -> output, mean, inv_std, input + skip + bias;
// the Simplified form has no beta.
void lower_skip_layer_norm(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0), skip = L.in_f32(n, 1);
  const bool rms = n.op == "SkipSimplifiedLayerNormalization";
  const Dims xd = L.dims(x);
  if (xd.empty() || L.dims(skip) != xd)
    L.unsupported(n, "skip " + dims_text(L.dims(skip)) + " of another shape than " + dims_text(xd));
  LayerNormStep s{norm_kernels(L.isa()).layer, {}, x, skip, -1, -1, -1, -1, -1, -1};
  s.args.rms = rms;
  s.args.eps = epsilon(L, n);
  s.args.n = xd.back();
  s.args.rows = L.value(x).numel() / std::max<int64_t>(s.args.n, 1);
  s.scale = row_parameter(L, n, 2, s.args.n);
  if (!rms) s.bias = row_parameter(L, n, 3, s.args.n);
  if (const int bias = row_parameter(L, n, rms ? 3 : 4, s.args.n); bias >= 0) {
    s.x = L.temp(DType::kFloat, xd);
    lower_add(L, n, x, bias, s.x, Activation::none());
  }
  if (wanted(n, 1) || wanted(n, 2)) L.unsupported(n, "the mean and inv_std outputs");
  s.y = L.out(n, 0, DType::kFloat, xd);
  if (wanted(n, 3)) s.sum = L.out(n, 3, DType::kFloat, xd);
  L.emit(n, s, {s.x, s.residual, s.scale, s.bias}, {s.y, s.sum}, named(rms ? "rms_norm_f32" : "layer_norm_f32"));
}

// InstanceNormalization and GroupNormalization (opset 21: scale and bias per channel; 18: per group).
void lower_group_norm(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0);
  const Dims xd = L.dims(x);
  if (xd.size() < 2) L.invalid(n, "input " + dims_text(xd) + " has no channels");
  GroupNormStep s{norm_kernels(L.isa()).group, {}, x, -1, -1, -1};
  if (L.is_empty(xd)) {
    L.out(n, 0, DType::kFloat, xd);
    return;
  }
  s.args.batch = xd[0];
  s.args.channels = xd[1];
  s.args.groups = n.op == "GroupNormalization" ? attr_i(n, "num_groups", 0) : xd[1];
  s.args.plane = 1;
  for (size_t i = 2; i < xd.size(); ++i) s.args.plane *= xd[i];
  s.args.eps = epsilon(L, n);
  if (s.args.groups < 1 || xd[1] % s.args.groups)
    L.invalid(n, std::to_string(s.args.groups) + " groups of " + dims_text(xd));
  s.scale = per_channel(L, n, 1, s.args.groups, xd[1]), s.bias = per_channel(L, n, 2, s.args.groups, xd[1]);
  if (L.value(s.scale).numel() != xd[1] || L.value(s.bias).numel() != xd[1])
    L.invalid(n, "scale " + dims_text(L.dims(s.scale)) + " and bias " + dims_text(L.dims(s.bias)) + " do not fit " +
                     dims_text(xd));
  s.y = L.out(n, 0, DType::kFloat, xd);
  L.emit(n, s, {x, s.scale, s.bias}, {s.y}, named("group_norm_f32"));
}

void lower_lrn(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0);
  const Dims xd = L.dims(x);
  if (xd.size() < 2) L.invalid(n, "input " + dims_text(xd) + " has no channels");
  LrnStep s{{}, x, -1};
  s.args.batch = xd[0];
  s.args.channels = xd[1];
  s.args.plane = 1;
  for (size_t i = 2; i < xd.size(); ++i) s.args.plane *= xd[i];
  s.args.size = attr_i(n, "size", 0);
  if (s.args.size < 1 || s.args.size > (int64_t{1} << 31)) L.invalid(n, "size " + std::to_string(s.args.size));
  s.args.alpha = attr_f(n, "alpha", 1e-4f);
  s.args.beta = attr_f(n, "beta", 0.75f);
  s.args.k = attr_f(n, "bias", 1.0f);
  s.y = L.out(n, 0, DType::kFloat, xd);
  StepInfo info = named("lrn_f32_ref");
  info.work = static_cast<double>(product({L.value(x).numel(), std::min(s.args.size, s.args.channels)}));
  L.emit(n, s, {x}, {s.y}, info);
}

}  // namespace secateur
