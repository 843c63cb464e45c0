// Borders of the integer layers, sums, pools, reshapes.
#include "kernels/quads/quads.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cmath>
#include <cstdio>

#include "plan/lower/handlers.h"
#include "plan/lower/move_steps.h"
#include "plan/lower/quads.h"
#include "plan/lower/window.h"

namespace secateur {
namespace {

StepInfo named(const char* kernel, const char* op) {
  StepInfo info;
  info.kernel = kernel;
  info.op = op;
  return info;
}

struct PackStep {
  QuadsShape s;
  uint8_t flip;
  bool pack;
  int x, y;
  void run(const Exec& e) const noexcept {
    (pack ? quads_pack : quads_unpack)(s, static_cast<const uint8_t*>(e.ptr[x]), static_cast<uint8_t*>(e.ptr[y]), flip);
  }
};

struct TurnStep {
  void (*fn)(int64_t, int64_t, const uint8_t*, uint8_t*);
  int64_t rows, words;
  uint8_t flip;
  int x, y;
  void run(const Exec& e) const noexcept {
    auto* to = static_cast<uint8_t*>(e.ptr[y]);
    fn(rows, words, static_cast<const uint8_t*>(e.ptr[x]), to);
    const uint8_t bit = flip;  // `to` may be anybody's bytes, this object's too, and then nothing stays in a register
    const int64_t n = bit ? 4 * rows * words : 0;
    for (int64_t i = 0; i < n; ++i) to[i] ^= bit;
  }
};

struct DequantizeStep {
  void (*fn)(const DequantizeArgs&);
  DequantizeArgs args;
  int x, y;
  void run(const Exec& e) const noexcept {
    DequantizeArgs now = args;
    now.x = static_cast<const uint8_t*>(e.ptr[x]);
    now.y = e.f32_out(y);
    fn(now);
  }
};

struct QuantizeStep {
  void (*fn)(const QuantizeArgs&);
  QuantizeArgs args;
  int x, y;
  void run(const Exec& e) const noexcept {
    QuantizeArgs now = args;
    now.x = e.f32(x);
    now.y = static_cast<uint8_t*>(e.ptr[y]);
    fn(now);
  }
};

struct AddStep {
  void (*fn)(const QAddArgs&);
  QAddArgs args;
  int a, b, y;
  void run(const Exec& e) const noexcept {
    QAddArgs now = args;
    now.x0 = static_cast<const uint8_t*>(e.ptr[a]);
    now.x1 = static_cast<const uint8_t*>(e.ptr[b]);
    now.y = static_cast<uint8_t*>(e.ptr[y]);
    fn(now);
  }
};

struct MaxPoolStep {
  void (*fn)(const QPoolArgs&);
  QPoolArgs args;
  int x, y;
  void run(const Exec& e) const noexcept {
    QPoolArgs now = args;
    now.x = static_cast<const uint8_t*>(e.ptr[x]);
    now.y = static_cast<uint8_t*>(e.ptr[y]);
    const double us =
        double(now.planes) * now.out_h * now.out_w * now.kernel_h * now.kernel_w / 4000;  // measured on Zen 4
    if (!e.threads || us <= kSerialMicroseconds) return fn(now);
    const int64_t tasks = std::min<int64_t>(now.planes, e.threads->size());
    e.threads->parallel(tasks, [&](int64_t index, int) {
      const int64_t first = now.planes * index / tasks;
      QPoolArgs part = now;
      part.planes = now.planes * (index + 1) / tasks - first;
      part.x += first * now.in_h * now.in_w * 4;
      part.y += first * now.out_h * now.out_w * 4;
      fn(part);
    });
  }
};

struct AverageStep {
  QAverageArgs args;
  int x, y;
  void run(const Exec& e) const noexcept {
    QAverageArgs now = args;
    now.p.x = static_cast<const uint8_t*>(e.ptr[x]);
    now.p.y = static_cast<uint8_t*>(e.ptr[y]);
    quads_average(now);
  }
};

// Eight bits to eight bits.
struct TableStep {
  std::array<uint8_t, 256> table;
  int64_t n;
  int x, y;
  void run(const Exec& e) const noexcept {
    quads_table(n, static_cast<const uint8_t*>(e.ptr[x]), table.data(), static_cast<uint8_t*>(e.ptr[y]));
  }
};

// The window of a pool node; out_dims gets the result's shape.
QPoolArgs pool_args(Lowering& L, const Node& n, const Dims& xd, Dims* out_dims) {
  if (xd.size() != 3 && xd.size() != 4)
    L.unsupported(n, "input " + dims_text(xd) + ", supported: rank 3 (1-D) and 4 (2-D)");
  const Dims spatial(xd.begin() + 2, xd.end());
  const bool global = n.post.op == "GlobalAveragePool";
  const auto kernel = global ? spatial : attr_is(n, "kernel_shape");
  if (kernel.empty()) L.invalid(n, "kernel_shape is missing");
  if (attr_i(n, "storage_order", 0) != 0) L.unsupported(n, "storage_order 1");
  Node plain = n;
  if (global) plain.attrs.clear();
  const Window w = read_window(L, plain, spatial, kernel, !global && attr_i(n, "ceil_mode", 0) != 0);
  QPoolArgs a;
  a.planes = xd[0] * ((xd[1] + 3) / 4);
  a.in_h = static_cast<int>(w.in[0]), a.in_w = static_cast<int>(w.in[1]);
  a.out_h = static_cast<int>(w.out[0]), a.out_w = static_cast<int>(w.out[1]);
  a.kernel_h = static_cast<int>(w.kernel[0]), a.kernel_w = static_cast<int>(w.kernel[1]);
  a.stride_h = static_cast<int>(w.stride[0]), a.stride_w = static_cast<int>(w.stride[1]);
  a.pad_top = static_cast<int>(w.begin[0]), a.pad_left = static_cast<int>(w.begin[1]);
  a.dilation_h = static_cast<int>(w.dilation[0]), a.dilation_w = static_cast<int>(w.dilation[1]);
  *out_dims = {xd[0], xd[1]};
  for (size_t i = 4 - xd.size(); i < 2; ++i) out_dims->push_back(w.out[i]);
  if (L.is_empty(xd) && !L.is_empty(*out_dims)) L.invalid(n, "input " + dims_text(xd) + " without elements");
  return a;
}

}  // namespace

QuadsShape quads_shape(const Dims& dims, ValueLayout layout) {
  QuadsShape s;
  s.rows = layout == ValueLayout::kQuadRows;
  if (s.rows) {
    s.channels = dims.back();
    for (size_t i = 0; i + 1 < dims.size(); ++i) s.pixels *= dims[i];
    return s;
  }
  const size_t axis = dims.size() > 1 ? 1 : 0;
  s.channels = dims[axis];
  for (size_t i = 0; i < dims.size(); ++i)
    if (i != axis) (i < axis ? s.batch : s.pixels) *= dims[i];
  return s;
}

int quantized_in(Lowering& L, const Node& n, size_t i, bool s8) {
  const int id = L.in(n, i);
  if (L.value(id).dtype != (s8 ? DType::kInt8 : DType::kUInt8))
    L.invalid(n, "an input and its zero point have different dtypes");
  return id;
}

// Plain bytes to quads, or back; whole words of rows are turned.
static void move_quads(Lowering& L, const Node& n, const QuadsShape& s, bool pack, int x, int y) {
  const uint8_t flip = flip_of(L.value(x).dtype);
  if (s.rows && s.channels % 4 == 0) {
    const int64_t words = s.channels / 4;
    L.emit(n, TurnStep{quads_kernels(L.int8_isa()).turn, pack ? s.pixels : words, pack ? words : s.pixels, flip, x, y},
           {x}, {y}, named("quads_turn", "Layout"));
    return;
  }
  L.emit(n, PackStep{s, flip, pack, x, y}, {x}, {y}, named(pack ? "quads_pack" : "quads_unpack", "Layout"));
}

int in_layout(Lowering& L, const Node& n, int id, ValueLayout layout) {
  const Value v = L.value(id);
  if (v.layout == layout) return id;
  // One row of features is the same in both layouts.
  if (v.layout != ValueLayout::kPlain && layout != ValueLayout::kPlain &&
      (v.dims.size() == 1 || (v.dims.size() == 2 && v.dims[0] == 1)))
    return id;
  if (v.dims.empty()) L.unsupported(n, "a quantized scalar");
  if (v.dtype != DType::kUInt8 && v.dtype != DType::kInt8)
    L.invalid(n, std::string("an operand has dtype ") + dtype_name(v.dtype));
  if (v.layout != ValueLayout::kPlain && layout != ValueLayout::kPlain)
    return in_layout(L, n, in_layout(L, n, id, ValueLayout::kPlain), layout);
  const bool pack = v.layout == ValueLayout::kPlain;
  const int y = L.temp(v.dtype, v.dims, layout);
  const QuadsShape s = quads_shape(v.dims, pack ? layout : v.layout);
  move_quads(L, n, s, pack, id, y);
  return y;
}

ValueLayout wanted_layout(const Lowering& L, const Node& n, const Dims& dims) {
  using Place = PostOps::Place;
  if (n.post.place == Place::kPlain || dims.empty()) return ValueLayout::kPlain;
  return n.post.place == Place::kQuadRows || dims.size() == 1 ? ValueLayout::kQuadRows : ValueLayout::kQuads;
}

int quads_out(Lowering& L, const Node& n, const Dims& dims, ValueLayout made) {
  const DType t = n.post.s8 ? DType::kInt8 : DType::kUInt8;
  return wanted_layout(L, n, dims) == ValueLayout::kPlain ? L.temp(t, dims, made) : L.out(n, 0, t, dims, made);
}

void finish_quads(Lowering& L, const Node& n, int made) {
  const Dims dims = L.dims(made);
  if (wanted_layout(L, n, dims) != ValueLayout::kPlain) return;
  const DType t = L.value(made).dtype;
  const int y = L.out(n, 0, t, dims);
  move_quads(L, n, quads_shape(dims, L.value(made).layout), false, made, y);
}

int dequantized(Lowering& L, const Node& n, int id, float scale, int64_t zero) {
  const ValueLayout layout = L.value(id).layout == ValueLayout::kPlain ? ValueLayout::kQuadRows : L.value(id).layout;
  const int x = in_layout(L, n, id, layout), y = L.temp(DType::kFloat, L.dims(id));
  DequantizeArgs a;
  a.s = quads_shape(L.dims(id), layout);
  a.scale = scale, a.zero = static_cast<int>(zero);
  L.emit(n, DequantizeStep{quads_kernels(L.int8_isa()).dequantize, a, x, y}, {x}, {y},
         named("dequantize_quads_f32", "DequantizeLinear"));
  return y;
}

void quantized(Lowering& L, const Node& n, int f, int y, float scale, int64_t zero) {
  QuantizeArgs a;
  a.s = quads_shape(L.dims(y), L.value(y).layout);
  a.scale = scale, a.zero = static_cast<int>(zero);
  L.emit(n, QuantizeStep{quads_kernels(L.int8_isa()).quantize, a, f, y}, {f}, {y},
         named("quantize_quads_f32", "QuantizeLinear"));
}

void lower_quad_add(Lowering& L, const Node& n) {
  const int a = quantized_in(L, n, 0, n.post.x.s8), b = quantized_in(L, n, 1, n.post.other.s8);
  const float as = n.post.x.scale, bs = n.post.other.scale, s = n.post.y.scale;
  const int64_t az = n.post.x.zero, bz = n.post.other.zero, zero = n.post.y.zero;
  const int64_t lo = n.post.y.lo, hi = n.post.y.hi;
  const Dims dims = broadcast_dims(L, n, a, b);
  QAddArgs args;
  args.scale0 = as / s, args.scale1 = bs / s;
  const bool bounded = 255.0 * (std::fabs(double(args.scale0)) + std::fabs(double(args.scale1))) < 0x1p30;
  if (dims.empty() || L.dims(a) != L.dims(b) || !bounded) {
    // Shapes that broadcast: as float32, with the bounds as values.
    const int fa = dequantized(L, n, a, as, az), fb = dequantized(L, n, b, bs, bz);
    const int sum = L.temp(DType::kFloat, dims);
    Activation act;
    if (lo > 0) act.lo = static_cast<float>(lo - zero) * s;
    if (hi < 255) act.hi = static_cast<float>(hi - zero) * s;
    lower_add(L, n, fa, fb, sum, act);
    const int y = quads_out(L, n, dims, ValueLayout::kQuads);
    quantized(L, n, sum, y, s, zero);
    return finish_quads(L, n, y);
  }
  ValueLayout layout = L.value(a).layout != ValueLayout::kPlain ? L.value(a).layout : L.value(b).layout;
  if (layout == ValueLayout::kPlain) layout = ValueLayout::kQuads;
  const int x0 = in_layout(L, n, a, layout), x1 = in_layout(L, n, b, layout);
  const int y = quads_out(L, n, dims, layout);
  args.words = static_cast<int64_t>(L.value(y).nbytes() / 4);
  args.zero0 = static_cast<int>(az), args.zero1 = static_cast<int>(bz);
  args.zero = static_cast<int>(zero), args.lo = static_cast<int>(lo), args.hi = static_cast<int>(hi);
  L.emit(n, AddStep{quads_kernels(L.int8_isa()).add, args, x0, x1, y}, {x0, x1}, {y}, named("add_quads_u8", "Add"));
  finish_quads(L, n, y);
}

void lower_quad_max_pool(Lowering& L, const Node& n) {
  const int x = in_layout(L, n, quantized_in(L, n, 0, n.post.x.s8), ValueLayout::kQuads);
  Dims dims;
  const QPoolArgs args = pool_args(L, n, L.dims(x), &dims);
  const int y = quads_out(L, n, dims, ValueLayout::kQuads);
  L.emit(n, MaxPoolStep{quads_kernels(L.int8_isa()).max_pool, args, x, y}, {x}, {y},
         named("max_pool_quads_u8", "MaxPool"));
  finish_quads(L, n, y);
}

void lower_quad_average(Lowering& L, const Node& n) {
  const int x = in_layout(L, n, quantized_in(L, n, 0, n.post.x.s8), ValueLayout::kQuads);
  Dims dims;
  QAverageArgs args;
  args.p = pool_args(L, n, L.dims(x), &dims);
  args.scale = n.post.x.scale / n.post.y.scale;
  args.x_zero = static_cast<int>(n.post.x.zero), args.zero = static_cast<int>(n.post.y.zero);
  args.include_pad = attr_i(n, "count_include_pad", 0) != 0;
  if (double(args.p.kernel_h) * args.p.kernel_w * 255 > INT_MAX) L.unsupported(n, "a window of so many values");
  const int y = quads_out(L, n, dims, ValueLayout::kQuads);
  StepInfo info = named("average_pool_quads_u8");
  info.op = n.post.op;
  L.emit(n, AverageStep{args, x, y}, {x}, {y}, info);
  finish_quads(L, n, y);
}

void lower_quad_table(Lowering& L, const Node& n) {
  const int x = quantized_in(L, n, 0, n.post.x.s8), t = L.in(n, 1);
  const DType type = n.post.s8 ? DType::kInt8 : DType::kUInt8;
  const Dims dims = L.dims(x);
  if (!L.value(t).constant || L.value(t).numel() != 256 || L.value(t).dtype != type)
    L.invalid(n, "a table that is none");
  const ValueLayout wanted = wanted_layout(L, n, dims), own = L.value(x).layout;
  const ValueLayout layout = own == ValueLayout::kPlain ? wanted : own;
  // Plain bytes of s8 are not flipped.
  const bool plain = layout == ValueLayout::kPlain;
  const uint8_t in_flip = plain ? flip_of(L.value(x).dtype) : uint8_t{0}, out_flip = plain ? uint8_t{0} : flip_of(type);
  TableStep s{};
  for (size_t i = 0; i < 256; ++i) s.table[i] = L.value(t).constant[i ^ in_flip] ^ out_flip;
  s.x = in_layout(L, n, x, layout);
  s.y = plain ? L.out(n, 0, type, dims) : quads_out(L, n, dims, layout);
  s.n = static_cast<int64_t>(L.value(s.y).nbytes());
  L.emit(n, s, {s.x}, {s.y}, named("table_u8", "Table"));
  if (!plain) finish_quads(L, n, s.y);
}

// Flatten and Reshape: bytes stay, unless several pixels become features.
void lower_quad_reshape(Lowering& L, const Node& n) {
  const int x = quantized_in(L, n, 0, n.post.x.s8);
  const Value v = L.value(x);
  Node plain = n;
  plain.op = n.post.op;
  plain.domain.clear();
  const bool flat = plain.op == "Flatten" && attr_i(n, "axis", 1) == 1;
  std::optional<std::vector<int64_t>> shape;
  if (plain.op == "Reshape") shape = L.ints(L.in(n, 1));
  // [batch, channels], each as a number or at most one as -1.
  const auto says = [&](size_t axis) { return (*shape)[axis] == v.dims[axis] || (*shape)[axis] == -1; };
  const bool matrix = flat || (shape && shape->size() == 2 && v.dims.size() > 2 && says(0) && says(1) &&
                               (*shape)[0] + (*shape)[1] != -2);
  if (matrix && v.layout == ValueLayout::kQuads && v.dims.size() > 2 && quads_shape(v.dims, v.layout).pixels == 1 &&
      wanted_layout(L, n, {1, 1}) != ValueLayout::kPlain)
    return L.alias(n, 0, x, {v.dims[0], v.dims[1]});
  // As plain bytes; whoever reads them packs them again.
  const int p = in_layout(L, n, x, ValueLayout::kPlain);
  const std::string name = n.outputs[0] + "\x01plain";
  L.name(p, name);
  plain.inputs[0] = name;
  (plain.op == "Flatten" ? lower_flatten : lower_reshape)(L, plain);
}

// Whole quads of channels stand behind each other; else plain bytes are joined.
void lower_quad_concat(Lowering& L, const Node& n) {
  std::vector<int> xs;
  for (size_t k = 0; k < n.inputs.size(); ++k) xs.push_back(quantized_in(L, n, k, n.post.x.s8));
  if (xs.empty()) L.invalid(n, "no inputs");
  Dims dims = L.dims(xs[0]);
  const int64_t axis = attr_i(n, "axis", 0);
  bool quads = dims.size() > 2 && (axis == 1 || axis == 1 - static_cast<int64_t>(dims.size()));
  for (size_t k = 1; k < xs.size() && quads; ++k) {
    const Dims& d = L.dims(xs[k]);
    quads = dims[1] % 4 == 0 && d.size() == dims.size() && d[0] == dims[0] &&
            std::equal(d.begin() + 2, d.end(), dims.begin() + 2);
    if (quads) dims[1] += d[1];
  }
  Node plain = n;
  plain.op = n.post.op;
  plain.domain.clear();
  if (!quads || wanted_layout(L, n, dims) != ValueLayout::kQuads) {
    for (size_t k = 0; k < xs.size(); ++k) {
      plain.inputs[k] = n.outputs[0] + "\x01plain" + std::to_string(k);
      L.name(in_layout(L, n, xs[k], ValueLayout::kPlain), plain.inputs[k]);
    }
    return lower_concat(L, plain);
  }
  for (int& x : xs) x = in_layout(L, n, x, ValueLayout::kQuads);
  const int y = quads_out(L, n, dims, ValueLayout::kQuads);
  // Of one image; there may be none.
  const auto words_of = [](const Dims& d) {
    const QuadsShape q = quads_shape(d, ValueLayout::kQuads);
    return (q.channels + 3) / 4 * q.pixels;
  };
  const int64_t total = words_of(dims);
  AssembleStep s{};
  s.y = y;
  s.xs = xs;
  int64_t at = 0;
  for (const int x : xs) {
    const int64_t words = words_of(L.dims(x));
    Copy c;
    c.rank = 2;
    c.dims[0] = dims[0], c.dims[1] = words;
    c.stride_src[0] = words, c.stride_src[1] = 1;
    c.stride_dst[0] = total, c.stride_dst[1] = 1;
    c.offset_dst = at;
    at += words;
    simplify(c);
    s.copies.push_back(c);
  }
  L.emit(n, std::move(s), xs, {y}, named("concat_quads", "Concat"));
}

}  // namespace secateur
