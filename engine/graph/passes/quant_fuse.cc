// Layers between DequantizeLinear and QuantizeLinear become integer layers: nodes of the domain "secateur" (passes.h).
// What stays unmatched keeps its nodes and runs in float32.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>

#include "graph/passes/passes.h"
#include "graph/passes/quant.h"

namespace secateur {
namespace {

constexpr float kOpen = std::numeric_limits<float>::infinity();

// A layer as it is read from its node.
struct Layer {
  Grid x;
  QuantizedConstant w;
  bool conv = false, rows = true;  // rows: outputs are the weight's first axis
  int64_t out = 0;
  std::vector<double> step;   // of the accumulator, per output
  std::vector<float> scale;   // of the sums, to the result's step or to float32
  std::vector<int32_t> bias;  // in steps of the accumulator
  std::vector<float> offset;  // of a float32 result
};

class Matcher {
 public:
  explicit Matcher(Graph& graph) : r_(graph) {}
  size_t run();
  void fuse_gelus();
  size_t residuals() const { return residuals_; }

 private:
  bool layer(size_t at, size_t layer, const std::string& bias_value, const Grid* y, float lo, float hi);
  std::string operands(const Node& n, Layer& l) const;
  std::string scales(const Grid* y, Layer& l) const;
  std::string bias(const std::string& value, const Grid* y, Layer& l) const;
  Node build(const Node& n, const Layer& l, const Grid* y, float lo, float hi);
  void explain();
  bool match(size_t at);
  bool match_float(size_t at);
  bool join(size_t at, const Node& n, const Grid& y);
  std::optional<std::pair<size_t, std::string>> biased(int add);
  void fuse_residuals();
  void place();
  void put(size_t at, Node node, const Grid* y) {
    node.post.s8 = y && y->s8;
    node.post.layer = layer_;
    node.domain = kQuadsDomain;
    r_.replace(at, std::move(node));
    ++count_;
  }

