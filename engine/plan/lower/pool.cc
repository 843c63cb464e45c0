// MaxPool, AveragePool, GlobalAveragePool, GlobalMaxPool.
#include <climits>

#include "kernels/pool/pool.h"
#include "kernels/reduce/reduce.h"
#include "plan/lower/handlers.h"
#include "plan/lower/window.h"

namespace secateur {
namespace {

struct PoolStep {
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

struct GlobalMaxStep {
  Reduce p;
  int x, y;
  void run(const Exec& e) const noexcept { reduce_f32_ref(p, e.f32(x), e.f32_out(y)); }
};

StepInfo named(const char* kernel) {
  StepInfo info;
  info.kernel = kernel;
  info.anywhere = true;
  return info;
}

}  // namespace

void lower_max_pool_2x2(Lowering& L, const Node& n, int x, int y) {
  const Dims& xd = L.dims(x);
  PoolArgs a;
  a.planes = xd[0] * xd[1];
  a.in_h = static_cast<int>(xd[2]), a.in_w = static_cast<int>(xd[3]);
  a.out_h = a.in_h / 2, a.out_w = a.in_w / 2;
  a.kernel_h = a.kernel_w = a.stride_h = a.stride_w = 2;
  StepInfo info = named("max_pool_f32");
  info.op = "MaxPool";
  L.emit(n, PoolStep{pool_kernels(L.isa()).max, a, x, y}, {x}, {y}, info);
}

void lower_pool(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0);
  const Dims xd = L.dims(x);
  const size_t spatial = xd.size() - 2;
  if (xd.size() != 3 && xd.size() != 4)
    L.unsupported(n, "input " + dims_text(xd) + ", supported: rank 3 (1-D) and 4 (2-D)");
  const bool is_max = n.op == "MaxPool";
  if (is_max && n.outputs.size() > 1 && !n.outputs[1].empty()) L.unsupported(n, "the Indices output");
  if (attr_i(n, "storage_order", 0) != 0) L.unsupported(n, "storage_order 1");
  const auto kernel = attr_is(n, "kernel_shape");
  if (kernel.empty()) L.invalid(n, "kernel_shape is missing");
  const Window w = read_window(L, n, Dims(xd.begin() + 2, xd.end()), kernel, attr_i(n, "ceil_mode", 0) != 0);
  PoolArgs a;
  a.planes = xd[0] * xd[1];
  a.in_h = static_cast<int>(w.in[0]), a.in_w = static_cast<int>(w.in[1]);
  a.out_h = static_cast<int>(w.out[0]), a.out_w = static_cast<int>(w.out[1]);
  a.kernel_h = static_cast<int>(w.kernel[0]), a.kernel_w = static_cast<int>(w.kernel[1]);
  a.stride_h = static_cast<int>(w.stride[0]), a.stride_w = static_cast<int>(w.stride[1]);
  a.dilation_h = static_cast<int>(w.dilation[0]), a.dilation_w = static_cast<int>(w.dilation[1]);
  a.pad_top = static_cast<int>(w.begin[0]), a.pad_left = static_cast<int>(w.begin[1]);
  a.pad_bottom = static_cast<int>(w.end[0]), a.pad_right = static_cast<int>(w.end[1]);
  a.count_include_pad = attr_i(n, "count_include_pad", 0) != 0;
  Dims out{xd[0], xd[1]};
  for (size_t i = 2 - spatial; i < 2; ++i) out.push_back(w.out[i]);
  if (L.value(x).numel() == 0 && !L.is_empty(out)) L.invalid(n, "input " + dims_text(xd) + " without elements");
  const int y = L.out(n, 0, DType::kFloat, out);
  const PoolKernels& k = pool_kernels(L.isa());
  StepInfo info = named(is_max ? "max_pool_f32" : "average_pool_f32");
  info.work = static_cast<double>(product({L.value(y).numel(), w.kernel[0], w.kernel[1]}));
  L.emit(n, PoolStep{is_max ? k.max : k.average, a, x, y}, {x}, {y}, info);
}

void lower_global_pool(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0);
  const Dims xd = L.dims(x);
  if (xd.size() < 3) L.invalid(n, "input " + dims_text(xd) + " has no spatial axes");
  Dims out{xd[0], xd[1]};
  int64_t cells = 1;
  for (size_t i = 2; i < xd.size(); ++i) {
    out.push_back(1);
    cells *= xd[i];
  }
  if (cells > INT_MAX || (cells == 0 && !L.is_empty(out))) L.unsupported(n, "input " + dims_text(xd));
  const int y = L.out(n, 0, DType::kFloat, out);
  if (n.op == "GlobalMaxPool") {
    GlobalMaxStep s{{}, x, y};
    s.p.op = ReduceOp::kMax;
    s.p.rank = 2;
    s.p.dims[0] = xd[0] * xd[1], s.p.dims[1] = cells;
    s.p.reduce[1] = true;
    return L.emit(n, s, {x}, {y}, named("reduce_f32_ref"));
  }
  PoolArgs a;
  a.planes = xd[0] * xd[1];
  a.in_h = 1, a.in_w = static_cast<int>(cells);
  L.emit(n, PoolStep{pool_kernels(L.isa()).global_average, a, x, y}, {x}, {y}, named("global_average_pool_f32"));
}

}  // namespace secateur
