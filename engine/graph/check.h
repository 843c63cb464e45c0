// The invariants every Graph holds before a pass, a packer or the plan sees it; both readers end with this check.
#pragma once

#include "graph/graph.h"

namespace secateur {

// Names of values unique, every node input defined before its use (topological order), graph outputs defined,
// initializers exactly numel * dtype_size bytes long with non-negative dims that do not overflow.
// Throws FormatError naming the node or value.
void check_graph(const Graph& graph);

// Puts nodes that stand before what they read behind it, the others as in the file: ONNX asks writers for that order,
// and not all keep to it. What reads a value that nobody makes stays where it is, for check_graph().
void sort_nodes(Graph& graph);

// Product of dims; throws FormatError("<what>: ...") on a negative dim or when numel * element_size overflows 2^47.
int64_t checked_numel(const std::vector<int64_t>& dims, size_t element_size, const std::string& what,
                      int64_t offset = -1);

// How errors and reports call a node: its name, else "<op> -> <first output>".
std::string node_label(const Node& node);

}  // namespace secateur
