// Functions of one quantized activation whose result is quantized again (Sigmoid, HardSwish, x * Sigmoid(x), ...): 256
// values in, 256 values out, so a table. It is computed by the reference kernels like any constant: the same bytes on
// every ISA.
#include <algorithm>
#include <map>
#include <unordered_set>

#include "graph/passes/passes.h"
#include "graph/passes/quant.h"

namespace secateur {
namespace {

constexpr size_t kMostNodes = 16;

bool elementwise(const Node& n) {
  static const std::unordered_set<std::string> ops{"Abs",
                                                   "Add",
                                                   "Celu",
                                                   "Ceil",
                                                   "Clip",
                                                   "Cos",
                                                   "Div",
                                                   "Elu",
                                                   "Erf",
                                                   "Exp",
                                                   "Floor",
                                                   "Gelu",
                                                   "HardSigmoid",
                                                   "HardSwish",
                                                   "Identity",
                                                   "LeakyRelu",
                                                   "Log",
                                                   "Max",
                                                   "Min",
                                                   "Mish",
                                                   "Mul",
                                                   "Neg",
                                                   "PRelu",
                                                   "Pow",
                                                   "Reciprocal",
                                                   "Relu",
                                                   "Round",
                                                   "Selu",
                                                   "Sigmoid",
                                                   "Sign",
                                                   "Sin",
                                                   "Softplus",
                                                   "Softsign",
                                                   "Sqrt",
                                                   "Sub",
                                                   "Tanh",
                                                   "ThresholdedRelu"};
  return n.domain.empty() && ops.count(n.op) && n.outputs.size() == 1 && !n.inputs.empty();
}

// The nodes between a QuantizeLinear and the one activation it is a function of, in order.
struct Cone {
  const Rewriter& r;
  std::optional<Grid> x;
  std::vector<size_t> nodes;
  std::unordered_set<size_t> seen;  // more than kMostNodes: too large a function, and too deep to walk

  bool add(const std::string& value) {
    if (const Tensor* t = r.f32(value)) return t->numel() == 1 && t->dims.size() <= 1;
    const int maker = r.producer(value);
    if (maker < 0) return false;
    const auto at = static_cast<size_t>(maker);
    if (!seen.insert(at).second) return true;
    if (seen.size() > kMostNodes) return false;
    const Node& n = r.node(at);
    if (is(n, "DequantizeLinear")) {
      const auto g = dequantized(r, value);
      if (!g || (x && (x->value != g->value || !(*x == *g) || x->s8 != g->s8))) return false;
      x = g;
    } else {
      if (!elementwise(n)) return false;
      for (const auto& in : n.inputs)
        if (!in.empty() && !add(in)) return false;
    }
    nodes.push_back(at);
    return true;
  }
};

// What an activation may be, in the order of its bytes as u8.
Tensor all_bytes(bool s8) {
  Tensor t;
  t.dtype = s8 ? DType::kInt8 : DType::kUInt8;
  t.dims = {256};
  for (int i = 0; i < 256; ++i) t.data.push_back(static_cast<uint8_t>(s8 ? i ^ 128 : i));
  return t;
}

}  // namespace

void make_tables(Graph& graph, Notes& notes) {
  std::vector<Node> made;
  size_t count = 0;
  {
    Rewriter r(graph);
    for (size_t i = 0; i < r.size(); ++i) {
      const Node quantize = r.node(i);
      if (r.dead(i) || !is(quantize, "QuantizeLinear")) continue;
      const auto y = grid_of(r, quantize);
      Cone cone{r, {}, {}, {}};
      if (!y || !cone.add(quantize.inputs[0]) || !cone.x) continue;
      const std::string stem = quantize.outputs[0] + "\x01table";
      const std::string bytes = r.add(stem + "/x", all_bytes(cone.x->s8));
      std::map<std::string, std::string> renamed;
      const auto copy = [&](Node n, const std::string& output) {
        for (auto& in : n.inputs)
          if (const auto it = renamed.find(in); it != renamed.end()) in = it->second;
        if (is(n, "DequantizeLinear")) n.inputs[0] = bytes;
        renamed[n.outputs[0]] = output;
        n.outputs = {output};
        made.push_back(std::move(n));
      };
      for (size_t at : cone.nodes) copy(r.node(at), stem + std::to_string(renamed.size()));
      copy(quantize, stem);
      Node table;
      table.name = quantize.name;
      table.op = "QuadTable";
      table.domain = kQuadsDomain;
      table.inputs = {cone.x->value, stem};
      table.outputs = quantize.outputs;
      const Node& last = r.node(cone.nodes.back());
      table.post = from_layer(last.post);
      table.post.x.s8 = cone.x->s8;
      table.post.s8 = y->s8;
      r.replace(i, std::move(table));
      ++count;
    }
    if (count == 0) return;
    r.sweep_dead_code();
  }
  graph.nodes.insert(graph.nodes.begin(), std::make_move_iterator(made.begin()), std::make_move_iterator(made.end()));
  drop_unread(graph);
  notes.push_back("made tables of " + std::to_string(count) + " functions of quantized activations");
}

}  // namespace secateur
