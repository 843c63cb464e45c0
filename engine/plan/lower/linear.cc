// Gemm and MatMul. With a constant right operand: a linear kernel, dense or sparse; else a product of two activations.
#include <algorithm>
#include <climits>

#include "kernels/eltwise/typed.h"
#include "kernels/linear/linear.h"
#include "kernels/matmul/matmul.h"
#include "plan/lower/handlers.h"
#include "plan/lower/layer.h"
#include "plan/lower/product.h"
#include "plan/lower/window.h"

namespace secateur {
namespace {

struct LinearStep {
  std::shared_ptr<const PackedLinear> packed;
  int64_t rows;
  int x, residual, y, scratch;
  void run(const Exec& e) const noexcept {
    LinearArgs args;
    args.x = e.f32(x);
    args.y = e.f32_out(y);
    args.residual = e.f32(residual);
    args.rows = rows;
    args.scratch = scratch < 0 ? nullptr : e.ptr[scratch];
    args.threads = e.threads;
    packed->kernel->run(*packed, args);
  }
};

struct MatMulStep {
  const MatMulKernel* kernel;
  MatMul p;
  int a, b, y, scratch;
  void run(const Exec& e) const noexcept {
    MatMulArgs args;
    args.a = e.f32(a);
    args.b = e.f32(b);
    args.y = e.f32_out(y);
    args.scratch = scratch < 0 ? nullptr : e.ptr[scratch];
    args.threads = e.threads;
    kernel->run(p, args);
  }
};

// A product over no elements.
struct ZeroStep {
  int64_t n;
  int y;
  void run(const Exec& e) const noexcept { std::fill_n(e.f32_out(y), n, 0.0f); }
};

struct ScaleStep {
  float scale;
  int64_t n;
  int x, y;
  void run(const Exec& e) const noexcept {
    const float* a = e.f32(x);
    float* b = e.f32_out(y);
    for (int64_t i = 0; i < n; ++i) b[i] = a[i] * scale;
  }
};

StepInfo named(const char* kernel, const char* why = "") {
  StepInfo info;
  info.kernel = kernel;
  info.why = why;
  return info;
}

}  // namespace

void emit_matmul(Lowering& L, const Node& n, MatMul p, int a, int b, int y) {
  if (L.value(y).numel() == 0) return;
  if (p.k == 0) return L.emit(n, ZeroStep{L.value(y).numel(), y}, {}, {y}, named("zero_f32", "nothing to sum"));
  // Many matrices times one: their rows follow one another and make one taller matrix.
  const bool one_b = std::all_of(p.b_batch, p.b_batch + p.rank, [](int64_t s) { return s == 0; });
  int64_t step = p.m * p.k;
  bool in_order = p.a_row == p.k && p.a_col == 1;
  for (int i = p.rank - 1; i >= 0; step *= p.dims[i--]) in_order = in_order && (p.dims[i] == 1 || p.a_batch[i] == step);
  if (one_b && in_order) {
    p.m = L.value(y).numel() / p.n;
    p.rank = 0;
  }
  const MatMulKernel& kernel = matmul_kernel(L.isa());
  const size_t bytes = kernel.scratch_bytes(p, L.threads());
  const int scratch = bytes ? L.scratch(bytes) : -1;
  StepInfo info = named(kernel.name, "both operands are computed");
  info.macs = product({L.value(y).numel(), p.k});
  L.emit(n, MatMulStep{&kernel, p, a, b, y, scratch}, {a, b, scratch}, {y, scratch}, info);
}

namespace {

bool all_zero(const float* v, size_t n) {
  for (size_t i = 0; i < n; ++i)
    if (v[i] != 0.0f) return false;
  return true;
}

// x [rows..., in] times a constant weight [in][out], or [out][in] where `turned`; y = alpha x W + beta bias.
struct LinearLayer {
  using Candidate = LinearCandidate;
  using Packed = PackedLinear;

  const Lowering& L;
  LinearShape shape;
  Epilogue e;
  LinearDensity density;
  int64_t n_rows;
  int w, bias;
  bool turned;
  float alpha, beta;

  const float* weights() const { return reinterpret_cast<const float*>(L.value(w).constant); }
  int64_t n_weights() const { return int64_t{shape.in} * shape.out; }
  std::vector<Candidate> candidates(int) const {
    return linear_candidates(L.isa(), shape, n_rows, density, L.allow_sparse());
  }
  std::unique_ptr<Packed> pack(const Candidate& c) const {
    const std::vector<float> by_output = scaled_weights(), b = scaled_bias();
    const float* from = by_output.empty() ? weights() : by_output.data();
    return c.kernel->pack(*c.kernel, shape, e, from, all_zero(b.data(), b.size()) ? nullptr : b.data(), n_rows);
  }
  LinearStep step(std::shared_ptr<const Packed> p, int from, int residual, int to, int scratch) const {
    return {std::move(p), n_rows, from, residual, to, scratch};
  }
  Tuner::Memory memory(const Packed& p) const {
    const auto x = static_cast<size_t>(n_rows * shape.in) * 4, y = static_cast<size_t>(n_rows * shape.out) * 4;
    return {x, y, e.residual ? y : 0, p.scratch_bytes(n_rows, L.threads())};
  }
  std::string key() const {
    return "linear/" + std::to_string(shape.in) + "," + std::to_string(shape.out) + "/" + std::to_string(turned) + "/" +
           std::to_string(alpha) + "/" + std::to_string(beta) + "/" + (n_rows < kLinearManyRows ? "few/" : "many/") +
           epilogue_key(e);
  }
  std::vector<int> constants() const { return {w, bias}; }
  std::string kind() const { return linear_kind(n_rows >= kLinearManyRows, 4.0 * double(density.nnz)); }
  int64_t rows() const { return n_rows; }
  double times() const { return 1; }
  uint64_t pattern() const { return pattern_hash(weights(), n_weights()); }

