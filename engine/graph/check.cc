#include "graph/check.h"

#include <string_view>
#include <unordered_set>

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
    if (static_cast<uint64_t>(n) * size != t.data.size())
      throw FormatError("initializer '" + t.name + "' holds " + std::to_string(t.data.size()) + " bytes, its shape needs " +
                        std::to_string(static_cast<uint64_t>(n) * size));
  }
  for (const auto& node : graph.nodes) {
    if (node.op.empty()) throw FormatError("node '" + node_label(node) + "' has no operator type");
    for (const auto& in : node.inputs)
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
