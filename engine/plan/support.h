// What of a graph the engine has no notion of or no operator for, told without planning.
#pragma once

#include <map>
#include <string>

#include "graph/graph.h"

namespace secateur {

// Node -> why the engine cannot run it: it has no such operator, or the node touches something raw (graph.h).
std::map<size_t, std::string> unsupported_nodes(const Graph& graph);

// Whether a node gives the same results for the same inputs, and reads nothing but its inputs.
bool is_function(const Node& node);

}  // namespace secateur
