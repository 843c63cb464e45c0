// QuadConv and QuadLinear -> one call of an int8 kernel, 1x4 blocks or dense as the cost model says.
#include "kernels/qconv/qconv.h"

#include <climits>
#include <cstdio>

#include "plan/lower/handlers.h"
#include "plan/lower/layer.h"
#include "plan/lower/quads.h"
#include "plan/lower/window.h"

namespace secateur {
namespace {

// Zero point and scale of x that come while running; -1: 0 and 1.
struct Dynamic {
  int zero = -1, scale = -1;
  uint8_t flip = 0;  // of the zero point
};

struct QConvStep {
  std::shared_ptr<const PackedQConv> packed;
  int64_t batch;
  int x, residual, y, scratch;
  Dynamic dynamic;
  void run(const Exec& e) const noexcept {
    QConvArgs args;
    args.x = static_cast<const uint8_t*>(e.ptr[x]);
    args.y = e.ptr[y];
    args.residual = residual < 0 ? nullptr : static_cast<const uint8_t*>(e.ptr[residual]);
    args.batch = batch;
    args.scratch = scratch < 0 ? nullptr : e.ptr[scratch];
    args.threads = e.threads;
    args.x_zero =
        static_cast<uint8_t>((dynamic.zero < 0 ? 0 : *static_cast<const uint8_t*>(e.ptr[dynamic.zero])) ^ dynamic.flip);
    args.x_scale = dynamic.scale < 0 ? 1.0f : *e.f32(dynamic.scale);
    packed->kernel->run(*packed, args);
  }
};

uint8_t byte(int64_t v) { return static_cast<uint8_t>(v); }

QEpilogue epilogue(const Node& n) {
  QEpilogue e;
  e.zero = byte(n.post.y.zero), e.lo = byte(n.post.y.lo), e.hi = byte(n.post.y.hi);
  return e;
}

std::string key_of(const ConvShape& s, const QEpilogue& e, uint8_t x_zero) {
  std::string key;
  for (int v : {s.in_c,          s.in_h,        s.in_w,
                s.out_c,         s.kernel_h,    s.kernel_w,
                s.stride_h,      s.stride_w,    s.pad_top,
                s.pad_left,      s.pad_bottom,  s.pad_right,
                s.dilation_h,    s.dilation_w,  s.groups,
                int{e.zero},     int{e.lo},     int{e.hi},
                int{e.residual}, int{e.r_zero}, int{e.sum_zero},
                int{e.sum_lo},   int{e.sum_hi}, int{e.gelu},
                int{e.dynamic},  int{x_zero},   static_cast<int>(e.output)})
    key += "," + std::to_string(v);
  char text[96];
  std::snprintf(text, sizeof text, ",%a,%a,%a", double(e.a), double(e.b), double(e.inverse));
  return key + text;
}

struct QConvLayer {
  using Candidate = QConvCandidate;
  using Packed = PackedQConv;

  const Lowering& L;
  ConvShape s;
  QEpilogue e;
  int64_t batch;
  int x, y;
  QWeights weights;
  std::vector<int> packed_from;  // weight, bias, scale, offset
  std::shared_ptr<const QDensity> density;
  Dynamic dynamic;  // not while the ways are timed: trials have no such values

