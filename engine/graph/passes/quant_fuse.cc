// Layers between DequantizeLinear and QuantizeLinear become integer layers: nodes of the domain "secateur" (passes.h).
// What stays unmatched keeps its nodes and runs in float32.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>

#include "graph/attrs.h"
#include "graph/passes/passes.h"
#include "graph/passes/rewriter.h"

namespace secateur {
namespace {

bool has_input(const Node& n, size_t i) { return i < n.inputs.size() && !n.inputs[i].empty(); }
bool is(const Node& n, const char* op) { return n.domain.empty() && n.op == op; }

// A tensor of bytes, per tensor: value = (q - zero) * scale with q as u8; s8 is shifted by 128.
struct Grid {
  std::string value;
  float scale = 1;
  int64_t zero = 0;
  bool s8 = false;
  bool operator==(const Grid& o) const { return scale == o.scale && zero == o.zero; }
};

class Matcher {
 public:
  explicit Matcher(Graph& graph) : r_(graph) {}
  size_t run();
  void fuse_gelus();
  size_t residuals() const { return residuals_; }

 private:
  std::optional<Grid> grid(const Node& n) const;
  std::optional<Grid> dequantized(const std::string& value) const;
  bool layer(size_t at, size_t layer, const std::string& bias_value, const Grid* y, float lo, float hi);
  bool match(size_t at);
  bool match_float(size_t at);
  bool match_integer(size_t at);
  std::optional<std::pair<size_t, std::string>> biased(int add);
  void fuse_residuals();
  void place();
  void put(size_t at, Node node, const Grid* y) {
    if (y && y->s8) node.attrs["_s8"].value = int64_t{1};
    node.attrs["_layer"] = layer_attr_;
    node.domain = kQuadsDomain;
    r_.replace(at, std::move(node));
    ++count_;
  }

