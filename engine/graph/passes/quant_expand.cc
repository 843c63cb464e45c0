// QLinear operators in the words of QuantizeLinear and DequantizeLinear: one pattern then serves both ways of writing a
// quantized network, and whatever the patterns do not cover runs in float32 with the same meaning. Fused products of
// dynamic quantization in the words of MatMulInteger, Cast, Mul and Add.
#include <cstring>

#include "base/error.h"
#include "graph/attrs.h"
#include "graph/check.h"
#include "graph/passes/passes.h"

namespace secateur {
namespace {

class Expander {
 public:
  Expander(std::vector<Node>& to, const Node& from) : to_(to), from_(from), layer_(from.post.layer) {}

  std::string input(size_t i) const { return i < from_.inputs.size() ? from_.inputs[i] : std::string(); }
  // Names that no file uses: '\x01' cannot be typed, and each output is made once.
  std::string fresh(const std::string& part) const { return from_.outputs[0] + "\x01" + part; }

  Node& add(const std::string& op, std::vector<std::string> inputs, const std::string& output) {
    Node n;
    n.name = node_label(from_);
    n.op = op;
    n.inputs = std::move(inputs);
    n.outputs = {output};
    n.post.layer = layer_;
    to_.push_back(std::move(n));
    return to_.back();
  }
  std::string dequantized(const std::string& part, const std::string& x, const std::string& scale,
                          const std::string& zero, int64_t axis = 1) {
    Node& n = add("DequantizeLinear", {x, scale}, fresh(part));
    if (!zero.empty()) n.inputs.push_back(zero);
    n.attrs["axis"].value = axis;
    return n.outputs[0];
  }
  void quantize(const std::string& x, const std::string& scale, const std::string& zero) {
    Node& n = add("QuantizeLinear", {x, scale}, from_.outputs[0]);
    if (!zero.empty()) n.inputs.push_back(zero);
  }
  std::string product(const std::string& part, const std::string& a, const std::string& b) {
    return add("Mul", {a, b}, fresh(part)).outputs[0];
  }

