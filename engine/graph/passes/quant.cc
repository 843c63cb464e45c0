#include "graph/passes/quant.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <unordered_set>

namespace secateur {
namespace {

std::nullopt_t because(std::string* why, std::string text) {
  if (why) *why = std::move(text);
  return std::nullopt;
}

}  // namespace

std::optional<Grid> grid_of(const Rewriter& r, const Node& n, std::string* why) {
  if (n.inputs.size() < 2 || attr_i(n, "block_size", 0) != 0)
    return because(why, "activations are quantized in blocks");
  const Tensor* scale = r.f32(n.inputs[1]);
  if (!scale) return because(why, "the scale of its activations is no float32 constant");
  if (scale->numel() != 1 || scale->dims.size() > 1) return because(why, "activations are quantized per channel");
  Grid g;
  g.scale = scale->f32()[0];
  if (!(g.scale > 0) || !std::isfinite(g.scale)) return because(why, "the scale of its activations is not positive");
  if (has_input(n, 2)) {
    const Tensor* zero = r.constant(n.inputs[2]);
    if (!zero || zero->numel() != 1) return because(why, "the zero point of its activations is no constant");
    if (zero->dtype == DType::kUInt8) {
      g.zero = zero->data[0];
    } else if (zero->dtype == DType::kInt8) {
      g.zero = int64_t{static_cast<int8_t>(zero->data[0])} + 128;
      g.s8 = true;
    } else {
      return because(why, std::string("activations are ") + dtype_name(zero->dtype));
    }
  } else if (attr_i(n, "output_dtype", 0) != 0 || is(n, "DequantizeLinear")) {
    return because(why, "activations have no zero point that says their type");
  }
  return g;
}

std::optional<Grid> dequantized(const Rewriter& r, const std::string& value, std::string* why) {
  const int maker = r.producer(value);
  if (maker < 0 || !is(r.node(static_cast<size_t>(maker)), "DequantizeLinear"))
    return because(why, "activations are not quantized");
  const Node& n = r.node(static_cast<size_t>(maker));
  if (!has_input(n, 0) || r.constant(n.inputs[0])) return because(why, "its input is a constant");
  auto g = grid_of(r, n, why);
  if (g) g->value = n.inputs[0];
  return g;
}

std::vector<int32_t> less_zeros(const Tensor& q, const Tensor* zero, size_t axis) {
  std::vector<int32_t> values(q.data.size());
  int64_t inner = 1;
  for (size_t i = axis + 1; i < q.dims.size(); ++i) inner *= q.dims[i];
  const int64_t n_zeros = zero ? zero->numel() : 0;
  const auto number = [](const Tensor& t, int64_t i) {
    const uint8_t b = t.data[static_cast<size_t>(i)];
    return t.dtype == DType::kInt8 ? int32_t{static_cast<int8_t>(b)} : int32_t{b};
  };
  for (int64_t i = 0; i < q.numel(); ++i) {
    const int64_t at = n_zeros > 1 ? i / inner % n_zeros : 0;
    values[static_cast<size_t>(i)] = number(q, i) - (zero ? number(*zero, at) : 0);
  }
  return values;
}

std::optional<QuantizedConstant> constant_of(const Rewriter& r, const std::string& value, bool bias, std::string* why) {
  const std::string what = bias ? "its bias" : "its weights";
  const int maker = r.producer(value);
  if (maker < 0)
    return because(why, r.constant(value) ? what + " are not quantized" : "its second operand is no constant");
  const Node& n = r.node(static_cast<size_t>(maker));
  if (!is(n, "DequantizeLinear") || n.inputs.size() < 2)
    return because(why, "its second operand comes from " + n.op + ", not from a quantized constant");
  if (attr_i(n, "block_size", 0) != 0) return because(why, what + " are quantized in blocks");
  const Tensor* q = r.constant(n.inputs[0]);
  if (!q) return because(why, "its second operand is no constant");
  QuantizedConstant c;
  c.scale = r.f32(n.inputs[1]);
  if (!c.scale || c.scale->dims.size() > 1)
    return because(why, "the scales of " + what + " are no float32 constants on one axis");
  if (bias ? q->dtype != DType::kInt32 : q->dtype != DType::kInt8 && q->dtype != DType::kUInt8)
    return because(why, what + " are " + dtype_name(q->dtype));
  c.dims = q->dims;
  const auto rank = static_cast<int64_t>(c.dims.size()), axis = attr_i(n, "axis", 1);
  c.axis = axis < 0 ? axis + rank : axis;
  const int64_t n_scales = c.scale->numel();
  if (n_scales != 1 && (c.axis < 0 || c.axis >= rank || c.dims[static_cast<size_t>(c.axis)] != n_scales))
    return because(why, "the scales of " + what + " do not fit them");
  const Tensor* zero = has_input(n, 2) ? r.constant(n.inputs[2]) : nullptr;
  if (has_input(n, 2) && (!zero || zero->dtype != q->dtype || zero->numel() != n_scales))
    return because(why, "the zero points of " + what + " are no constants of their type");
  if (!bias) {
    c.q = less_zeros(*q, zero, n_scales == 1 ? 0 : static_cast<size_t>(c.axis));
    return c;
  }
  if (zero && std::any_of(zero->data.begin(), zero->data.end(), [](uint8_t b) { return b != 0; }))
    return because(why, "its bias has a zero point");
  c.q.resize(static_cast<size_t>(q->numel()));
  if (!c.q.empty()) std::memcpy(c.q.data(), q->data.data(), c.q.size() * 4);
  return c;
}

Tensor layer_weights(const std::vector<int32_t>& w, const std::vector<int64_t>& dims, bool rows) {
  Tensor t;
  const bool wide = std::any_of(w.begin(), w.end(), [](int32_t v) { return v < -128 || v > 127; });
  t.dtype = wide ? DType::kInt16 : DType::kInt8;
  t.dims = rows ? dims : std::vector<int64_t>{dims[1], dims[0]};
  t.data.resize(w.size() * (wide ? 2 : 1));
  const size_t n = w.size(), in = rows ? n : static_cast<size_t>(dims[0]),
               out = rows ? 1 : static_cast<size_t>(dims[1]);
  for (size_t i = 0; i < n; ++i) {
    const size_t from = i % in * out + i / in;  // rows: i
    if (wide) {
      const auto v = static_cast<int16_t>(w[from]);
      std::memcpy(t.data.data() + 2 * i, &v, 2);
    } else {
      t.data[i] = static_cast<uint8_t>(w[from]);
    }
  }
  return t;
}

void drop_unread(Graph& graph) {
  std::unordered_set<std::string> read;
  for (const auto& out : graph.outputs) read.insert(out.name);
  std::vector<Node> kept;
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    Node& n = graph.nodes[i];
    if (std::none_of(n.outputs.begin(), n.outputs.end(),
                     [&](const std::string& out) { return !out.empty() && read.count(out) != 0; }))
      continue;
    read.insert(n.inputs.begin(), n.inputs.end());
    kept.push_back(std::move(n));
  }
  graph.nodes.assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
}

}  // namespace secateur
