// What a model file holds, layer by layer, before any pass: for `secateur inspect`.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"

namespace secateur {

struct LayerReport {
  int64_t index = 0;  // position among the file's nodes
  std::string name, op;
  std::vector<int64_t> shape;  // of the weight; empty when the node has none
  int64_t n_weights = 0, nnz = 0;
  int64_t n_values = 0;                // distinct nonzero values; kManyValues = that many or more
  int64_t bits = 0;                    // to name one of the values (zero included), or the stored type's
  std::vector<std::string> structure;  // what was found: "12 of 50 output channels zero", "2:4", ...
  std::vector<std::string> constants;  // initializers this node is the first to use, through constant nodes
  int64_t nbytes = 0;                  // of those, as stored in an ONNX file
};

inline constexpr int64_t kManyValues = 65536;

// Every node that depends on an input, in file order.
std::vector<LayerReport> inspect_layers(const Graph& graph);

}  // namespace secateur