  Rewriter r_;
  Attribute layer_attr_;
  size_t count_ = 0, residuals_ = 0;
};

void set(Node& n, const char* name, int64_t v) { n.attrs[name].value = v; }
void set(Node& n, const char* name, float v) { n.attrs[name].value = v; }

// Scale and zero point of a QuantizeLinear or DequantizeLinear, when constant, one for all and of 8 bits.
std::optional<Grid> Matcher::grid(const Node& n) const {
  if (n.inputs.size() < 2 || attr_i(n, "block_size", 0) != 0) return std::nullopt;
  const Tensor* scale = r_.f32(n.inputs[1]);
  if (!scale || scale->numel() != 1 || scale->dims.size() > 1) return std::nullopt;
  Grid g;
  g.scale = scale->f32()[0];
  if (!(g.scale > 0) || !std::isfinite(g.scale)) return std::nullopt;
  if (has_input(n, 2)) {
    const Tensor* zero = r_.constant(n.inputs[2]);
    if (!zero || zero->numel() != 1) return std::nullopt;
    if (zero->dtype == DType::kUInt8) {
      g.zero = zero->data[0];
    } else if (zero->dtype == DType::kInt8) {
      g.zero = int64_t{static_cast<int8_t>(zero->data[0])} + 128;
      g.s8 = true;
    } else {
      return std::nullopt;
    }
  } else if (attr_i(n, "output_dtype", 0) != 0 || is(n, "DequantizeLinear")) {
    return std::nullopt;  // the type is not said here
  }
  return g;
}

std::optional<Grid> Matcher::dequantized(const std::string& value) const {
  const int maker = r_.producer(value);
  if (maker < 0) return std::nullopt;
  const Node& n = r_.node(static_cast<size_t>(maker));
  if (!is(n, "DequantizeLinear") || !has_input(n, 0) || r_.constant(n.inputs[0])) return std::nullopt;
  auto g = grid(n);
  if (g) g->value = n.inputs[0];
  return g;
}

// The quantized weight behind a value.
struct Weight {
  const Tensor* q = nullptr;
  const Tensor* scale = nullptr;
  int64_t axis = 1;
};
std::optional<Weight> weight_of(const Rewriter& r, const std::string& value, DType dtype) {
  const int maker = r.producer(value);
  if (maker < 0) return std::nullopt;
  const Node& n = r.node(static_cast<size_t>(maker));
  if (!is(n, "DequantizeLinear") || n.inputs.size() < 2 || attr_i(n, "block_size", 0) != 0) return std::nullopt;
  Weight w{r.constant(n.inputs[0]), r.f32(n.inputs[1]), attr_i(n, "axis", 1)};
  if (!w.q || !w.scale || w.q->dtype != dtype || w.scale->dims.size() > 1) return std::nullopt;
  if (has_input(n, 2)) {
    const Tensor* zero = r.constant(n.inputs[2]);
    if (!zero) return std::nullopt;
    for (uint8_t b : zero->data)
      if (b != 0) return std::nullopt;  // other zero points: float32
  }
  return w;
}

// Whether no sum of an output can leave int32, whatever the activations are: |q - zero| <= 255.
bool fits_int32(const Tensor& q, int64_t out, bool rows, const std::vector<int32_t>& bias) {
  const int64_t per_out = q.numel() / out;
  if (per_out < (int64_t{1} << 15)) return true;  // 2^15 * 255 * 128 + 2^30 < 2^31
  const auto* w = reinterpret_cast<const int8_t*>(q.data.data());
  std::vector<int64_t> reach(static_cast<size_t>(out), 0);
  for (int64_t i = 0; i < out * per_out; ++i) reach[static_cast<size_t>(rows ? i / per_out : i % out)] += 255 * std::abs(int{w[i]});
  for (size_t o = 0; o < reach.size(); ++o)
    if (reach[o] + (bias.empty() ? 0 : std::abs(int64_t{bias[o]})) > std::numeric_limits<int32_t>::max()) return false;
  return true;
}

// Conv, Gemm or MatMul at `at_layer` whose last value, y of node `at`, is quantized to *y, or is float32 (linear layers only).
bool Matcher::layer(size_t at, size_t at_layer, const std::string& bias_value, const Grid* y, float lo, float hi) {
  const Node n = r_.node(at_layer);
  const bool conv = is(n, "Conv");
  if (n.inputs.size() < 2 || n.inputs.size() > 3) return false;
  const auto x = dequantized(n.inputs[0]);
  const auto w = weight_of(r_, n.inputs[1], DType::kInt8);
  if (!x || !w || w->q->numel() == 0) return false;
  const std::vector<int64_t>& dims = w->q->dims;
  bool rows = true;  // outputs are the weight's first axis
  if (conv) {
    if (dims.size() != 3 && dims.size() != 4) return false;
  } else {
    if (dims.size() != 2) return false;
    rows = n.op == "Gemm" && attr_i(n, "transB", 0) != 0;
    if (n.op == "Gemm" && (attr_i(n, "transA", 0) != 0 || attr_f(n, "alpha", 1.0f) != 1.0f || attr_f(n, "beta", 1.0f) != 1.0f)) return false;
  }
  const int64_t out = rows ? dims[0] : dims[1];
  const int64_t n_scales = w->scale->numel();
  const int64_t axis = w->axis < 0 ? w->axis + static_cast<int64_t>(dims.size()) : w->axis;
  if (n_scales != 1 && (n_scales != out || axis != (rows ? 0 : 1))) return false;
  std::vector<double> step(static_cast<size_t>(out));  // of the accumulator
  std::vector<float> scale(static_cast<size_t>(out));
  for (size_t o = 0; o < step.size(); ++o) {
    const float s = w->scale->f32()[n_scales == 1 ? 0 : o];
    if (!(s > 0) || !std::isfinite(s)) return false;
    step[o] = static_cast<double>(x->scale * s);  // rounded to float32, as the bias's own scale was
    scale[o] = y ? x->scale * s / y->scale : x->scale * s;
    if (!std::isfinite(scale[o]) || step[o] == 0) return false;
  }
  // The bias in steps of the accumulator; what an exporter wrote as int32 on that grid comes back as it is.
  std::vector<int32_t> bias;
  std::vector<float> offset;  // of a float32 result
  if (!bias_value.empty()) {
    std::vector<double> real;
    if (const auto b = weight_of(r_, bias_value, DType::kInt32)) {
      const int64_t count = b->q->numel(), scales = b->scale->numel();
      if (count != out || (scales != 1 && scales != out)) return false;
      for (int64_t o = 0; o < count; ++o) {
        int32_t v;
        std::memcpy(&v, b->q->data.data() + 4 * o, 4);
        real.push_back(static_cast<double>(v) * static_cast<double>(b->scale->f32()[scales == 1 ? 0 : o]));
      }
    } else if (const Tensor* f = r_.f32(bias_value)) {
      if (f->numel() != out || (!f->dims.empty() && f->dims.back() != out)) return false;
      real.assign(f->f32(), f->f32() + out);
    } else {
      return false;
    }
    if (!y) offset.assign(real.begin(), real.end());
    for (size_t o = 0; y && o < real.size(); ++o) {
      const double exact = real[o] / step[o], v = std::nearbyint(exact);
      if (!(std::fabs(v) < 0x1p30)) return false;
      // A float32 bias off that grid may move the result by a small part of its step, no more.
      if (std::fabs(exact - v) * scale[o] > 1.0 / 32) return false;
      bias.push_back(static_cast<int32_t>(v));
    }
  }
  if (!fits_int32(*w->q, out, rows, bias)) return false;
  Node q;
  q.name = n.name;
  q.op = conv ? "QuadConv" : "QuadLinear";
  if (conv) q.attrs = n.attrs;
  q.outputs = r_.node(at).outputs;
  Tensor t;
  if (rows) {
    t = *w->q;
  } else {
    t.dtype = DType::kInt8;
    t.dims = {dims[1], dims[0]};
    t.data.resize(w->q->data.size());
    for (int64_t i = 0; i < dims[0]; ++i)
      for (int64_t o = 0; o < out; ++o) t.data[static_cast<size_t>(o * dims[0] + i)] = w->q->data[static_cast<size_t>(i * out + o)];
  }
  const std::string stem = n.outputs[0];
  q.inputs = {x->value, r_.add(stem + "/weight", std::move(t)), "", "", ""};
  if (!bias.empty()) {
    Tensor b;
    b.dtype = DType::kInt32;
    b.dims = {out};
    b.data.resize(bias.size() * 4);
    std::memcpy(b.data.data(), bias.data(), b.data.size());
    q.inputs[2] = r_.add(stem + "/bias", std::move(b));
  }
  q.inputs[3] = r_.add_f32(stem + "/scale", {out}, scale);
  set(q, "_x_zero", x->zero), set(q, "_x_s8", int64_t{x->s8});
  if (!y) {
    if (!offset.empty()) q.inputs[4] = r_.add_f32(stem + "/offset", {out}, offset);
    set(q, "_float", int64_t{1});
    put(at, std::move(q), y);
    return true;
  }
  set(q, "_q_scale", y->scale);
  set(q, "_q_zero", y->zero);
  const auto bound = [&](float v, int64_t open) {
    if (std::isinf(v)) return open;
    const double b = std::nearbyint(static_cast<double>(v / y->scale)) + static_cast<double>(y->zero);
    return static_cast<int64_t>(std::fmin(std::fmax(b, 0.0), 255.0));
  };
  set(q, "_lo", bound(lo, 0));
  set(q, "_hi", bound(hi, 255));
  put(at, std::move(q), y);
  return true;
}

// Node `add` adds a bias to a MatMul that nothing else reads: the MatMul and the bias.
std::optional<std::pair<size_t, std::string>> Matcher::biased(int add) {
  const Node& n = r_.node(static_cast<size_t>(add));
  for (size_t side = 0; side < 2 && n.inputs.size() == 2; ++side) {
    const int product = r_.producer(n.inputs[side]);
    if (product < 0 || r_.only_consumer(n.inputs[side]) != add || !is(r_.node(static_cast<size_t>(product)), "MatMul")) continue;
    // A bias of rank 1 is one of features whatever the product's rank.
    const Tensor* f = r_.f32(n.inputs[1 - side]);
    const auto b = weight_of(r_, n.inputs[1 - side], DType::kInt32);
    if ((!f || f->dims.size() != 1) && (!b || b->q->dims.size() != 1)) continue;
    return std::pair(static_cast<size_t>(product), n.inputs[1 - side]);
  }
  return std::nullopt;
}

// Node `at` is a Gemm or MatMul, or adds a bias to one, and its result is not quantized.
bool Matcher::match_float(size_t at) {
  const Node n = r_.node(at);
  constexpr float kOpen = std::numeric_limits<float>::infinity();
  if (r_.dead(at) || n.outputs.empty()) return false;
  if (n.attrs.count("_layer")) layer_attr_ = n.attrs.at("_layer");
  if (is(n, "Add")) {
    const auto m = biased(static_cast<int>(at));
    return m && layer(at, m->first, m->second, nullptr, -kOpen, kOpen);
  }
  if (!is(n, "Gemm") && !is(n, "MatMul")) return false;
  return layer(at, at, has_input(n, 2) ? n.inputs[2] : "", nullptr, -kOpen, kOpen);
}

// Node `at` is a MatMulInteger with u8 activations of one zero point, known or not, and constant s8 weights without one.
bool Matcher::match_integer(size_t at) {
  const Node n = r_.node(at);
  if (r_.dead(at) || n.inputs.size() < 2 || n.outputs.size() != 1) return false;
  const Tensor* w = r_.constant(n.inputs[1]);
  if (!w || w->dtype != DType::kInt8 || w->dims.size() != 2 || w->numel() == 0 || r_.constant(n.inputs[0])) return false;
  if (has_input(n, 3)) {
    const Tensor* zero = r_.constant(n.inputs[3]);
    if (!zero || std::any_of(zero->data.begin(), zero->data.end(), [](uint8_t b) { return b != 0; })) return false;
  }
  if (!has_input(n, 2)) return false;  // the activations' type is not said
  const Tensor* x_zero = r_.constant(n.inputs[2]);
  const int maker = r_.producer(n.inputs[2]);
  const bool dynamic = maker >= 0 && is(r_.node(static_cast<size_t>(maker)), "DynamicQuantizeLinear") &&
                       r_.node(static_cast<size_t>(maker)).outputs.size() == 3 && r_.node(static_cast<size_t>(maker)).outputs[2] == n.inputs[2];
  if (!dynamic && !(x_zero && x_zero->dtype == DType::kUInt8 && x_zero->numel() == 1)) return false;
  const int64_t in = w->dims[0], out = w->dims[1];
  Tensor t, sums;
  t.dtype = DType::kInt8, sums.dtype = DType::kInt32;
  t.dims = {out, in}, sums.dims = {out};
  t.data.resize(w->data.size());
  std::vector<int32_t> sum(static_cast<size_t>(out), 0);
  for (int64_t i = 0; i < in; ++i)
    for (int64_t o = 0; o < out; ++o) {
      const uint8_t b = w->data[static_cast<size_t>(i * out + o)];
      t.data[static_cast<size_t>(o * in + i)] = b;
      sum[static_cast<size_t>(o)] = static_cast<int32_t>(static_cast<uint32_t>(sum[static_cast<size_t>(o)]) + static_cast<uint32_t>(static_cast<int8_t>(b)));
    }
  sums.data.resize(sum.size() * 4);
  std::memcpy(sums.data.data(), sum.data(), sums.data.size());
  Node q;
  q.name = n.name;
  q.op = "QuadLinear";
  q.outputs = n.outputs;
  const std::string stem = n.outputs[0];
  q.inputs = {n.inputs[0], r_.add(stem + "/weight", std::move(t)), "", "", "", n.inputs[2], r_.add(stem + "/sums", std::move(sums))};
  set(q, "_raw", int64_t{1});
  if (n.attrs.count("_layer")) layer_attr_ = n.attrs.at("_layer");
  put(at, std::move(q), nullptr);
  return true;
}

// Node `at` is a QuantizeLinear.
bool Matcher::match(size_t at) {
  const Node& quantize = r_.node(at);
  const auto y = grid(quantize);
  if (!y) return false;
  layer_attr_ = quantize.attrs.count("_layer") ? quantize.attrs.at("_layer") : Attribute{};
  std::string value = quantize.inputs[0];
  float lo = -std::numeric_limits<float>::infinity(), hi = std::numeric_limits<float>::infinity();
  int maker = r_.producer(value);
  if (maker < 0 || r_.only_consumer(value) != static_cast<int>(at)) return false;
  const auto step_up = [&](const std::string& to) {
    const int reader = maker;
    maker = r_.producer(to);
    return maker >= 0 && r_.only_consumer(to) == reader;
  };
  if (const Node& act = r_.node(static_cast<size_t>(maker)); is(act, "Relu") || is(act, "Clip")) {
    if (is(act, "Relu")) {
      lo = 0;
    } else {
      for (size_t k = 1; k <= 2; ++k) {
        if (!has_input(act, k)) continue;
        const Tensor* t = r_.f32(act.inputs[k]);
        if (!t || t->numel() != 1) return false;
        (k == 1 ? lo : hi) = t->f32()[0];
      }
      if (!(lo <= hi)) return false;
    }
    if (!has_input(act, 0) || !step_up(act.inputs[0])) return false;
  }
  const Node n = r_.node(static_cast<size_t>(maker));
  if (n.domain.empty() && n.attrs.count("_layer")) layer_attr_ = n.attrs.at("_layer");
  if (is(n, "Conv") || is(n, "Gemm") || is(n, "MatMul")) return layer(at, static_cast<size_t>(maker), has_input(n, 2) ? n.inputs[2] : "", &*y, lo, hi);
  if (is(n, "Add") && n.inputs.size() == 2) {
    if (const auto m = biased(maker)) return layer(at, m->first, m->second, &*y, lo, hi);
    const auto a = dequantized(n.inputs[0]), b = dequantized(n.inputs[1]);
    if (!a || !b) return false;
    Node q;
    q.name = n.name;
    q.op = "QuadAdd";
    q.inputs = {a->value, b->value};
    q.outputs = quantize.outputs;
    set(q, "_a_scale", a->scale), set(q, "_a_zero", a->zero), set(q, "_a_s8", int64_t{a->s8});
    set(q, "_b_scale", b->scale), set(q, "_b_zero", b->zero), set(q, "_b_s8", int64_t{b->s8});
    set(q, "_scale", y->scale), set(q, "_zero", y->zero);
    const auto bound = [&](float v, int64_t open) {
      if (std::isinf(v)) return open;
      const double s = std::nearbyint(static_cast<double>(v / y->scale)) + static_cast<double>(y->zero);
      return static_cast<int64_t>(std::fmin(std::fmax(s, 0.0), 255.0));
    };
    set(q, "_lo", bound(lo, 0)), set(q, "_hi", bound(hi, 255));
    put(at, std::move(q), &*y);
    return true;
  }
  if (!std::isinf(lo) || !std::isinf(hi) || n.inputs.empty()) return false;
  const auto x = dequantized(n.inputs[0]);
  if (!x) return false;
  const bool average = is(n, "GlobalAveragePool") || (is(n, "AveragePool") && attr_i(n, "count_include_pad", 0) == 0);
  const bool same = is(n, "MaxPool") || is(n, "Flatten") || is(n, "Reshape");
  if (!average && !(same && *x == *y && x->s8 == y->s8)) return false;
  if (n.outputs.size() > 1) return false;
  Node q;
  q.name = n.name;
  q.op = average ? "QuadAverage" : is(n, "MaxPool") ? "QuadMaxPool" : "QuadReshape";
  q.attrs = n.attrs;
  q.attrs["_op"].value = n.op;
  q.inputs = n.inputs;
  q.inputs[0] = x->value;
  q.outputs = quantize.outputs;
  set(q, "_x_scale", x->scale), set(q, "_x_zero", x->zero), set(q, "_x_s8", int64_t{x->s8});
  set(q, "_scale", y->scale), set(q, "_zero", y->zero);
  put(at, std::move(q), &*y);
  return true;
}

// A convolution or linear layer that only a sum reads takes the sum in: it moves down to it, where its other operand exists.
void Matcher::fuse_residuals() {
  for (size_t i = 0; i < r_.size(); ++i) {
    const Node sum = r_.node(i);
    if (r_.dead(i) || sum.domain != kQuadsDomain || sum.op != "QuadAdd") continue;
    int best = -1;
    size_t best_side = 0;
    for (size_t side = 0; side < 2; ++side) {
      const int maker = r_.producer(sum.inputs[side]);
      if (maker <= best || r_.only_consumer(sum.inputs[side]) != static_cast<int>(i)) continue;
      const Node& n = r_.node(static_cast<size_t>(maker));
      if (n.domain != kQuadsDomain || n.op != "QuadConv" || has_input(n, 4)) continue;
      best = maker, best_side = side;
    }
    if (best < 0) continue;
    Node fused = r_.node(static_cast<size_t>(best));
    fused.inputs[4] = sum.inputs[1 - best_side];
    fused.outputs = sum.outputs;
    fused.attrs["_r_scale"] = sum.attrs.at(best_side == 0 ? "_b_scale" : "_a_scale");
    fused.attrs["_r_zero"] = sum.attrs.at(best_side == 0 ? "_b_zero" : "_a_zero");
    fused.attrs["_r_s8"] = sum.attrs.at(best_side == 0 ? "_b_s8" : "_a_s8");
    fused.attrs["_sum_scale"] = sum.attrs.at("_scale");
    fused.attrs["_sum_zero"] = sum.attrs.at("_zero");
    fused.attrs["_sum_lo"] = sum.attrs.at("_lo");
    fused.attrs["_sum_hi"] = sum.attrs.at("_hi");
    r_.kill(static_cast<size_t>(best));
    r_.replace(i, std::move(fused));
    ++residuals_;
  }
}

// A linear layer, a GELU and a QuantizeLinear that nobody else reads: floats never leave the layer.
void Matcher::fuse_gelus() {
  for (size_t i = 0; i < r_.size(); ++i) {
    const Node quantize = r_.node(i);
    if (r_.dead(i) || !is(quantize, "QuantizeLinear")) continue;
    const auto y = grid(quantize);
    const int gelu = r_.producer(quantize.inputs[0]);
    if (!y || gelu < 0 || r_.only_consumer(quantize.inputs[0]) != static_cast<int>(i)) continue;
    const Node& act = r_.node(static_cast<size_t>(gelu));
    if (act.op != "Gelu" || attr_s(act, "approximate", "none") != "none" || act.inputs.size() != 1) continue;
    const int maker = r_.producer(act.inputs[0]);
    if (maker < 0 || r_.only_consumer(act.inputs[0]) != gelu) continue;
    Node layer = r_.node(static_cast<size_t>(maker));
    if (layer.domain != kQuadsDomain || layer.op != "QuadLinear" || attr_i(layer, "_float", 0) == 0) continue;
    layer.attrs.erase("_float");
    layer.outputs = quantize.outputs;
    set(layer, "_gelu", int64_t{1});
    set(layer, "_q_scale", y->scale), set(layer, "_q_zero", y->zero);
    if (y->s8) set(layer, "_s8", int64_t{1});
    if (has_attr(quantize, "_quads")) layer.attrs["_quads"] = quantize.attrs.at("_quads");
    r_.kill(static_cast<size_t>(maker));
    r_.kill(static_cast<size_t>(gelu));
    r_.replace(i, std::move(layer));
  }
  r_.sweep();
}

// Which values stay in quads: those that integer layers and plain DequantizeLinear nodes read, nobody else.
void Matcher::place() {
  for (size_t i = 0; i < r_.size(); ++i) {
    const Node& n = r_.node(i);
    const bool ours = n.domain == kQuadsDomain;
    if (r_.dead(i) || (!ours && !is(n, "QuantizeLinear")) || attr_i(n, "_float", 0) != 0 || attr_i(n, "_raw", 0) != 0) continue;
    if (!ours && !grid(n)) continue;
    bool quads = !r_.is_output(n.outputs[0]), any = false, rows = true;
    for (size_t k : r_.consumers(n.outputs[0])) {
      const Node& reader = r_.node(k);
      const bool integer = reader.domain == kQuadsDomain;
      any = any || integer;
      if (integer && reader.op != "QuadLinear") rows = false;
      quads = quads && (integer || (is(reader, "DequantizeLinear") && grid(reader)));
    }
    if (quads && (any || ours)) r_.attrs(i)["_quads"].value = int64_t{any && rows ? 2 : 1};
  }
}

size_t Matcher::run() {
  for (size_t i = 0; i < r_.size(); ++i)
    if (is(r_.node(i), "QuantizeLinear")) match(i);
  r_.sweep_dead_code();
  // Sums first: a product alone would take the sum's operand away.
  for (const char* op : {"Add", "Gemm", "MatMul"})
    for (size_t i = 0; i < r_.size(); ++i)
      if (is(r_.node(i), op) && match_float(i)) r_.sweep_dead_code();
  for (size_t i = 0; i < r_.size(); ++i)
    if (is(r_.node(i), "MatMulInteger")) match_integer(i);
  if (count_ == 0) return 0;
  r_.sweep_dead_code();
  fuse_residuals();
  place();
  r_.sweep();
  return count_;
}

}  // namespace

void fuse_quantized(Graph& graph, Notes& notes) {
  Matcher m(graph);
  const size_t count = m.run();
  if (count) notes.push_back("made " + std::to_string(count) + " integer layers");
  if (m.residuals()) notes.push_back("fused " + std::to_string(m.residuals()) + " residual additions of integers");
}

void fuse_quantized_gelus(Graph& graph) { Matcher(graph).fuse_gelus(); }

}  // namespace secateur
