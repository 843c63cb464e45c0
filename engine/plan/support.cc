#include "plan/support.h"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "graph/passes/passes.h"
#include "plan/lowering.h"

namespace secateur {
namespace {

// Values that no kernel can read, and what they are.
using Strange = std::unordered_map<std::string, std::string>;

Strange strange_values(const Graph& g) {
  Strange values;
  for (const Tensor& t : g.initializers) {
    if (t.form == Tensor::Form::kSparseMessage) values[t.name] = "a sparse tensor";
    else if (t.opaque())
      values[t.name] =
          t.dtype == DType::kUndefined ? "a tensor in segments" : std::string("of element type ") + dtype_name(t.dtype);
  }
  for (const auto* list : {&g.inputs, &g.outputs})
    for (const ValueInfo& v : *list) {
      if (!v.type.empty()) values[v.name] = "no tensor";
      else if (dtype_size(v.dtype) == 0 && v.dtype != DType::kUndefined)
        values[v.name] = std::string("of element type ") + dtype_name(v.dtype);
    }
  return values;
}

std::string operator_name(const Node& n) { return n.domain.empty() ? n.op : n.domain + "." + n.op; }

std::string why_not(const Node& n, const Strange& strange,
                    const std::set<std::pair<std::string, std::string>>& functions) {
  if (n.domain == kQuadsDomain || !find_operator(n.domain, n.op))
    return "operator " + operator_name(n) + " is not supported";
  if (functions.count({n.domain, n.op}))
    return "operator " + operator_name(n) + " is a function of the model, which is not supported";
  for (const auto& [name, a] : n.attrs)
    if (std::holds_alternative<Raw>(a.value)) return "attribute '" + name + "' is of a kind that is not supported";
  for (const auto* list : {&n.inputs, &n.outputs})
    for (const auto& value : *list)
      if (const auto it = strange.find(value); it != strange.end())
        return "value '" + value + "' is " + it->second + ", which is not supported";
  return {};
}

}  // namespace

std::map<size_t, std::string> unsupported_nodes(const Graph& graph) {
  Strange strange = strange_values(graph);
  std::set<std::pair<std::string, std::string>> functions;
  for (const Function& f : graph.functions) functions.emplace(f.domain, f.name);
  std::map<size_t, std::string> refused;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& n = graph.nodes[i];
    std::string why = why_not(n, strange, functions);
    if (why.empty()) continue;
    // A Constant of strings or of four-bit numbers: who reads it is refused as well.
    if (n.op == "Constant" && n.domain.empty())
      for (const auto& out : n.outputs) strange.emplace(out, "a constant of a kind");
    refused.emplace(i, std::move(why));
  }
  return refused;
}

bool is_function(const Node& node) {
  static const char* random[] = {"Bernoulli",        "Dropout",       "Multinomial",      "RandomNormal",
                                 "RandomNormalLike", "RandomUniform", "RandomUniformLike"};
  if (find_operator(node.domain, node.op) == nullptr && !node.domain.empty()) return false;
  if (!node.captures.empty() ||
      std::any_of(std::begin(random), std::end(random), [&](const char* op) { return node.op == op; }))
    return false;
  // A subgraph may hold any of those; a Constant's raw value is none.
  return node.op == "Constant" || std::none_of(node.attrs.begin(), node.attrs.end(), [](const auto& a) {
           return std::holds_alternative<Raw>(a.second.value);
         });
}

}  // namespace secateur
