#include "formats/graph/names.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

namespace secateur::sct {
namespace {

// Inner values are called t<node>, further outputs t<node>_<i>, with "_" appended while the name is taken.
void name_values(Graph& g, std::unordered_set<std::string>& taken) {
  std::unordered_map<std::string, std::string> renamed;
  const auto rename = [&](std::string& name) {
    if (name.empty() || name[0] != '\0') return;
    auto [it, is_new] = renamed.emplace(name, "");
    if (is_new) {
      std::string to = "t" + name.substr(1);
      while (!taken.insert(to).second) to += "_";
      it->second = to;
    }
    name = it->second;
  };
  for (Node& node : g.nodes) {
    for (auto& name : node.inputs) rename(name);
    for (auto& name : node.outputs) rename(name);
  }
}

// A node is called as its first initializer up to the last dot, else <op>_<number>; the second node that would get a
// name (two read one constant) gets it with _<number>, and "_" appended while that is taken: ONNX Runtime refuses
// files in which two nodes have one name.
void name_nodes(Graph& g) {
  std::unordered_set<std::string_view> constants;
  for (const Tensor& t : g.initializers) constants.insert(t.name);
  std::unordered_set<std::string> used;
  for (size_t k = 0; k < g.nodes.size(); ++k) {
    Node& node = g.nodes[k];
    const auto own = std::find_if(node.inputs.begin(), node.inputs.end(),
                                  [&](const auto& name) { return constants.count(name) > 0; });
    if (own != node.inputs.end()) node.name = own->substr(0, own->rfind('.'));
    if (node.name.empty()) node.name = node.op + "_" + std::to_string(k);
    if (used.count(node.name)) node.name += "_" + std::to_string(k);
    while (!used.insert(node.name).second) node.name += "_";
  }
}

}  // namespace

std::string provisional_name(size_t node, uint64_t slot) {
  return std::string("\0", 1) + std::to_string(node) + (slot ? "_" + std::to_string(slot) : "");
}

void give_names(Graph& g, std::unordered_set<std::string>& taken) {
  name_values(g, taken);
  name_nodes(g);
}

}  // namespace secateur::sct
