// Dynamic quantization: ConvInteger and MatMulInteger with constant weights become integer layers whose zero point
// comes while running, and the Cast, Mul by the scales and Add of a bias behind one become its float32 result.
#include <algorithm>
#include <limits>
#include <optional>

#include "graph/passes/passes.h"
#include "graph/passes/quant.h"

namespace secateur {
namespace {

// Whether output `slot` of a DynamicQuantizeLinear is this value.
bool from_range(const Rewriter& r, const std::string& value, size_t slot) {
  const int maker = r.producer(value);
  if (maker < 0) return false;
  const Node& n = r.node(static_cast<size_t>(maker));
  return is(n, "DynamicQuantizeLinear") && n.outputs.size() == 3 && n.outputs[slot] == value;
}

// Why node `at`, a ConvInteger or MatMulInteger, is not made an integer layer; empty: it was.
std::string make_layer(Rewriter& r, size_t at) {
  const Node n = r.node(at);
  const bool conv = n.op == "ConvInteger";
  if (n.inputs.size() < 2 || n.outputs.size() != 1 || r.constant(n.inputs[0])) return "its input is a constant";
  const Tensor* w = r.constant(n.inputs[1]);
  if (!w || (w->dtype != DType::kInt8 && w->dtype != DType::kUInt8))
    return "its second operand is no constant of 8 bits";
  const size_t rank = w->dims.size();
  if (w->numel() == 0 || (conv ? rank != 3 && rank != 4 : rank != 2)) return "weights of rank " + std::to_string(rank);
  if (has_input(n, 2)) {
    const Tensor* zero = r.constant(n.inputs[2]);
    if (!from_range(r, n.inputs[2], 2) && !(zero && zero->numel() == 1))
      return "its input may have several zero points";
  }
  const int64_t out = conv ? w->dims[0] : w->dims[1];
  const Tensor* zero = has_input(n, 3) ? r.constant(n.inputs[3]) : nullptr;
  if (has_input(n, 3) && (!zero || zero->dtype != w->dtype || (zero->numel() != 1 && zero->numel() != out)))
    return "the zero points of its weights are no constants";
  Node q;
  q.name = n.name;
  q.op = conv ? "QuadConv" : "QuadLinear";
  q.domain = kQuadsDomain;
  if (conv) q.attrs = n.attrs;
  q.post = from_layer(n.post);
  q.post.result = PostOps::Result::kSums;
  q.post.dynamic = true;
  q.outputs = n.outputs;
  const std::string weights =
      r.add(n.outputs[0] + "/weight", layer_weights(less_zeros(*w, zero, conv ? 0 : 1), w->dims, conv));
  q.inputs = {n.inputs[0], weights, "", "", "", has_input(n, 2) ? n.inputs[2] : "", ""};
  r.replace(at, std::move(q));
  return "";
}

// A float32 constant as one number per output of the layer; empty when it is not that.
std::vector<float> per_output(const Rewriter& r, const Node& layer, const std::string& value) {
  const Tensor* t = r.f32(value);
  const std::vector<int64_t>& w = r.constant(layer.inputs[1])->dims;
  const size_t rank = t ? t->dims.size() : 0, most = layer.op == "QuadConv" ? w.size() : 1;
  if (!t || rank > most) return {};
  if (t->numel() == 1) return std::vector<float>(static_cast<size_t>(w[0]), t->f32()[0]);
  // Channels are the last axis of a linear layer, and the second of a convolution.
  const size_t axis = layer.op == "QuadConv" ? rank + 1 - w.size() : 0;
  const bool fits = t->numel() == w[0] && (layer.op != "QuadConv" || rank + 1 >= w.size()) && t->dims[axis] == w[0];
  return fits ? std::vector<float>(t->f32(), t->f32() + w[0]) : std::vector<float>{};
}

// The scales behind a value: constants, the scale of the input that comes while running ("" when there is none).
std::pair<std::vector<float>, std::string> scales_of(const Rewriter& r, const Node& layer, const std::string& value) {
  if (r.constant(value)) return {per_output(r, layer, value), ""};
  if (from_range(r, value, 1))
    return {std::vector<float>(static_cast<size_t>(r.constant(layer.inputs[1])->dims[0]), 1.0f), value};
  const int maker = r.producer(value);
  if (maker < 0 || !is(r.node(static_cast<size_t>(maker)), "Mul")) return {};
  const Node& product = r.node(static_cast<size_t>(maker));
  for (size_t side = 0; side < 2; ++side)
    if (from_range(r, product.inputs[side], 1))
      return {per_output(r, layer, product.inputs[1 - side]), product.inputs[side]};
  return {};
}

// The only reader of what node `at` makes, if it is such a node; *other is its other operand.
int reader(const Rewriter& r, size_t at, const char* op, std::string* other = nullptr) {
  const std::string& value = r.node(at).outputs[0];
  const int next = r.only_consumer(value);
  if (next < 0 || !is(r.node(static_cast<size_t>(next)), op)) return -1;
  const Node& n = r.node(static_cast<size_t>(next));
  if (other && n.inputs.size() == 2) *other = n.inputs[n.inputs[0] == value ? 1 : 0];
  return n.inputs.size() == (other ? 2u : 1u) ? next : -1;
}

// Cast, Mul and Add behind the layer at `at` go into it, where they mean its float32 result.
void take_float(Rewriter& r, size_t at) {
  const int cast = reader(r, at, "Cast");
  if (cast < 0 || attr_i(r.node(static_cast<size_t>(cast)), "to", 0) != static_cast<int64_t>(DType::kFloat)) return;
  std::string factor, addend;
  const int mul = reader(r, static_cast<size_t>(cast), "Mul", &factor);
  if (mul < 0) return;
  Node layer = r.node(at);
  const auto [scale, x_scale] = scales_of(r, layer, factor);
  if (scale.empty()) return;
  const int add = reader(r, static_cast<size_t>(mul), "Add", &addend);
  const auto offset = add < 0 ? std::vector<float>{} : per_output(r, layer, addend);
  const auto last = static_cast<size_t>(offset.empty() ? mul : add);
  const auto out = static_cast<int64_t>(scale.size());
  layer.post.result = PostOps::Result::kFloat;
  layer.outputs = r.node(last).outputs;
  layer.inputs[3] = r.add_f32(layer.outputs[0] + "/scale", {out}, scale);
  if (!offset.empty()) layer.inputs[4] = r.add_f32(layer.outputs[0] + "/offset", {out}, offset);
  layer.inputs[6] = x_scale;
  for (int i : {static_cast<int>(at), cast, mul})
    if (static_cast<size_t>(i) != last) r.kill(static_cast<size_t>(i));
  r.replace(last, std::move(layer));
}

// The upper bound of a Relu, or of a Clip from 0; nothing for other nodes.
std::optional<float> upper_bound(const Rewriter& r, const Node& n) {
  constexpr float kOpen = std::numeric_limits<float>::infinity();
  if (is(n, "Relu") && n.inputs.size() == 1) return kOpen;
  if (!is(n, "Clip") || !has_input(n, 0)) return std::nullopt;
  float bounds[] = {attr_f(n, "min", -kOpen), attr_f(n, "max", kOpen)};
  for (size_t k = 1; k <= 2; ++k) {
    if (!has_input(n, k)) continue;
    const Tensor* t = r.f32(n.inputs[k]);
    if (!t || t->numel() != 1) return std::nullopt;
    bounds[k - 1] = t->f32()[0];
  }
  return bounds[0] == 0 && bounds[1] > 0 ? std::optional(bounds[1]) : std::nullopt;
}

// A Relu that only a DynamicQuantizeLinear reads bounds its range: bytes saturate where the Relu would have cut.
void take_relus(Rewriter& r) {
  for (size_t i = 0; i < r.size(); ++i) {
    if (r.dead(i) || !is(r.node(i), "DynamicQuantizeLinear") || !has_input(r.node(i), 0)) continue;
    const int maker = r.producer(r.node(i).inputs[0]);
    if (maker < 0 || r.only_consumer(r.node(i).inputs[0]) != static_cast<int>(i)) continue;
    const auto most = upper_bound(r, r.node(static_cast<size_t>(maker)));
    if (!most) continue;
    const std::string x = r.node(static_cast<size_t>(maker)).inputs[0];
    r.post(i).most = most;
    r.kill(static_cast<size_t>(maker));
    r.set_input(i, 0, x);
  }
}

}  // namespace

size_t fuse_dynamic(Rewriter& r) {
  size_t count = 0;
  take_relus(r);
  for (size_t i = 0; i < r.size(); ++i) {
    if (r.dead(i) || (!is(r.node(i), "ConvInteger") && !is(r.node(i), "MatMulInteger"))) continue;
    if (const std::string why = make_layer(r, i); !why.empty()) {
      r.post(i).why = why;
      continue;
    }
    ++count;
    take_float(r, i);
  }
  return count;
}

}  // namespace secateur
