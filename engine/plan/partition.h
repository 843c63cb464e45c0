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
  std::vector<size_t> nodes;          // of the graph, in order
  std::vector<std::string> inputs;    // values from outside that are not constant
  std::vector<std::string> outputs;   // values that other parts or the caller read
  std::vector<std::string> computed;  // engine: constants that it refuses to compute; the other runtime does, once
};

struct Partition {
  std::vector<Part> parts;                // in an order in which they can run
  std::map<size_t, std::string> refused;  // node -> why it is not the engine's
};

// Gives every node a name of its own, so that errors can be traced back to it.
void name_nodes(Graph& graph);

// `refused`: nodes known (from an UnsupportedError) not to run in the engine, with the reason; those of
// unsupported_nodes() are added. A part without any layer that is worth changing the runtime for goes to the other
// side, too.
Partition partition(const Graph& graph, std::map<size_t, std::string> refused);

// The part as a graph of its own. `types`: dtype and shape of the values in part.inputs; where they are missing, what
// the graph's inputs declare. `given`: constants that stand for the nodes behind them. Outputs are declared by name
// only.
Graph extract(const Graph& graph, const Part& part, const std::map<std::string, ValueInfo>& types,
              const std::map<std::string, Tensor>& given = {});

}  // namespace secateur
