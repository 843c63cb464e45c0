#include "graph/check.h"

#include <functional>
#include <queue>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/error.h"

namespace secateur {

int64_t checked_numel(const std::vector<int64_t>& dims, size_t element_size, const std::string& what, int64_t offset) {
  // 2^47 bytes is the user address space; a product below it cannot wrap and no real tensor is above it.
  constexpr uint64_t kMax = uint64_t{1} << 47;
  uint64_t n = element_size ? element_size : 1;
  bool zero = false;
  for (int64_t d : dims) {
    if (d < 0) throw FormatError(what + ": dimension " + std::to_string(d) + " is negative", offset);
    if (d == 0) {
      zero = true;
      continue;
    }
    if (static_cast<uint64_t>(d) > kMax / n) throw FormatError(what + ": dimensions overflow", offset);
    n *= static_cast<uint64_t>(d);
  }
  return zero ? 0 : static_cast<int64_t>(n / (element_size ? element_size : 1));
}

std::string node_label(const Node& node) {
  if (!node.name.empty()) return node.name;
  for (const auto& out : node.outputs)
    if (!out.empty()) return node.op + " -> " + out;
  return node.op;
}

namespace {

// Who of the nodes makes a value, and for each node how many of its values are yet to be made by whom.
struct Order {
  std::vector<size_t> missing;
  std::unordered_map<std::string_view, std::vector<size_t>> waiting;

  explicit Order(const Graph& graph) : missing(graph.nodes.size(), 0) {
    for (const auto& node : graph.nodes)
      for (const auto& out : node.outputs)
        if (!out.empty()) waiting[out];
    for (size_t i = 0; i < graph.nodes.size(); ++i)
      for (const auto* reads : {&graph.nodes[i].inputs, &graph.nodes[i].captures})
        for (const auto& in : *reads)
          if (const auto it = waiting.find(in); it != waiting.end()) it->second.push_back(i), ++missing[i];
  }
};

bool in_order(const Graph& graph) {
  std::unordered_set<std::string_view> later;
  for (const auto& node : graph.nodes)
    for (const auto& out : node.outputs)
      if (!out.empty()) later.insert(out);
  for (const auto& node : graph.nodes) {
    for (const auto* reads : {&node.inputs, &node.captures})
      for (const auto& in : *reads)
        if (later.count(in)) return false;
    for (const auto& out : node.outputs) later.erase(out);
  }
  return true;
}

}  // namespace

void sort_nodes(Graph& graph) {
  if (in_order(graph)) return;
  Order order(graph);
  std::priority_queue<size_t, std::vector<size_t>, std::greater<>> ready;
  for (size_t i = 0; i < graph.nodes.size(); ++i)
    if (order.missing[i] == 0) ready.push(i);
  std::vector<size_t> sorted;
  while (!ready.empty()) {
    const size_t i = ready.top();
    ready.pop();
    sorted.push_back(i);
    for (const auto& out : graph.nodes[i].outputs) {
      const auto it = order.waiting.find(out);
      if (it == order.waiting.end()) continue;
      for (size_t reader : it->second)
        if (--order.missing[reader] == 0) ready.push(reader);
      it->second.clear();
    }
  }
  if (sorted.size() != graph.nodes.size()) return;  // a circle: no order is right
  std::vector<Node> nodes;
  for (size_t i : sorted) nodes.push_back(std::move(graph.nodes[i]));
  graph.nodes = std::move(nodes);
}

void check_graph(const Graph& graph) {
  std::unordered_set<std::string_view> defined;
  for (const auto& in : graph.inputs) {
    if (in.name.empty()) throw FormatError("a graph input has no name");
    if (!defined.insert(in.name).second) throw FormatError("graph input '" + in.name + "' appears twice");
  }
  for (const auto& t : graph.initializers) {
    if (t.name.empty()) throw FormatError("an initializer has no name");
    if (!defined.insert(t.name).second) throw FormatError("initializer '" + t.name + "' is defined twice");
    const size_t size = dtype_size(t.dtype);
    const int64_t n = checked_numel(t.dims, size, "initializer '" + t.name + "'");
    if (!t.opaque() && static_cast<uint64_t>(n) * size != t.data.size())
      throw FormatError("initializer '" + t.name + "' holds " + std::to_string(t.data.size()) +
                        " bytes, its shape needs " + std::to_string(static_cast<uint64_t>(n) * size));
  }
  for (const auto& node : graph.nodes) {
    if (node.op.empty()) throw FormatError("node '" + node_label(node) + "' has no operator type");
    for (const auto* reads : {&node.inputs, &node.captures})
      for (const auto& in : *reads)
        if (!in.empty() && !defined.count(in))
          throw FormatError("node '" + node_label(node) + "' reads '" + in + "', which nothing before it defines");
    for (const auto& out : node.outputs)
      if (!out.empty() && !defined.insert(out).second)
        throw FormatError("node '" + node_label(node) + "' defines '" + out + "' a second time");
  }
  for (const auto& out : graph.outputs)
    if (!defined.count(out.name)) throw FormatError("graph output '" + out.name + "' is not computed by any node");
}

}  // namespace secateur
