// DynamicQuantizeLinear, and those ConvInteger and MatMulInteger that fuse_quantized() left: both operands come while
// running.
#include "kernels/qinteger/qinteger.h"

#include <cstring>

#include "kernels/quads/quads.h"

#include "plan/lower/handlers.h"
#include "plan/lower/quads.h"
#include "plan/lower/window.h"

namespace secateur {
namespace {

// An operand: value, zero point or -1, and what does not change.
struct Operand {
  int id = -1, zero = -1;
  ByteTensor t;
  ByteTensor at(const Exec& e) const {
    ByteTensor now = t;
    now.data = e.ptr[id];
    now.zero = zero < 0 ? nullptr : e.ptr[zero];
    return now;
  }
};

struct MatMulIntegerStep {
  MatMul p;
  Operand a, b;
  int y;
  void run(const Exec& e) const noexcept { matmul_integer_ref(p, a.at(e), b.at(e), static_cast<int32_t*>(e.ptr[y])); }
};

struct ConvIntegerStep {
  ConvShape s;
  int64_t batch;
  Operand x, w;
  int y;
  void run(const Exec& e) const noexcept {
    conv_integer_ref(s, batch, x.at(e), w.at(e), static_cast<int32_t*>(e.ptr[y]));
  }
};

// Range, grid and bytes of x; in quads where integer layers read them, else in order.
struct DynamicQuantizeStep {
  const QuadsKernels* kernels;
  QuadsShape shape;
  bool quads;
  int64_t n, bytes;
  int x, y, scale, zero;
  bool relu = false;  // x counts as min(max(x, 0), most)
  float most = 0;
  void run(const Exec& e) const noexcept {
    auto* zero_point = static_cast<uint8_t*>(e.ptr[zero]);
    auto* to = static_cast<uint8_t*>(e.ptr[y]);
    float lo, hi;
    kernels->range(n, e.f32(x), &lo, &hi);
    if (relu) lo = 0, hi = hi < most ? hi : most;
    dynamic_grid(lo, hi, e.f32_out(scale), zero_point);
    const float step = e.f32(scale)[0];
    if (!(step > 0)) {
      std::memset(to, 0, static_cast<size_t>(bytes));
    } else if (quads) {
      kernels->quantize(QuantizeArgs{shape, e.f32(x), to, step, *zero_point});
    } else {
      kernels->quantize_run(RunArgs{n, e.f32(x), to, step, *zero_point, 0});
    }
  }
};

// Why no kernel takes n.
std::string why_plain(const Node& n) {
  return !n.post.why.empty() ? n.post.why : "an operand that comes while running is no activation of 8 bits";
}

StepInfo named(const Node& n, const char* kernel) {
  StepInfo info;
  info.kernel = kernel;
  info.why = "plain loops: " + why_plain(n);
  return info;
}

// Input `at` with the zero point at `zero_at`, of which there is one or `count`.
Operand operand(Lowering& L, const Node& n, size_t at, size_t zero_at, int64_t count) {
  Operand o;
  o.id = L.in(n, at);
  o.zero = L.in_or(n, zero_at);
  const DType t = L.value(o.id).dtype;
  if (t != DType::kUInt8 && t != DType::kInt8)
    L.unsupported(n, "input " + std::to_string(at) + " has dtype " + dtype_name(t) + ", supported: int8, uint8");
  o.t.s8 = t == DType::kInt8;
  if (o.zero >= 0) {
    o.t.n_zeros = L.value(o.zero).numel();
    if (L.value(o.zero).dtype != t) L.invalid(n, "an input and its zero point have different dtypes");
    if (L.rank(o.zero) > 1 || (o.t.n_zeros != 1 && o.t.n_zeros != count))
      L.unsupported(n, "a zero point " + dims_text(L.dims(o.zero)) + ", supported: a scalar or one axis");
  }
  return o;
}

}  // namespace

void lower_matmul_integer(Lowering& L, const Node& n) {
  Dims ad = L.dims(L.in(n, 0)), bd = L.dims(L.in(n, 1));
  if (ad.empty() || bd.empty()) L.invalid(n, "a scalar operand");
  const bool vector_a = ad.size() == 1, vector_b = bd.size() == 1;
  if (vector_a) ad.insert(ad.begin(), 1);
  if (vector_b) bd.push_back(1);
  MatMul p;
  p.m = ad[ad.size() - 2], p.k = ad.back(), p.n = bd.back();
  if (bd[bd.size() - 2] != p.k) L.invalid(n, "shapes " + dims_text(ad) + " and " + dims_text(bd) + " do not multiply");
  const size_t rank = std::max(ad.size(), bd.size());
  ad.insert(ad.begin(), rank - ad.size(), 1);
  bd.insert(bd.begin(), rank - bd.size(), 1);
  p.a_row = p.k, p.b_row = p.n;
  p.rank = static_cast<int>(rank) - 2;
  Dims out(rank - 2);
  int64_t a_step = p.m * p.k, b_step = p.k * p.n;
  for (size_t i = rank - 2; i-- > 0;) {
    if (ad[i] != bd[i] && ad[i] != 1 && bd[i] != 1)
      L.invalid(n, "shapes " + dims_text(ad) + " and " + dims_text(bd) + " do not broadcast");
    out[i] = p.dims[i] = ad[i] == 1 ? bd[i] : ad[i];
    p.a_batch[i] = ad[i] == 1 ? 0 : a_step;
    p.b_batch[i] = bd[i] == 1 ? 0 : b_step;
    a_step *= ad[i], b_step *= bd[i];
  }
  if (!vector_a) out.push_back(p.m);
  if (!vector_b) out.push_back(p.n);
  const Operand a = operand(L, n, 0, 2, p.m), b = operand(L, n, 1, 3, p.n);
  const int y = L.out(n, 0, DType::kInt32, out);
  StepInfo info = named(n, "matmul_integer_ref");
  info.macs = product({L.value(y).numel(), p.k});
  L.plain_loops(n, static_cast<double>(info.macs), why_plain(n));
  L.emit(n, MatMulIntegerStep{p, a, b, y}, {a.id, a.zero, b.id, b.zero}, {y}, info);
}

void lower_conv_integer(Lowering& L, const Node& n) {
  const Dims xd = L.dims(L.in(n, 0)), wd = L.dims(L.in(n, 1));
  const ConvShape s = read_conv_shape(L, n, xd, wd);
  const Operand x = operand(L, n, 0, 2, 1), w = operand(L, n, 1, 3, wd[0]);
  Dims out{xd[0], wd[0]};
  if (xd.size() == 4) out.push_back(s.conv_h());
  out.push_back(s.conv_w());
  const int y = L.out(n, 0, DType::kInt32, out);
  StepInfo info = named(n, "conv_integer_ref");
  info.macs = product({xd[0], s.weight_count(), s.conv_h(), s.conv_w()});
  L.plain_loops(n, static_cast<double>(info.macs), why_plain(n));
  L.emit(n, ConvIntegerStep{s, xd[0], x, w, y}, {x.id, x.zero, w.id, w.zero}, {y}, info);
}

void lower_dynamic_quantize(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0);
  const ValueLayout layout = wanted_layout(L, n, L.dims(x));
  const int y = L.out(n, 0, DType::kUInt8, L.dims(x), layout), scale = L.out(n, 1, DType::kFloat, {}),
            zero = L.out(n, 2, DType::kUInt8, {});
  DynamicQuantizeStep s{&quads_kernels(L.int8_isa()),
                        {},
                        layout != ValueLayout::kPlain,
                        L.value(x).numel(),
                        0,
                        x,
                        y,
                        scale,
                        zero,
                        false,
                        0};
  if (s.quads) s.shape = quads_shape(L.dims(x), layout);
  s.bytes = static_cast<int64_t>(L.value(y).nbytes());
  s.relu = n.post.most.has_value();
  s.most = n.post.most.value_or(0.0f);
  StepInfo info;
  info.kernel = s.quads ? "dynamic_quantize_quads_f32" : "dynamic_quantize_f32";
  if (s.relu) info.why = "Relu fused";
  L.emit(n, s, {x}, {y, scale, zero}, info);
}

}  // namespace secateur