  std::vector<Candidate> candidates(int tilings) const {
    return qconv_candidates(L.int8_isa(), s, e, *density, L.allow_sparse(), tilings);
  }
  std::unique_ptr<Packed> pack(const Candidate& c) const { return c.kernel->pack(*c.kernel, s, e, weights, c.tile); }
  QConvStep step(std::shared_ptr<const Packed> p, int from, int residual, int to, int scratch) const {
    return {std::move(p), batch, from, residual, to, scratch, dynamic};
  }
  Tuner::Memory memory(const Packed& p) const {
    const size_t to = L.value(y).nbytes();
    return {L.value(x).nbytes(), to, e.residual ? to : 0, p.scratch_bytes(L.threads()), false};
  }
  std::string key() const { return "qconv/" + key_of(s, e, weights.x_zero); }
  std::vector<int> constants() const { return packed_from; }
  std::string kind() const {
    const double read = double(s.in_c) * s.in_h * s.in_w, written = double(s.out_c) * s.conv_h() * s.conv_w();
    return conv_kind(s, density->density(), read + written);
  }
  int64_t rows() const { return batch; }
  double times() const { return static_cast<double>(batch); }
  uint64_t pattern() const {
    return weights.wide ? pattern_hash(weights.wide, s.weight_count()) : pattern_hash(weights.w, s.weight_count());
  }
};

template <class T>
const T* constant_of(const Lowering& L, int id) {
  return id < 0 ? nullptr : reinterpret_cast<const T*>(L.value(id).constant);
}

QConvLayer layer_of(Lowering& L, const Node& n, const ConvShape& s, const QEpilogue& e, int64_t batch, int x, int y) {
  const int w = L.in(n, 1), bias = L.in_or(n, 2), scale = L.in_or(n, 3);
  const bool floats = e.output == QOutput::kF32Rows || e.output == QOutput::kF32;
  const int offset = floats || e.gelu ? L.in_or(n, 4) : -1;
  QConvLayer layer{L, s, e, batch, x, y, {}, {w, bias, scale, offset}, nullptr, {}};
  QWeights& weights = layer.weights;
  if (L.value(w).dtype == DType::kInt16) weights.wide = constant_of<int16_t>(L, w);
  else weights.w = constant_of<int8_t>(L, w);
  weights.bias = constant_of<int32_t>(L, bias);
  if (scale >= 0) weights.scale = constant_of<float>(L, scale);
  if (offset >= 0) weights.offset = constant_of<float>(L, offset);
  weights.x_zero = byte(n.post.x.zero);
  // Walking all weights for their density is dear beside a plan: once per layer.
  layer.density = L.packed<QDensity>("qdensity/" + key_of(s, e, weights.x_zero), layer.packed_from,
                                     [&] { return std::make_shared<const QDensity>(measure_density(s, e, weights)); });
  return layer;
}

// Emits the kernel: x and y are quads (y as e.output says), `residual` too or -1.
void run_kernel(Lowering& L, const Node& n, const ConvShape& s, const QEpilogue& e, int64_t batch, int x, int residual,
                int y, const char* op, const Dynamic& dynamic = {}) {
  if (L.value(y).numel() == 0) return;
  if (L.value(x).numel() == 0) L.unsupported(n, "input " + dims_text(L.dims(x)) + " without elements");
  QConvLayer layer = layer_of(L, n, s, e, batch, x, y);
  const auto offered = ways_of(L, layer, 1);
  const auto chosen = choose(L, n, layer, offered, qconv_reason(offered, s, *layer.density));
  layer.dynamic = dynamic;
  StepInfo info;
  info.op = op;
  info.in = L.dims(x);
  info.weight = L.dims(layer.packed_from[0]);
  info.n_weights = layer.density->weights;
  info.nnz = layer.density->nnz;
  info.macs = product({batch, s.weight_count(), s.conv_h(), s.conv_w()});
  if (chosen.packed->kernel->family == QConvFamily::kReference)
    L.plain_loops(n, static_cast<double>(info.macs), chosen.why);
  std::string notes = residual >= 0 ? "; residual fused" : "";
  if (e.gelu) notes += "; GELU fused";
  if (dynamic.zero >= 0) notes += "; zero point of the input comes while running";
  emit_layer(L, n, layer, chosen, x, residual, y, info, notes, {dynamic.zero, dynamic.scale});
}

// The input of a layer, in `layout`.
int quads_in(Lowering& L, const Node& n, ValueLayout layout) {
  return in_layout(L, n, n.post.dynamic ? L.in(n, 0) : quantized_in(L, n, 0, n.post.x.s8), layout);
}

// What comes while running, of a layer whose input is x.
Dynamic dynamic_of(Lowering& L, const Node& n, int x) {
  if (!n.post.dynamic) return {};
  const Dynamic d{L.in_or(n, 5), L.in_or(n, 6), flip_of(L.value(x).dtype)};
  if (d.zero >= 0 && (L.value(d.zero).dtype != L.value(x).dtype || L.value(d.zero).numel() != 1))
    L.invalid(n, "a zero point " + dims_text(L.dims(d.zero)) + " of " + dtype_name(L.value(d.zero).dtype) +
                     " for an input of " + dtype_name(L.value(x).dtype));
  if (d.scale >= 0 && (L.value(d.scale).dtype != DType::kFloat || L.value(d.scale).numel() != 1))
    L.invalid(n, "a scale " + dims_text(L.dims(d.scale)) + " of " + dtype_name(L.value(d.scale).dtype));
  return d;
}

// The result of a layer that leaves quads: int32 sums or float32.
int plain_out(Lowering& L, const Node& n, const Dims& dims) {
  return L.out(n, 0, n.post.result == PostOps::Result::kSums ? DType::kInt32 : DType::kFloat, dims);
}

}  // namespace

void lower_quad_conv(Lowering& L, const Node& n) {
  const int x = quads_in(L, n, ValueLayout::kQuads), w = L.in(n, 1);
  const Dims xd = L.dims(x), wd = L.dims(w);
  const ConvShape s = read_conv_shape(L, n, xd, wd, 4);
  Dims out{xd[0], wd[0]};
  if (xd.size() == 4) out.push_back(s.conv_h());
  out.push_back(s.conv_w());
  QEpilogue e = epilogue(n);
  const bool raw = n.post.result == PostOps::Result::kSums;
  if (n.post.result != PostOps::Result::kBytes) {
    e.output = raw ? QOutput::kI32 : QOutput::kF32;
    e.dynamic = n.post.dynamic;
    const int y = plain_out(L, n, out);
    if (L.value(y).numel() == 0) return;
    return run_kernel(L, n, s, e, xd[0], x, -1, y, raw ? "ConvInteger" : "Conv", dynamic_of(L, n, x));
  }
  int residual = L.in_or(n, 4) < 0 ? -1 : quantized_in(L, n, 4, n.post.other.s8);
  if (residual < 0 || L.dims(residual) == out) {
    if (residual >= 0) {
      residual = in_layout(L, n, residual, ValueLayout::kQuads);
      const Requantized& sum = n.post.sum;
      e.residual = true;
      e.a = n.post.y.scale / sum.scale, e.b = n.post.other.scale / sum.scale;
      e.r_zero = byte(n.post.other.zero), e.sum_zero = byte(sum.zero);
      e.sum_lo = byte(sum.lo), e.sum_hi = byte(sum.hi);
    }
    const int y = quads_out(L, n, out, ValueLayout::kQuads);
    run_kernel(L, n, s, e, xd[0], x, residual, y, "Conv");
    return finish_quads(L, n, y);
  }
  // A residual of another shape broadcasts: a sum of its own.
  const std::string name = n.outputs[0] + "\x01" + "conv";
  const int y = L.temp(DType::kUInt8, out, ValueLayout::kQuads);
  L.name(y, name);
  run_kernel(L, n, s, e, xd[0], x, -1, y, "Conv");
  Node sum;
  sum.name = n.name;
  sum.op = "QuadAdd";
  sum.inputs = {name, n.inputs[4]};
  sum.outputs = n.outputs;
  sum.post = from_layer(n.post);
  sum.post.x.scale = n.post.y.scale, sum.post.x.zero = n.post.y.zero;
  sum.post.other = n.post.other;
  sum.post.y = n.post.sum;
  sum.post.place = n.post.place, sum.post.s8 = n.post.s8;
  lower_quad_add(L, sum);
}

void lower_quad_linear(Lowering& L, const Node& n) {
  const int x = quads_in(L, n, ValueLayout::kQuadRows), w = L.in(n, 1);
  const Dims xd = L.dims(x), wd = L.dims(w);
  if (xd.empty() || xd.back() != wd[1])
    L.invalid(n, "shapes " + dims_text(xd) + " and " + dims_text(wd) + " do not multiply");
  Dims out = xd;
  out.back() = wd[0];
  const int64_t rows = wd[1] == 0 ? 0 : L.value(x).numel() / wd[1];
  if (double(rows) * (double(wd[0]) + double(wd[1]) + 6) > INT_MAX / 2)
    L.unsupported(n, "a matrix of more than 2^30 values");
  // The rows are the pixels of one image.
  ConvShape s;
  s.in_c = to_int(L, n, wd[1]), s.out_c = to_int(L, n, wd[0]), s.in_w = to_int(L, n, rows);
  QEpilogue e = epilogue(n);
  const bool raw = n.post.result == PostOps::Result::kSums, floats = n.post.result == PostOps::Result::kFloat;
  if (floats) e.output = QOutput::kF32Rows;
  if (raw) e.output = QOutput::kI32Rows;
  e.dynamic = n.post.dynamic;
  e.gelu = n.post.gelu;
  if (e.gelu) e.inverse = 1.0f / n.post.y.scale;
  const bool plain = raw || floats;
  const int y = plain ? plain_out(L, n, out) : quads_out(L, n, out, ValueLayout::kQuadRows);
  if (rows > 0) run_kernel(L, n, s, e, 1, x, -1, y, raw ? "MatMulInteger" : "Gemm", dynamic_of(L, n, x));
  if (!plain) finish_quads(L, n, y);
}

// Rewritten by expand_qoperators() when a model is loaded; other readers of the graph do not run it.
void lower_expanded(Lowering& L, const Node& n) { L.unsupported(n, "it is only read in a session"); }

}  // namespace secateur
