// Cuts a graph that the engine does not cover wholly into parts: the largest connected stretches it can run, and what
// another runtime must take over between them.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace secateur {

struct Part {
  bool engine = false;
  std::vector<size_t> nodes;              // of the graph, in order
  std::vector<std::string> inputs;        // values from outside that are not constant
  std::vector<std::string> outputs;       // values that other parts or the caller read
};

struct Partition {
  std::vector<Part> parts;                // in an order in which they can run
  std::map<size_t, std::string> refused;  // node -> why it is not the engine's
};

// Gives every node a name of its own, so that errors can be traced back to it.
void name_nodes(Graph& graph);

// `refused`: nodes known (from an UnsupportedError) not to run in the engine, with the reason; operators without a
// handler are added. A part without any layer that is worth changing the runtime for goes to the other side, too.
Partition partition(const Graph& graph, std::map<size_t, std::string> refused);

// The part as a graph of its own. `types`: dtype and shape of every value in part.inputs that is not a graph input;
// outputs are declared by name only.
Graph extract(const Graph& graph, const Part& part, const std::map<std::string, ValueInfo>& types);

}  // namespace secateur