  Rewriter r_;
  int64_t layer_ = -1;                 // the file's, of what is being matched
  std::map<size_t, std::string> why_;  // layer -> why it is none of integers, or its result none
  size_t count_ = 0, residuals_ = 0;
};

// Whether no sum of an output can leave int32, whatever the activations are: |q - zero| <= 255.
bool fits_int32(const Layer& l) {
  const auto out = static_cast<size_t>(l.out), per_out = l.w.q.size() / out;
  if (per_out < (size_t{1} << 14)) return true;  // 2^14 * 255 * 255 + 2^30 < 2^31
  std::vector<int64_t> reach(out, 0);
  for (size_t i = 0; i < l.w.q.size(); ++i) reach[l.rows ? i / per_out : i % out] += 255 * std::abs(int64_t{l.w.q[i]});
  for (size_t o = 0; o < out; ++o)
    if (reach[o] + (l.bias.empty() ? 0 : std::abs(int64_t{l.bias[o]})) > std::numeric_limits<int32_t>::max())
      return false;
  return true;
}

// A bound of the result in its bytes.
int64_t bound(float v, const Grid& y, int64_t open) {
  if (std::isinf(v)) return open;
  const double b = std::nearbyint(static_cast<double>(v / y.scale)) + static_cast<double>(y.zero);
  return static_cast<int64_t>(std::fmin(std::fmax(b, 0.0), 255.0));
}

// The functions below return why a layer is not one of integers; empty: it is.
std::string Matcher::operands(const Node& n, Layer& l) const {
  l.conv = is(n, "Conv");
  if (n.inputs.size() < 2 || n.inputs.size() > 3) return "its operands are not those of a layer";
  std::string why, why_not_x;
  const auto x = dequantized(r_, n.inputs[0], &why_not_x);
  const auto w = constant_of(r_, n.inputs[1], false, &why);
  if (!w) return why;
  if (!x) return why_not_x;
  l.x = *x, l.w = *w;
  const std::vector<int64_t>& dims = l.w.dims;
  if (l.w.q.empty() || (l.conv ? dims.size() != 3 && dims.size() != 4 : dims.size() != 2))
    return "weights of rank " + std::to_string(dims.size());
  if (n.op == "Gemm" &&
      (attr_i(n, "transA", 0) != 0 || attr_f(n, "alpha", 1.0f) != 1.0f || attr_f(n, "beta", 1.0f) != 1.0f))
    return "a Gemm with transA, alpha or beta";
  l.rows = l.conv || (n.op == "Gemm" && attr_i(n, "transB", 0) != 0);
  l.out = l.rows ? dims[0] : dims[1];
  return "";
}

std::string Matcher::scales(const Grid* y, Layer& l) const {
  const int64_t n_scales = l.w.scale->numel();
  if (n_scales != 1 && (n_scales != l.out || l.w.axis != (l.rows ? 0 : 1)))
    return "scales of weights that are not one per output";
  l.step.resize(static_cast<size_t>(l.out)), l.scale.resize(static_cast<size_t>(l.out));
  for (size_t o = 0; o < l.step.size(); ++o) {
    const float s = l.w.scale->f32()[n_scales == 1 ? 0 : o];
    if (!(s > 0) || !std::isfinite(s)) return "a scale of its weights is not positive";
    l.step[o] = static_cast<double>(l.x.scale * s);  // rounded to float32, as the bias's own scale was
    l.scale[o] = y ? l.x.scale * s / y->scale : l.x.scale * s;
    if (!std::isfinite(l.scale[o]) || l.step[o] == 0) return "scales whose product is no float32";
  }
  return "";
}

// What an exporter wrote as int32 on the accumulator's grid comes back as it is.
std::string Matcher::bias(const std::string& value, const Grid* y, Layer& l) const {
  if (value.empty()) return "";
  std::vector<double> real;
  std::string why;
  if (const auto b = constant_of(r_, value, true, &why)) {
    const int64_t scales = b->scale->numel();
    if (static_cast<int64_t>(b->q.size()) != l.out || (scales != 1 && scales != l.out))
      return "its bias is not one number per output";
    for (size_t o = 0; o < b->q.size(); ++o)
      real.push_back(static_cast<double>(b->q[o]) * static_cast<double>(b->scale->f32()[scales == 1 ? 0 : o]));
  } else if (const Tensor* f = r_.f32(value)) {
    if (f->numel() != l.out || (!f->dims.empty() && f->dims.back() != l.out))
      return "its bias is not one number per output";
    real.assign(f->f32(), f->f32() + l.out);
  } else {
    return r_.constant(value) ? "its bias is no float32" : why;
  }
  if (!y) l.offset.assign(real.begin(), real.end());
  for (size_t o = 0; y && o < real.size(); ++o) {
    const double exact = real[o] / l.step[o], v = std::nearbyint(exact);
    if (!(std::fabs(v) < 0x1p30)) return "a bias that its sums cannot hold";
    // A float32 bias off that grid may move the result by a small part of its step, no more.
    if (std::fabs(exact - v) * static_cast<double>(l.scale[o]) > 1.0 / 32)
      return "a bias between two steps of its sums";
    l.bias.push_back(static_cast<int32_t>(v));
  }
  return "";
}

Node Matcher::build(const Node& n, const Layer& l, const Grid* y, float lo, float hi) {
  Node q;
  q.name = n.name;
  q.op = l.conv ? "QuadConv" : "QuadLinear";
  if (l.conv) q.attrs = n.attrs;
  const std::string stem = n.outputs[0];
  q.inputs = {l.x.value, r_.add(stem + "/weight", layer_weights(l.w.q, l.w.dims, l.rows)), "", "", ""};
  if (!l.bias.empty()) {
    Tensor b;
    b.dtype = DType::kInt32;
    b.dims = {l.out};
    b.data.resize(l.bias.size() * 4);
    std::memcpy(b.data.data(), l.bias.data(), b.data.size());
    q.inputs[2] = r_.add(stem + "/bias", std::move(b));
  }
  q.inputs[3] = r_.add_f32(stem + "/scale", {l.out}, l.scale);
  q.post.x = steps(l.x);
  if (!y) {
    if (!l.offset.empty()) q.inputs[4] = r_.add_f32(stem + "/offset", {l.out}, l.offset);
    q.post.result = PostOps::Result::kFloat;
    return q;
  }
  q.post.y = {steps(*y), bound(lo, *y, 0), bound(hi, *y, 255)};
  return q;
}

// Conv, Gemm or MatMul at `at_layer` whose last value, y of node `at`, is quantized to *y, or is float32.
bool Matcher::layer(size_t at, size_t at_layer, const std::string& bias_value, const Grid* y, float lo, float hi) {
  const Node n = r_.node(at_layer);
  Layer l;
  std::string why = operands(n, l);
  if (why.empty()) why = scales(y, l);
  if (why.empty()) why = bias(bias_value, y, l);
  if (why.empty() && !fits_int32(l)) why = "sums that may leave int32";
  const std::string before = why_.count(at_layer) ? why_[at_layer] : "";
  if (!why.empty()) {
    why_[at_layer] = why;
    return false;
  }
  why_.erase(at_layer);
  Node q = build(n, l, y, lo, hi);
  q.outputs = r_.node(at).outputs;
  if (!y && !before.empty()) q.post.why = "result in float32: " + before;
  if (n.post.layer >= 0) layer_ = n.post.layer;  // that of the layer, not of the Add of its bias
  put(at, std::move(q), y);
  return true;
}

// Layers with a quantized operand that stay in float32 say why.
void Matcher::explain() {
  for (size_t i = 0; i < r_.size(); ++i)
    if (!r_.dead(i) && is(r_.node(i), "ConvTranspose")) why_[i] = "there is no integer kernel for it";
  for (const auto& [at, why] : why_) {
    if (r_.dead(at) || !r_.node(at).domain.empty()) continue;
    bool any = false;
    for (const auto& in : r_.node(at).inputs)
      any = any || (r_.producer(in) >= 0 && is(r_.node(static_cast<size_t>(r_.producer(in))), "DequantizeLinear"));
    if (any) r_.post(at).why = "computed in float32: " + why;
  }
}

// Node `add` adds a bias to a MatMul that nothing else reads: the MatMul and the bias.
std::optional<std::pair<size_t, std::string>> Matcher::biased(int add) {
  const Node& n = r_.node(static_cast<size_t>(add));
  for (size_t side = 0; side < 2 && n.inputs.size() == 2; ++side) {
    const int product = r_.producer(n.inputs[side]);
    if (product < 0 || r_.only_consumer(n.inputs[side]) != add || !is(r_.node(static_cast<size_t>(product)), "MatMul"))
      continue;
    // A bias of rank 1 is one of features whatever the product's rank.
    const Tensor* f = r_.f32(n.inputs[1 - side]);
    const auto b = constant_of(r_, n.inputs[1 - side], true);
    if ((!f || f->dims.size() != 1) && (!b || b->dims.size() != 1)) continue;
    return std::pair(static_cast<size_t>(product), n.inputs[1 - side]);
  }
  return std::nullopt;
}

// Node `at` is a Conv, Gemm or MatMul, or adds a bias to a MatMul, and its result is not quantized.
bool Matcher::match_float(size_t at) {
  const Node n = r_.node(at);
  if (r_.dead(at) || n.outputs.empty()) return false;
  if (n.post.layer >= 0) layer_ = n.post.layer;
  if (is(n, "Add")) {
    const auto m = biased(static_cast<int>(at));
    return m && layer(at, m->first, m->second, nullptr, -kOpen, kOpen);
  }
  return layer(at, at, has_input(n, 2) ? n.inputs[2] : "", nullptr, -kOpen, kOpen);
}

// Node `at` quantizes n, a Concat: bytes of one grid are moved.
bool Matcher::join(size_t at, const Node& n, const Grid& y) {
  Node q;
  q.name = n.name;
  q.op = "QuadConcat";
  q.attrs = n.attrs;
  q.post.op = n.op;
  q.post.x = steps(y), q.post.y = {steps(y)};
  for (const std::string& value : n.inputs) {
    const auto x = dequantized(r_, value);
    if (!x || !(*x == y) || x->s8 != y.s8) return false;
    q.inputs.push_back(x->value);
  }
  q.outputs = r_.node(at).outputs;
  put(at, std::move(q), &y);
  return true;
}

// Node `at` is a QuantizeLinear.
bool Matcher::match(size_t at) {
  const Node& quantize = r_.node(at);
  const auto y = grid_of(r_, quantize);
  if (!y) return false;
  layer_ = quantize.post.layer;
  std::string value = quantize.inputs[0];
  float lo = -kOpen, hi = kOpen;
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
  if (n.domain.empty() && n.post.layer >= 0) layer_ = n.post.layer;
  if (is(n, "Conv") || is(n, "Gemm") || is(n, "MatMul"))
    return layer(at, static_cast<size_t>(maker), has_input(n, 2) ? n.inputs[2] : "", &*y, lo, hi);
  if (is(n, "Add") && n.inputs.size() == 2) {
    if (const auto m = biased(maker)) return layer(at, m->first, m->second, &*y, lo, hi);
    const auto a = dequantized(r_, n.inputs[0]), b = dequantized(r_, n.inputs[1]);
    if (!a || !b) return false;
    Node q;
    q.name = n.name;
    q.op = "QuadAdd";
    q.inputs = {a->value, b->value};
    q.outputs = quantize.outputs;
    q.post.x = steps(*a), q.post.other = steps(*b);
    q.post.y = {steps(*y), bound(lo, *y, 0), bound(hi, *y, 255)};
    put(at, std::move(q), &*y);
    return true;
  }
  if (!std::isinf(lo) || !std::isinf(hi) || n.inputs.empty()) return false;
  if (is(n, "Concat")) return join(at, n, *y);
  const auto x = dequantized(r_, n.inputs[0]);
  if (!x) return false;
  const bool average =
      is(n, "GlobalAveragePool") ||
      (is(n, "AveragePool") && (attr_i(n, "count_include_pad", 0) == 0 || attr_i(n, "ceil_mode", 0) == 0));
  const bool same = is(n, "MaxPool") || is(n, "Flatten") || is(n, "Reshape");
  if (!average && !(same && *x == *y && x->s8 == y->s8)) return false;
  if (n.outputs.size() > 1) return false;
  Node q;
  q.name = n.name;
  q.op = average ? "QuadAverage" : is(n, "MaxPool") ? "QuadMaxPool" : "QuadReshape";
  q.attrs = n.attrs;
  q.post.op = n.op;
  q.inputs = n.inputs;
  q.inputs[0] = x->value;
  q.outputs = quantize.outputs;
  q.post.x = steps(*x);
  q.post.y = {steps(*y)};
  put(at, std::move(q), &*y);
  return true;
}

// A convolution or linear layer that only a sum reads takes the sum in: it moves down to it, where its other operand
// exists.
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
    fused.post.other = best_side == 0 ? sum.post.other : sum.post.x;
    fused.post.sum = sum.post.y;
    fused.post.s8 = sum.post.s8;  // not that of the convolution's own result, which nobody reads now
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
    const auto y = grid_of(r_, quantize);
    const int gelu = r_.producer(quantize.inputs[0]);
    if (!y || gelu < 0 || r_.only_consumer(quantize.inputs[0]) != static_cast<int>(i)) continue;
    const Node& act = r_.node(static_cast<size_t>(gelu));
    if (act.op != "Gelu" || attr_s(act, "approximate", "none") != "none" || act.inputs.size() != 1) continue;
    const int maker = r_.producer(act.inputs[0]);
    if (maker < 0 || r_.only_consumer(act.inputs[0]) != gelu) continue;
    Node layer = r_.node(static_cast<size_t>(maker));
    if (layer.domain != kQuadsDomain || layer.op != "QuadLinear" || layer.post.result != PostOps::Result::kFloat ||
        layer.post.dynamic)
      continue;
    layer.outputs = quantize.outputs;
    layer.post.result = PostOps::Result::kBytes;
    layer.post.gelu = true;
    layer.post.y = {steps(*y)};
    layer.post.s8 = y->s8;
    layer.post.place = quantize.post.place;
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
    const bool dynamic = is(n, "DynamicQuantizeLinear");
    if (r_.dead(i) || (!ours && !dynamic && !is(n, "QuantizeLinear")) || n.post.result != PostOps::Result::kBytes)
      continue;
    if (!ours && !dynamic && !grid_of(r_, n)) continue;
    bool quads = !r_.is_output(n.outputs[0]), any = false, rows = true;
    for (size_t k : r_.consumers(n.outputs[0])) {
      const Node& reader = r_.node(k);
      const bool integer =
          reader.domain == kQuadsDomain && !(reader.op == "QuadTable" && reader.inputs[1] == n.outputs[0]);
      any = any || integer;
      if (integer && reader.op != "QuadLinear") rows = false;
      quads = quads && (integer || (!dynamic && is(reader, "DequantizeLinear") && grid_of(r_, reader)));
    }
    if (quads && (any || ours)) r_.post(i).place = any && rows ? PostOps::Place::kQuadRows : PostOps::Place::kQuads;
  }
}

size_t Matcher::run() {
  for (size_t i = 0; i < r_.size(); ++i)
    if (is(r_.node(i), "QuantizeLinear")) match(i);
  r_.sweep_dead_code();
  // Sums first: a product alone would take the sum's operand away.
  for (const char* op : {"Add", "Gemm", "MatMul", "Conv"})
    for (size_t i = 0; i < r_.size(); ++i)
      if (is(r_.node(i), op) && match_float(i)) r_.sweep_dead_code();
  explain();
  count_ += fuse_dynamic(r_);
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
