// Rewrites that need no shapes of activations: they run once when a model is loaded. Each keeps the function computed
// (BatchNorm folding up to float64 rounding) and returns lines for explain() saying what it did.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"

namespace secateur {

using Notes = std::vector<std::string>;

// All of them, in order.
Notes run_passes(Graph& graph);

}  // namespace secateur
