// The canonical form of a graph: what unpack gives and pack keeps.
#include <algorithm>
#include <cstring>
#include <string_view>
#include <unordered_map>

#include "base/error.h"
#include "formats/pack.h"
#include "graph/check.h"

namespace secateur {
namespace {

using Ints = std::vector<int64_t>;

bool all_equal(const Attribute& a, int64_t value) {
  const auto* v = std::get_if<Ints>(&a.value);
  return v && std::all_of(v->begin(), v->end(), [&](int64_t x) { return x == value; });
}
bool is_int(const Attribute& a, int64_t value) {
  const auto* v = std::get_if<int64_t>(&a.value);
  return v && *v == value;
}
bool is_float(const Attribute& a, float value) {
  const auto* v = std::get_if<float>(&a.value);
  return v && *v == value;
}
bool is_text(const Attribute& a, const char* value) {
  const auto* v = std::get_if<std::string>(&a.value);
  return v && *v == value;
}

// Defaults of the ONNX standard that hold in every opset (tests/formats/test_default_attributes.py); an attribute that
// says no more is left out.
bool is_default(const Node& node, const std::string& name, const Attribute& a) {
  if (!node.domain.empty()) return false;
  const std::string_view op = node.op;
  const bool pool = op == "MaxPool" || op == "AveragePool" || op == "LpPool";
  if (op == "Conv" || op == "ConvTranspose" || pool) {
    if (name == "auto_pad") return is_text(a, "NOTSET");
    if (name == "pads") return all_equal(a, 0);
    if (name == "strides" || name == "dilations") return all_equal(a, 1);
    if (name == "group") return !pool && is_int(a, 1);
    if (name == "ceil_mode" || name == "count_include_pad" || name == "storage_order") return pool && is_int(a, 0);
    return false;
  }
  if (op == "Gemm") {
    if (name == "alpha" || name == "beta") return is_float(a, 1.0f);
    return (name == "transA" || name == "transB") && is_int(a, 0);
  }
  if (op == "Flatten") return name == "axis" && is_int(a, 1);
  if (op == "BatchNormalization") {
    if (name == "epsilon") return is_float(a, 1e-5f);
    if (name == "momentum") return is_float(a, 0.9f);
    return name == "training_mode" && is_int(a, 0);
  }
  if (op == "Reshape") return name == "allowzero" && is_int(a, 0);
  if (op == "LeakyRelu") return name == "alpha" && is_float(a, 0.01f);
  if (op == "Elu") return name == "alpha" && is_float(a, 1.0f);
  if (op == "QuantizeLinear" || op == "DequantizeLinear") return name == "axis" && is_int(a, 1);
  return false;
}

// A convolution's kernel_shape repeats its weight's shape: left out in the file, put back by unpack.
bool repeats_weight(const Attribute& a, const Tensor& weight) {
  const auto* v = std::get_if<Ints>(&a.value);
  return v && weight.dims.size() >= 3 && v->size() == weight.dims.size() - 2 &&
         std::equal(v->begin(), v->end(), weight.dims.begin() + 2);
}

bool is_conv(const Node& node) { return node.domain.empty() && node.op == "Conv"; }

using Constants = std::unordered_map<std::string_view, const Tensor*>;

void refuse(const std::string& what, const Node* node = nullptr) {
  throw UnsupportedError((node ? "node '" + node_label(*node) + "': " : std::string()) + what, node ? node->name : "");
}

void check_text(const std::string& text, const char* what, const Node* node = nullptr) {
  if (text.find('\0') != std::string::npos)
    refuse(std::string(what) + " holds a zero byte, which .sct does not store", node);
  if (text.size() > 65536) refuse(std::string(what) + " is longer than 65536 bytes", node);
}

void check_tensor(const Tensor& t, const Node* node = nullptr) {
  if (dtype_size(t.dtype) == 0) {
    refuse("tensor '" + t.name + "' is " + dtype_name(t.dtype) + "; .sct stores numbers and booleans only", node);
  }
  if (t.dims.size() > 16) refuse("tensor '" + t.name + "' has more than 16 axes", node);
  if (t.data.size() > (uint64_t{1} << 40)) refuse("tensor '" + t.name + "' is larger than 1 TiB", node);
}

void check_storable(const Graph& g) {
  if (g.ir_version < 0) throw FormatError("negative ir_version");
  for (const auto& [domain, version] : g.opsets) {
    check_text(domain, "an opset domain");
    if (version < 0) throw FormatError("negative opset version");
  }
  for (const auto* list : {&g.inputs, &g.outputs}) {
    for (const ValueInfo& v : *list) {
      check_text(v.name, "an input or output name");
      if (dtype_size(v.dtype) == 0)
        refuse("'" + v.name + "' is " + dtype_name(v.dtype) + "; .sct stores numbers and booleans only");
      if (v.shape.size() > 16) refuse("'" + v.name + "' has more than 16 axes");
      for (const Dim& d : v.shape) check_text(d.symbol, "a dimension name");
    }
  }
  if (!g.functions.empty()) refuse("the model brings functions of its own, which .sct does not store");
  for (const Tensor& t : g.initializers) {
    check_text(t.name, "an initializer name");
    check_tensor(t);
  }
  for (const Node& n : g.nodes) {
    check_text(n.op, "an operator name", &n);
    check_text(n.domain, "an operator domain", &n);
    if (n.op.find(':') != std::string::npos) refuse("the operator name '" + n.op + "' holds a colon", &n);
    if (n.inputs.size() > 65536 || n.outputs.size() > 65536) refuse("more than 65536 inputs or outputs", &n);
    if (!n.overload.empty()) refuse("an overload of a function, which .sct does not store", &n);
    for (const auto& [name, a] : n.attrs) {
      check_text(name, "an attribute name", &n);
      if (std::holds_alternative<Raw>(a.value))
        refuse("attribute '" + name + "' is a subgraph, a type or strings, which .sct does not store", &n);
      if (name.empty()) refuse("an attribute without a name", &n);
      if (a.value.index() > 7) refuse("attribute '" + name + "' is of a kind the graph stream has no code for", &n);
      if (const auto* s = std::get_if<std::string>(&a.value)) check_text(*s, "an attribute's text", &n);
      if (const auto* t = std::get_if<std::shared_ptr<Tensor>>(&a.value)) {
        if (!*t) refuse("an empty tensor attribute", &n);
        check_tensor(**t, &n);
        const int64_t count = checked_numel((*t)->dims, dtype_size((*t)->dtype), "attribute '" + name + "'");
        if (static_cast<uint64_t>(count) * dtype_size((*t)->dtype) != (*t)->data.size()) {
          throw FormatError("attribute '" + name + "' of node '" + node_label(n) + "': shape and data disagree");
        }
      }
      if (const auto* list = std::get_if<std::vector<std::string>>(&a.value)) {
        for (const auto& s : *list) check_text(s, "an attribute's text", &n);
      }
      const size_t length = std::visit(
          [](const auto& v) -> size_t {
            if constexpr (requires { v.size(); }) return v.size();
            else return 0;
          },
          a.value);
      if (length > 65536) refuse("attribute '" + name + "' has more than 65536 elements", &n);
    }
  }
}

// A product of this operator takes the value as one factor: the sign of a zero in it is nobody's.
bool is_factor(const Node& node, size_t input) {
  if (!node.domain.empty() || input > 1) return false;
  return node.op == "Gemm" || node.op == "MatMul" || (input == 1 && (node.op == "Conv" || node.op == "ConvTranspose"));
}

// A weight pruned by a product with a mask is -0.0 where it was negative: zeros become +0.0, so that they cost nothing.
void drop_signs_of_zero(Tensor& t) {
  for (size_t at = 0; at + 4 <= t.data.size(); at += 4) {
    uint32_t bits;
    std::memcpy(&bits, t.data.data() + at, 4);
    if (bits == 0x80000000u) t.data[at + 3] = 0;
  }
}

}  // namespace

Graph canonical(const Graph& graph) {
  check_graph(graph);
  check_storable(graph);
  Graph g;
  g.ir_version = graph.ir_version;
  g.opsets = graph.opsets;
  g.inputs = graph.inputs;
  g.outputs = graph.outputs;
  for (auto* list : {&g.inputs, &g.outputs}) {
    for (ValueInfo& v : *list) {
      if (!v.has_shape) v.shape.clear();
      for (Dim& d : v.shape) {
        if (d.size < 0) d.size = -1;
        else d.symbol.clear();
      }
    }
  }
  g.nodes = graph.nodes;

  std::unordered_map<std::string_view, size_t> where;
  for (size_t i = 0; i < graph.initializers.size(); ++i) where[graph.initializers[i].name] = i;
  std::vector<bool> used(graph.initializers.size()), only_factor(graph.initializers.size(), true);
  std::vector<size_t> order;
  for (const Node& n : graph.nodes) {
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      const auto it = where.find(n.inputs[i]);
      if (it == where.end()) continue;
      if (!is_factor(n, i)) only_factor[it->second] = false;
      if (used[it->second]) continue;
      used[it->second] = true;
      order.push_back(it->second);
    }
  }
  for (const ValueInfo& v : graph.outputs)
    if (const auto it = where.find(v.name); it != where.end()) only_factor[it->second] = false;
  for (size_t i = 0; i < used.size(); ++i)
    if (!used[i]) order.push_back(i);
  for (size_t i : order) {
    g.initializers.push_back(graph.initializers[i]);
    Tensor& t = g.initializers.back();
    if (used[i] && only_factor[i] && t.dtype == DType::kFloat) drop_signs_of_zero(t);
  }

  for (Node& n : g.nodes) {
    for (auto it = n.attrs.begin(); it != n.attrs.end();) {
      bool drop = is_default(n, it->first, it->second);
      if (is_conv(n) && it->first == "kernel_shape" && n.inputs.size() > 1) {
        const auto weight = where.find(n.inputs[1]);
        drop = weight != where.end() && repeats_weight(it->second, graph.initializers[weight->second]);
      }
      it = drop ? n.attrs.erase(it) : std::next(it);
    }
  }
  return g;
}

void restore_kernel_shapes(Graph& g) {
  Constants constants;
  for (const Tensor& t : g.initializers) constants[t.name] = &t;
  for (Node& n : g.nodes) {
    if (!is_conv(n) || n.inputs.size() < 2 || n.attrs.count("kernel_shape")) continue;
    const auto weight = constants.find(n.inputs[1]);
    if (weight == constants.end() || weight->second->dims.size() < 3) continue;
    n.attrs["kernel_shape"].value = Ints(weight->second->dims.begin() + 2, weight->second->dims.end());
  }
}

}  // namespace secateur