 private:
  std::vector<Node>& to_;
  const Node& from_;
  int64_t layer_;
};

void check_inputs(const Node& n, size_t least, size_t most) {
  if (n.inputs.size() < least || n.inputs.size() > most || n.outputs.size() != 1)
    throw FormatError("node '" + node_label(n) + "' (" + n.op + ") has " + std::to_string(n.inputs.size()) +
                      " inputs, " + std::to_string(least) + " to " + std::to_string(most) + " make sense");
}

bool expand(std::vector<Node>& to, const Node& n) {
  Expander e(to, n);
  const bool microsoft = n.domain == "com.microsoft";
  if (n.domain.empty() && n.op == "QLinearConv") {
    check_inputs(n, 8, 9);
    const auto x = e.dequantized("x", e.input(0), e.input(1), e.input(2));
    const auto w = e.dequantized("w", e.input(3), e.input(4), e.input(5), 0);
    std::vector<std::string> inputs{x, w};
    if (!e.input(8).empty())
      inputs.push_back(e.dequantized("b", e.input(8), e.product("bs", e.input(1), e.input(4)), "", 0));
    Node& conv = e.add("Conv", inputs, e.fresh("y"));
    conv.attrs = n.attrs;
    e.quantize(e.fresh("y"), e.input(6), e.input(7));
    return true;
  }
  if (n.op == "QLinearMatMul" && (n.domain.empty() || microsoft)) {
    check_inputs(n, 8, 8);
    // Scales that are vectors: one per row of A, one per column of B.
    const auto a = e.dequantized("a", e.input(0), e.input(1), e.input(2), -2),
               b = e.dequantized("b", e.input(3), e.input(4), e.input(5), -1);
    e.add("MatMul", {a, b}, e.fresh("y"));
    e.quantize(e.fresh("y"), e.input(6), e.input(7));
    return true;
  }
  if (!microsoft) return false;
  if (n.op == "QLinearAdd" || n.op == "QLinearMul") {
    check_inputs(n, 7, 8);
    const auto a = e.dequantized("a", e.input(0), e.input(1), e.input(2)),
               b = e.dequantized("b", e.input(3), e.input(4), e.input(5));
    e.add(n.op.c_str() + std::strlen("QLinear"), {a, b}, e.fresh("y"));
    e.quantize(e.fresh("y"), e.input(6), e.input(7));
    return true;
  }
  if (n.op == "QLinearAveragePool" || n.op == "QLinearGlobalAveragePool" || n.op == "QLinearLeakyRelu" ||
      n.op == "QLinearSigmoid") {
    check_inputs(n, 4, 5);
    if (attr_i(n, "channels_last", 0) != 0)
      throw UnsupportedError(
          "node '" + node_label(n) + "' (" + n.op + "): channels_last, supported: channels on axis 1", n.name);
    Node& f = e.add(n.op.substr(std::strlen("QLinear")), {e.dequantized("x", e.input(0), e.input(1), e.input(2))},
                    e.fresh("y"));
    for (const auto& [name, value] : n.attrs)
      if (name != "channels_last") f.attrs[name] = value;
    e.quantize(e.fresh("y"), e.input(3), e.input(4));
    return true;
  }
  if (n.op == "QLinearConcat") {
    if (n.inputs.size() < 5 || n.inputs.size() % 3 != 2 || n.outputs.size() != 1)
      throw FormatError("node '" + node_label(n) + "' (" + n.op + ") has " + std::to_string(n.inputs.size()) +
                        " inputs, needed: a scale, a zero point, and three for each operand");
    std::vector<std::string> parts;
    for (size_t i = 2; i < n.inputs.size(); i += 3)
      parts.push_back(e.dequantized("x" + std::to_string(i), e.input(i), e.input(i + 1), e.input(i + 2)));
    e.add("Concat", parts, e.fresh("y")).attrs["axis"].value = attr_i(n, "axis", 0);
    e.quantize(e.fresh("y"), e.input(0), e.input(1));
    return true;
  }
  if (n.op == "DynamicQuantizeMatMul" || n.op == "MatMulIntegerToFloat") {
    const bool dynamic = n.op == "DynamicQuantizeMatMul";
    check_inputs(n, dynamic ? 3 : 4, dynamic ? 5 : 7);
    std::string a = e.input(0), a_scale = e.input(2), a_zero = e.input(4);
    if (dynamic) {
      Node& quantize = e.add("DynamicQuantizeLinear", {a}, e.fresh("a"));
      quantize.outputs = {a = e.fresh("a"), a_scale = e.fresh("as"), a_zero = e.fresh("az")};
    }
    const auto b_scale = e.input(dynamic ? 2 : 3), b_zero = e.input(dynamic ? 3 : 5), bias = e.input(dynamic ? 4 : 6);
    const auto sums = e.add("MatMulInteger", {a, e.input(1), a_zero, b_zero}, e.fresh("i")).outputs[0];
    Node& cast = e.add("Cast", {sums}, e.fresh("f"));
    cast.attrs["to"].value = static_cast<int64_t>(DType::kFloat);
    const auto scale = e.product("s", a_scale, b_scale);
    e.add("Mul", {e.fresh("f"), scale}, bias.empty() ? n.outputs[0] : e.fresh("y"));
    if (!bias.empty()) e.add("Add", {e.fresh("y"), bias}, n.outputs[0]);
    return true;
  }
  if (n.op == "QGemm") {
    check_inputs(n, 6, 9);
    const float alpha = attr_f(n, "alpha", 1.0f);
    const bool trans_b = attr_i(n, "transB", 0) != 0;
    const auto a = e.dequantized("a", e.input(0), e.input(1), e.input(2));
    const auto b = e.dequantized("b", e.input(3), e.input(4), e.input(5), trans_b ? 0 : 1);
    std::vector<std::string> inputs{a, b};
    if (!e.input(6).empty())
      inputs.push_back(e.dequantized("c", e.input(6), e.product("cs", e.input(1), e.input(4)), "", 0));
    const bool quantized = !e.input(7).empty();
    Node& gemm = e.add("Gemm", inputs, quantized ? e.fresh("y") : n.outputs[0]);
    gemm.attrs["alpha"].value = alpha;
    gemm.attrs["beta"].value = alpha;  // C is quantized in steps of alpha * a_scale * b_scale
    gemm.attrs["transA"].value = attr_i(n, "transA", 0);
    gemm.attrs["transB"].value = int64_t{trans_b};
    if (quantized) e.quantize(e.fresh("y"), e.input(7), e.input(8));
    return true;
  }
  return false;
}

}  // namespace

void expand_qoperators(Graph& graph, Notes& notes) {
  std::vector<Node> nodes;
  size_t count = 0;
  for (const Node& n : graph.nodes) {
    if (expand(nodes, n)) {
      ++count;
    } else {
      nodes.push_back(n);
    }
  }
  graph.nodes = std::move(nodes);
  if (count)
    notes.push_back("read " + std::to_string(count) + " fused quantized operators as dequantize, compute, quantize");
}

}  // namespace secateur
