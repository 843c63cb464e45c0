#include <cstring>
#include <unordered_set>

#include "graph/attrs.h"
#include "graph/graph.h"
#include "graph/passes/passes.h"
#include "plan/session.h"

namespace secateur {
namespace {

// What the engine refuses to compute stays a node: who plans it says so, and may hand it over.
bool folds(Lowering& L, const Node& node) {
  for (const auto& [name, a] : node.attrs)
    if (std::holds_alternative<Raw>(a.value)) return false;
  try {
    return L.fold(node);
  } catch (const TooLargeError&) {
    throw;
  } catch (const UnsupportedError&) {
    L.forget(node);
    return false;
  }
}

}  // namespace

size_t fold_constants(Graph& graph, bool keep_dequantize, const Limits& limits) {
  PackCache cache;
  // Reference kernels: what is folded must not depend on the machine.
  Lowering L(graph, cache, Isa::kRef, 1);
  L.set_limits(limits);
  std::vector<Node> left;
  std::vector<std::string> folded;
  for (Node& node : graph.nodes) {
    // Initializers are plain tensors: what lies in another layout is not one.
    const bool keep = (keep_dequantize && node.op == "DequantizeLinear") || node.domain == kQuadsDomain ||
                      node.post.place != PostOps::Place::kPlain;
    if (!keep && folds(L, node)) {
      for (const auto& out : node.outputs)
        if (!out.empty()) folded.push_back(out);
    } else {
      left.push_back(node);
    }
  }
  const size_t count = graph.nodes.size() - left.size();
  if (count == 0) return 0;
  std::unordered_set<std::string> used;
  for (const auto& node : left)
    for (const auto& in : node.inputs) used.insert(in);
  for (const auto& out : graph.outputs) used.insert(out.name);
  std::vector<Tensor> made;
  for (const auto& name : folded) {
    if (!used.count(name)) continue;
    const Value& v = L.value(L.find(name));
    Tensor t;
    t.name = name;
    t.dtype = v.dtype;
    t.dims = v.dims;
    t.data.assign(v.constant, v.constant + v.nbytes());
    made.push_back(std::move(t));
  }
  // Only now: L looks into the graph's own tensors.
  std::vector<Tensor> kept;
  for (auto& t : graph.initializers)
    if (used.count(t.name)) kept.push_back(std::move(t));
  for (auto& t : made) kept.push_back(std::move(t));
  graph.initializers = std::move(kept);
  graph.nodes = std::move(left);
  return count;
}

}  // namespace secateur
