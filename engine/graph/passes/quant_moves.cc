// Before the patterns: moves of dequantized constants become moves of their integers, averages and what reshapes them
// get the form the patterns know. Both only add and replace nodes between values that keep their names.
#include <algorithm>
#include <numeric>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "graph/passes/passes.h"
#include "graph/passes/quant.h"

namespace secateur {
namespace {

using Dims = std::vector<int64_t>;

// The integers of input `slot`, which only exist when constant: one more axis or pads may also be an attribute.
std::optional<Dims> ints_of(const Rewriter& r, const Node& n, size_t slot, const char* attribute) {
  Dims values;
  if (has_input(n, slot)) return r.ints(n.inputs[slot], values) ? std::optional(values) : std::nullopt;
  if (!has_attr(n, attribute)) return std::nullopt;
  return attr_is(n, attribute);
}

int64_t normal(int64_t axis, size_t rank) { return axis < 0 ? axis + static_cast<int64_t>(rank) : axis; }

// Dimensions of a tensor after a node that only regroups them; nothing where the node does not say.
std::optional<Dims> regrouped(const Rewriter& r, const Node& n, const Dims& dims) {
  const int64_t total = std::accumulate(dims.begin(), dims.end(), int64_t{1}, std::multiplies<>());
  Dims out;
  if (n.op == "Reshape") {
    const auto shape = ints_of(r, n, 1, "shape");
    if (!shape || attr_i(n, "allowzero", 0) != 0) return std::nullopt;
    int64_t known = 1;
    for (size_t i = 0; i < shape->size(); ++i) {
      const int64_t d = (*shape)[i] == 0 ? (i < dims.size() ? dims[i] : 0) : (*shape)[i];
      out.push_back(d);
      if (d != -1 && d <= 0) return std::nullopt;
      if (d != -1 && (known > total / d)) return std::nullopt;
      if (d != -1) known *= d;
    }
    for (int64_t& d : out)
      if (d == -1) d = total / known, known = total;
    return known == total ? std::optional(out) : std::nullopt;
  }
  if (n.op == "Flatten") {
    const int64_t axis = normal(attr_i(n, "axis", 1), dims.size());
    if (axis < 0 || axis > static_cast<int64_t>(dims.size())) return std::nullopt;
    const int64_t rows = std::accumulate(dims.begin(), dims.begin() + axis, int64_t{1}, std::multiplies<>());
    return Dims{rows, rows ? total / rows : 0};
  }
  const auto axes = ints_of(r, n, 1, "axes");
  if (n.op == "Squeeze") {
    for (size_t i = 0; i < dims.size(); ++i) {
      const bool named = axes && std::any_of(axes->begin(), axes->end(), [&](int64_t a) {
                           return normal(a, dims.size()) == static_cast<int64_t>(i);
                         });
      if (axes ? !named : dims[i] != 1) out.push_back(dims[i]);
    }
    return out;
  }
  if (n.op != "Unsqueeze" || !axes) return std::nullopt;
  const size_t rank = dims.size() + axes->size();
  std::vector<bool> fresh(rank, false);
  for (int64_t a : *axes) {
    const int64_t at = normal(a, rank);
    if (at < 0 || at >= static_cast<int64_t>(rank)) return std::nullopt;
    fresh[static_cast<size_t>(at)] = true;
  }
  size_t from = 0;
  for (size_t i = 0; i < rank; ++i) {
    if (!fresh[i] && from == dims.size()) return std::nullopt;
    out.push_back(fresh[i] ? 1 : dims[from++]);
  }
  return out;
}

// Where an axis stands after the regrouping: that with as many elements and as many before it.
std::optional<int64_t> same_axis(const Dims& from, int64_t axis, const Dims& to) {
  const auto before = [](const Dims& d, size_t n) {
    return std::accumulate(d.begin(), d.begin() + static_cast<long>(n), int64_t{1}, std::multiplies<>());
  };
  const auto at = static_cast<size_t>(axis);
  for (size_t i = 0; i < to.size(); ++i)
    if (to[i] == from[at] && before(to, i) == before(from, at)) return static_cast<int64_t>(i);
  return std::nullopt;
}

// A dequantized constant and the node that moves it.
struct Move {
  const Node* dequantize;
  const Tensor* q;
  bool per_axis;
  int64_t axis;
};

// The axis of the scales after node n, unless n needs more than a move of the integers.
std::optional<int64_t> moved_axis(const Rewriter& r, const Node& n, const Move& m) {
  const auto rank = static_cast<int64_t>(m.q->dims.size());
  if (is(n, "Identity")) return m.axis;
  if (is(n, "Cast"))
    return attr_i(n, "to", 0) == static_cast<int64_t>(DType::kFloat) ? std::optional(m.axis) : std::nullopt;
  if (is(n, "Transpose")) {
    Dims perm = attr_is(n, "perm");
    if (perm.empty())
      for (int64_t i = rank; i-- > 0;) perm.push_back(i);
    const auto at = std::find(perm.begin(), perm.end(), m.axis);
    if (!m.per_axis) return m.axis;
    return at == perm.end() ? std::nullopt : std::optional<int64_t>(at - perm.begin());
  }
  if (is(n, "Reshape") || is(n, "Flatten") || is(n, "Squeeze") || is(n, "Unsqueeze")) {
    if (!m.per_axis) return 0;
    const auto dims = regrouped(r, n, m.q->dims);
    return dims ? same_axis(m.q->dims, m.axis, *dims) : std::nullopt;
  }
  if (is(n, "Slice") || is(n, "Split")) {
    Dims axes{attr_i(n, "axis", 0)};
    if (is(n, "Slice") && has_input(n, 3) && !r.ints(n.inputs[3], axes)) return std::nullopt;
    if (is(n, "Slice") && !has_input(n, 3)) axes.clear(), axes.push_back(m.axis);
    const bool cuts =
        std::any_of(axes.begin(), axes.end(), [&](int64_t a) { return normal(a, m.q->dims.size()) == m.axis; });
    return m.per_axis && cuts ? std::nullopt : std::optional(m.axis);
  }
  return std::nullopt;
}

std::optional<Move> constant_move(const Rewriter& r, const Node& n) {
  if (!n.domain.empty() || n.inputs.empty() || n.outputs.empty()) return std::nullopt;
  const int maker = r.producer(n.inputs[0]);
  if (maker < 0) return std::nullopt;
  const Node& d = r.node(static_cast<size_t>(maker));
  if (!is(d, "DequantizeLinear") || d.inputs.size() < 2 || attr_i(d, "block_size", 0) != 0) return std::nullopt;
  const Tensor *q = r.constant(d.inputs[0]), *scale = r.f32(d.inputs[1]);
  if (!q || !scale || scale->dims.size() > 1) return std::nullopt;
  if (has_input(d, 2) && !r.constant(d.inputs[2])) return std::nullopt;
  for (size_t i = 1; i < n.inputs.size(); ++i)
    if (!n.inputs[i].empty() && !r.constant(n.inputs[i])) return std::nullopt;
  Move m{&d, q, scale->numel() != 1, normal(attr_i(d, "axis", 1), q->dims.size())};
  if (m.per_axis && (m.axis < 0 || m.axis >= static_cast<int64_t>(q->dims.size()))) return std::nullopt;
  return m;
}

// q -> DequantizeLinear with the scale and zero point of `like`.
Node dequantize_like(const Node& like, const std::string& q, const std::string& output, int64_t axis) {
  Node n = like;
  n.inputs[0] = q;
  n.outputs = {output};
  n.attrs["axis"].value = axis;
  return n;
}

}  // namespace

bool move_quantized_constants(Graph& graph, Notes& notes) {
  std::vector<Node> nodes;
  size_t count = 0;
  {
    const Rewriter r(graph);
    for (const Node& n : graph.nodes) {
      const auto move = constant_move(r, n);
      const auto axis = move ? moved_axis(r, n, *move) : std::nullopt;
      if (!axis) {
        nodes.push_back(n);
        continue;
      }
      // Names that no file uses: '\x01' cannot be typed.
      Node integers = n;
      integers.inputs[0] = move->dequantize->inputs[0];
      if (is(n, "Cast")) integers.op = "Identity", integers.attrs.erase("to");
      for (auto& out : integers.outputs)
        if (!out.empty()) out += "\x01q";
      nodes.push_back(integers);
      for (size_t i = 0; i < n.outputs.size(); ++i)
        if (!n.outputs[i].empty())
          nodes.push_back(dequantize_like(*move->dequantize, integers.outputs[i], n.outputs[i], *axis));
      ++count;
    }
  }
  if (count == 0) return false;
  graph.nodes = std::move(nodes);
  drop_unread(graph);
  notes.push_back("moved " + std::to_string(count) + " quantized constants before they are dequantized");
  return true;
}

namespace {

// Ranks of activations, by the convolutions and inputs they come from; 0 or absent = not known.
std::unordered_map<std::string, size_t> ranks_of(const Graph& graph, const Rewriter& r) {
  static const std::unordered_set<std::string> keeps{
      "AveragePool", "BatchNormalization", "Clip",        "Concat",    "DequantizeLinear", "Elu",
      "Erf",         "GlobalAveragePool",  "HardSigmoid", "HardSwish", "LeakyRelu",        "MaxPool",
      "Pad",         "QuantizeLinear",     "Relu",        "Resize",    "Sigmoid",          "Softmax",
      "Tanh"};
  std::unordered_map<std::string, size_t> ranks;
  for (const auto& in : graph.inputs)
    if (in.has_shape) ranks[in.name] = in.shape.size();
  const auto rank = [&](const std::string& value) {
    if (const Tensor* t = r.constant(value)) return t->dims.size();
    const auto known = ranks.find(value);
    return known == ranks.end() ? size_t{0} : known->second;
  };
  for (const Node& n : graph.nodes) {
    if (!n.domain.empty() || n.inputs.empty() || n.outputs.empty()) continue;
    size_t found = 0;
    if (n.op == "Conv" && n.inputs.size() > 1) found = rank(n.inputs[1]);
    if (keeps.count(n.op)) found = rank(n.inputs[0]);
    if ((n.op == "Add" || n.op == "Mul") && n.inputs.size() == 2 && rank(n.inputs[0]) && rank(n.inputs[1]))
      found = std::max(rank(n.inputs[0]), rank(n.inputs[1]));
    if (found) ranks[n.outputs[0]] = found;
  }
  return ranks;
}

// ReduceMean over all but batch and channels of a dequantized activation of known rank.
bool whole_mean(const Rewriter& r, const Node& n, size_t rank) {
  if (!is(n, "ReduceMean") || n.inputs.empty() || !dequantized(r, n.inputs[0])) return false;
  auto axes = ints_of(r, n, 1, "axes");
  if ((rank != 3 && rank != 4) || !axes) return false;
  for (int64_t& a : *axes) a = normal(a, rank);
  std::sort(axes->begin(), axes->end());
  return *axes == (rank == 4 ? Dims{2, 3} : Dims{2});
}

// Squeeze of the axes that a global average leaves.
bool squeezes_image(const Rewriter& r, const Node& n, size_t rank) {
  auto axes = ints_of(r, n, 1, "axes");
  if (!is(n, "Squeeze") || !axes || (rank != 3 && rank != 4)) return false;
  for (int64_t& a : *axes) a = normal(a, rank);
  std::sort(axes->begin(), axes->end());
  return *axes == (rank == 4 ? Dims{2, 3} : Dims{2});
}

Node made_from(const Node& n, const char* op, std::vector<std::string> inputs, const std::string& output) {
  Node m;
  m.name = n.name;
  m.op = op;
  m.inputs = std::move(inputs);
  m.outputs = {output};
  m.post = from_layer(n.post);
  return m;
}

// Means and squeezes in the words of GlobalAveragePool and Flatten.
void name_averages(Graph& graph) {
  std::vector<Node> nodes;
  bool any = false;
  {
    const Rewriter r(graph);
    auto ranks = ranks_of(graph, r);
    for (const Node& n : graph.nodes) {
      const size_t rank = n.inputs.empty() ? 0 : ranks[n.inputs[0]];
      const int maker = n.inputs.empty() ? -1 : r.producer(n.inputs[0]);
      if (whole_mean(r, n, rank)) {
        const bool keep = attr_i(n, "keepdims", 1) != 0;
        const std::string mean = keep ? n.outputs[0] : n.outputs[0] + "\x01mean";
        nodes.push_back(made_from(n, "GlobalAveragePool", {n.inputs[0]}, mean));
        if (!keep) nodes.push_back(made_from(n, "Flatten", {mean}, n.outputs[0]));
        any = true;
      } else if (maker >= 0 && is(r.node(static_cast<size_t>(maker)), "GlobalAveragePool") &&
                 squeezes_image(r, n, rank)) {
        nodes.push_back(made_from(n, "Flatten", {n.inputs[0]}, n.outputs[0]));
        any = true;
      } else {
        nodes.push_back(n);
      }
    }
  }
  if (any) graph.nodes = std::move(nodes);
}

}  // namespace

void canonical_pools(Graph& graph) {
  name_averages(graph);
  // Average -> Flatten or Reshape -> QuantizeLinear: the average is quantized at once, on the same grid.
  std::unordered_map<std::string, const Node*> after;  // average's output -> the QuantizeLinear behind its reader
  std::vector<Node> nodes;
  {
    const Rewriter r(graph);
    for (const Node& n : graph.nodes) {
      if (!is(n, "QuantizeLinear") || !has_input(n, 2) || !grid_of(r, n)) continue;
      const int shape = r.producer(n.inputs[0]);
      if (shape < 0 || r.only_consumer(n.inputs[0]) < 0) continue;
      const Node& s = r.node(static_cast<size_t>(shape));
      if ((!is(s, "Flatten") && !is(s, "Reshape")) || s.inputs.empty() || r.only_consumer(s.inputs[0]) != shape)
        continue;
      const int pool = r.producer(s.inputs[0]);
      if (pool < 0) continue;
      const Node& p = r.node(static_cast<size_t>(pool));
      if ((is(p, "GlobalAveragePool") || is(p, "AveragePool")) && !p.inputs.empty() && dequantized(r, p.inputs[0]))
        after[s.inputs[0]] = &n;
    }
    if (after.empty()) return;
    for (const Node& n : graph.nodes) {
      nodes.push_back(n);
      const auto found = n.outputs.empty() ? after.end() : after.find(n.outputs[0]);
      if (found == after.end()) continue;
      const Node& quantize = *found->second;
      const std::string name = n.outputs[0], plain = name + "\x01plain", q = name + "\x01q";
      nodes.back().outputs[0] = plain;
      Node first = quantize, back = quantize;
      first.inputs[0] = plain, first.outputs = {q};
      back.op = "DequantizeLinear";
      back.attrs.clear();
      back.inputs[0] = q, back.outputs = {name};
      nodes.push_back(first), nodes.push_back(back);
    }
  }
  graph.nodes = std::move(nodes);
}

}  // namespace secateur
