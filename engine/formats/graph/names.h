// The names that a file does not hold (docs/format.md, 5.3).
#pragma once

#include <string>
#include <unordered_set>

#include "graph/graph.h"

namespace secateur::sct {

// Decoder: what an inner value is called until give_names(), in a way no file can hold.
std::string provisional_name(size_t node, uint64_t slot);

// Names inner values and nodes; `taken`: names of inputs, outputs and initializers.
void give_names(Graph& g, std::unordered_set<std::string>& taken);

}  // namespace secateur::sct