 private:
  // [out][in], times alpha; empty where the weight is that already.
  std::vector<float> scaled_weights() const {
    std::vector<float> by_output;
    if (turned && alpha == 1.0f) return by_output;
    by_output.reserve(static_cast<size_t>(n_weights()));
    for (int64_t o = 0; o < shape.out; ++o)
      for (int64_t i = 0; i < shape.in; ++i)
        by_output.push_back(alpha * weights()[turned ? o * shape.in + i : i * shape.out + o]);
    return by_output;
  }
  std::vector<float> scaled_bias() const {
    std::vector<float> b;
    if (bias < 0) return b;
    const auto* from = reinterpret_cast<const float*>(L.value(bias).constant);
    const bool scalar = L.value(bias).numel() == 1;
    for (int64_t o = 0; o < shape.out; ++o) b.push_back(beta * from[scalar ? 0 : o]);
    return b;
  }
};

// No operand is without elements. bias: id of a constant [out] or -1. residual: any shape or -1.
void linear(Lowering& L, const Node& n, int x, int w, bool turned, float alpha, int bias, float beta, int residual,
            const Dims& out_dims) {
  const Dims wd = L.dims(w);
  const int64_t in = turned ? wd[1] : wd[0], out = turned ? wd[0] : wd[1];
  if (in > INT_MAX / 4 || out > INT_MAX / 4) L.unsupported(n, "weight " + dims_text(wd));
  const int64_t rows = L.value(x).numel() / in;
  LinearLayer layer{L, {static_cast<int>(in), static_cast<int>(out)}, {}, {}, rows, w, bias, turned, alpha, beta};
  layer.density = measure_density(layer.shape, layer.weights(), turned);
  layer.e.act = fused_activation(n);
  const Residual r = split_residual(L, residual, out_dims, layer.e);
  StepInfo info;
  info.in = L.dims(x);
  info.weight = wd;
  info.n_weights = in * out;
  info.nnz = layer.density.nnz;
  info.macs = product({rows, in, out});
  const auto offered = ways_of(L, layer, 1);
  if (offered.empty()) L.unsupported(n, "no kernel covers this layer");
  const auto chosen = choose(L, n, layer, offered, linear_reason(offered, layer.shape, layer.density));
  const int y = r.added >= 0 ? L.temp(DType::kFloat, out_dims) : L.out(n, 0, DType::kFloat, out_dims);
  emit_layer(L, n, layer, chosen, x, r.fused, y, info);
  add_residual(L, n, r, y);
}

// Adds a residual and an activation behind a step that could not fuse them.
void finish(Lowering& L, const Node& n, int y, int residual, const Dims& out_dims) {
  const Activation act = fused_activation(n);
  if (residual >= 0) {
    const int z = L.out(n, 0, DType::kFloat, broadcast_dims(L, n, y, residual));
    lower_add(L, n, y, residual, z, act);
  } else {
    const int z = L.out(n, 0, DType::kFloat, out_dims);
    lower_activation(L, n, y, z, act);
  }
}

}  // namespace

// Gemm: Y = alpha * A' * B' + beta * C. A fused node has inputs A, B, C or "", residual.
void lower_gemm(Lowering& L, const Node& n) {
  const int a = L.in_f32(n, 0), b = L.in_f32(n, 1);
  const int c = L.has(n, 2) ? L.in_f32(n, 2) : -1;
  const int residual = L.has(n, 3) ? L.in_f32(n, 3) : -1;
  const bool ta = attr_i(n, "transA", 0) != 0, tb = attr_i(n, "transB", 0) != 0;
  const float alpha = attr_f(n, "alpha", 1.0f), beta = attr_f(n, "beta", 1.0f);
  const Dims ad = L.dims(a), bd = L.dims(b);
  if (ad.size() != 2 || bd.size() != 2)
    L.invalid(n, "operands " + dims_text(ad) + " and " + dims_text(bd) + " are not matrices");
  const int64_t m = ta ? ad[1] : ad[0], k = ta ? ad[0] : ad[1], out = tb ? bd[0] : bd[1];
  if ((tb ? bd[1] : bd[0]) != k) L.invalid(n, "shapes " + dims_text(ad) + " and " + dims_text(bd) + " do not multiply");
  const Dims out_dims{m, out};
  if (c >= 0) {
    const Dims sum = broadcast_dims(L, n, c, c);
    const bool fits = L.rank(c) <= 2;
    Dims cd(2 - std::min<size_t>(2, sum.size()), 1);
    cd.insert(cd.end(), sum.begin(), sum.end());
    if (!fits || (cd[0] != 1 && cd[0] != m) || (cd[1] != 1 && cd[1] != out))
      L.invalid(n, "C " + dims_text(sum) + " does not broadcast to " + dims_text(out_dims));
  }
  const bool row_bias = c < 0 || (L.value(c).constant &&
                                  (L.value(c).numel() == 1 || (L.value(c).numel() == out && L.dims(c).back() == out)));
  if (L.value(b).constant && !ta && row_bias && !L.is_empty({m, k, out}))
    return linear(L, n, a, b, tb, alpha, c, beta, residual, out_dims);
  // General form: product, scaled, plus beta * C.
  MatMul p;
  p.m = m, p.n = out, p.k = k;
  p.a_row = ta ? 1 : ad[1], p.a_col = ta ? ad[1] : 1;
  p.b_row = tb ? 1 : bd[1], p.b_col = tb ? bd[1] : 1;
  p.alpha = alpha;
  int y = L.temp(DType::kFloat, out_dims);
  emit_matmul(L, n, p, a, b, y);
  if (c >= 0) {
    int scaled = c;
    if (beta != 1.0f) {
      scaled = L.temp(DType::kFloat, L.dims(c));
      L.emit(n, ScaleStep{beta, L.value(c).numel(), c, scaled}, {c}, {scaled}, named("scale_f32_ref"));
    }
    const int z = L.temp(DType::kFloat, out_dims);
    lower_add(L, n, y, scaled, z, Activation::none());
    y = z;
  }
  finish(L, n, y, residual, out_dims);
}

// MatMul of any rank. A fused node has inputs A, B, bias or "", residual.
void lower_matmul(Lowering& L, const Node& n) {
  const int a = L.in_f32(n, 0), b = L.in_f32(n, 1);
  const int bias = L.has(n, 2) ? L.in_f32(n, 2) : -1;
  const int residual = L.has(n, 3) ? L.in_f32(n, 3) : -1;
  Dims ad = L.dims(a), bd = L.dims(b);
  if (ad.empty() || bd.empty()) L.invalid(n, "a scalar operand");
  const bool vector_a = ad.size() == 1, vector_b = bd.size() == 1;
  if (vector_a) ad.insert(ad.begin(), 1);
  if (vector_b) bd.push_back(1);
  const int64_t m = ad[ad.size() - 2], k = ad.back(), out = bd.back();
  if (bd[bd.size() - 2] != k)
    L.invalid(n, "shapes " + dims_text(L.dims(a)) + " and " + dims_text(L.dims(b)) + " do not multiply");
  const size_t rank = std::max(ad.size(), bd.size());
  ad.insert(ad.begin(), rank - ad.size(), 1);
  bd.insert(bd.begin(), rank - bd.size(), 1);
  MatMul p;
  p.m = m, p.n = out, p.k = k;
  p.a_row = k, p.a_col = 1, p.b_row = out, p.b_col = 1;
  p.rank = static_cast<int>(rank) - 2;
  Dims out_dims;
  int64_t sa = m * k, sb = k * out;
  for (int i = p.rank - 1; i >= 0; --i) {
    const auto u = static_cast<size_t>(i);
    if (ad[u] != bd[u] && ad[u] != 1 && bd[u] != 1)
      L.invalid(n, "shapes " + dims_text(L.dims(a)) + " and " + dims_text(L.dims(b)) + " do not broadcast");
    p.dims[i] = ad[u] == 1 ? bd[u] : ad[u];
    p.a_batch[i] = ad[u] == 1 ? 0 : sa;
    p.b_batch[i] = bd[u] == 1 ? 0 : sb;
    sa *= ad[u], sb *= bd[u];
    out_dims.insert(out_dims.begin(), p.dims[i]);
  }
  if (!vector_a) out_dims.push_back(m);
  if (!vector_b) out_dims.push_back(out);
  if (L.value(b).constant && L.rank(b) == 2 && k > 0 && !L.is_empty(out_dims)) {
    return linear(L, n, a, b, false, 1.0f, bias, 1.0f, residual, out_dims);
  }
  if (bias < 0 && residual < 0 && !has_activation(fused_activation(n))) {
    const int y = L.out(n, 0, DType::kFloat, out_dims);
    return emit_matmul(L, n, p, a, b, y);
  }
  int y = L.temp(DType::kFloat, out_dims);
  emit_matmul(L, n, p, a, b, y);
  if (bias >= 0) {
    const int z = L.temp(DType::kFloat, broadcast_dims(L, n, y, bias));
    lower_add(L, n, y, bias, z, Activation::none());
    y = z;
  }
  finish(L, n, y, residual, L.dims(y));
}

}  // namespace secateur
