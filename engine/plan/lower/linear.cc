// Gemm and MatMul. With a constant right operand: a linear kernel, dense or sparse; else a product of two activations.
#include <algorithm>
#include <climits>

#include "kernels/generic/generic.h"
#include "kernels/linear/linear.h"
#include "kernels/matmul/matmul.h"
#include "plan/lower/choose.h"
#include "plan/lower/handlers.h"
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

// x [rows..., in] with a constant weight; `transposed`: the weight is stored [out][in] already.
// None of them is without elements. bias: id of a constant [out] or -1. residual: any shape or -1.
void linear(Lowering& L, const Node& n, int x, int w, bool transposed, float alpha, int bias, float beta, int residual,
            const Dims& out_dims) {
  const Dims wd = L.dims(w);
  const int64_t in = transposed ? wd[1] : wd[0], out = transposed ? wd[0] : wd[1];
  if (in > INT_MAX / 4 || out > INT_MAX / 4) L.unsupported(n, "weight " + dims_text(wd));
  const int64_t rows = L.value(x).numel() / in;
  const auto* weights = reinterpret_cast<const float*>(L.value(w).constant);

  StepInfo info;
  info.in = L.dims(x);
  info.weight = wd;
  info.n_weights = in * out;
  const LinearShape shape{static_cast<int>(in), static_cast<int>(out)};
  const LinearDensity density = measure_density(shape, weights, transposed);
  info.nnz = density.nnz;
  info.macs = product({rows, in, out});
  Epilogue e;
  e.act = fused_activation(n);
  const bool broadcast_residual = residual >= 0 && L.dims(residual) != out_dims;
  e.residual = residual >= 0 && !broadcast_residual;
  const Activation after = e.act;
  if (broadcast_residual) e.act = Activation::none();

  const auto ways = [&](int) { return linear_candidates(L.isa(), shape, rows, density, L.allow_sparse()); };
  const auto offered = ways(1);
  if (offered.empty()) L.unsupported(n, "no kernel covers this layer");
  const auto pack = [&](const LinearCandidate& c) {
    std::vector<float> by_row, b;
    const float* rows_first = weights;
    if (!transposed || alpha != 1.0f) {
      by_row.resize(static_cast<size_t>(in * out));
      for (int64_t o = 0; o < out; ++o)
        for (int64_t i = 0; i < in; ++i)
          by_row[static_cast<size_t>(o * in + i)] = alpha * (transposed ? weights[o * in + i] : weights[i * out + o]);
      rows_first = by_row.data();
    }
    const float* bias_data = nullptr;
    if (bias >= 0) {
      const auto* c = reinterpret_cast<const float*>(L.value(bias).constant);
      const bool scalar = L.value(bias).numel() == 1;
      b.resize(static_cast<size_t>(out));
      for (int64_t o = 0; o < out; ++o) b[static_cast<size_t>(o)] = beta * c[scalar ? 0 : o];
      if (!all_zero(b.data(), b.size())) bias_data = b.data();
    }
    return c.kernel->pack(*c.kernel, shape, e, rows_first, bias_data, rows);
  };
  const size_t y_bytes = static_cast<size_t>(rows * out) * 4;
  const auto choice = choose<PackedLinear>(
      L, n,
      {"linear/" + std::to_string(in) + "," + std::to_string(out) + "/" + std::to_string(transposed) + "/" + std::to_string(alpha) +
           "/" + std::to_string(beta) + "/" + (rows < kLinearManyRows ? "few/" : "many/") + epilogue_key(e),
       {w, bias}, rows, 1, linear_reason(offered, shape, density), [&] { return pattern_hash(weights, in * out); }},
      offered, ways, pack, [&](auto p, int tx, int tr, int ty, int ts) { return LinearStep{std::move(p), rows, tx, tr, ty, ts}; },
      [&](const PackedLinear& p) {
        return Tuner::Memory{static_cast<size_t>(rows * in) * 4, y_bytes, e.residual ? y_bytes : 0, p.scratch_bytes(rows, L.threads())};
      });
  const auto& packed = choice.packed;
  const int y = broadcast_residual ? L.temp(DType::kFloat, out_dims) : L.out(n, 0, DType::kFloat, out_dims);
  const size_t bytes = packed->scratch_bytes(rows, L.threads());
  const int scratch = bytes ? L.scratch(bytes) : -1;
  info.kernel = choice.way.kernel->name;
  info.predicted_us = choice.way.predicted_us;
  info.why = choice.why;
  if (!packed->note.empty()) info.why += (info.why.empty() ? "" : "; ") + packed->note;
  info.packed_bytes = static_cast<int64_t>(packed->packed_bytes);
  L.emit(n, LinearStep{packed, rows, x, e.residual ? residual : -1, y, scratch}, {x, e.residual ? residual : -1, scratch},
         {y, scratch}, info);
  if (broadcast_residual) {
    const int final_y = L.out(n, 0, DType::kFloat, broadcast_dims(L, n, y, residual));
    lower_add(L, n, y, residual, final_y, after);
  }
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
  if (ad.size() != 2 || bd.size() != 2) L.invalid(n, "operands " + dims_text(ad) + " and " + dims_text(bd) + " are not matrices");
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
  const bool row_bias = c < 0 || (L.value(c).constant && (L.value(c).numel() == 1 ||
                        (L.value(c).numel() == out && L.dims(c).back() == out)));
  if (L.value(b).constant && !ta && row_bias && !L.is_empty({m, k, out})) return linear(L, n, a, b, tb, alpha, c, beta, residual, out_dims);
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
  if (bd[bd.size() - 2] != k) L.invalid(n, "shapes " + dims_text(L.dims(a)) + " and " + dims_text(L.dims(b)) + " do not multiply");
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
