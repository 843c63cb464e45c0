// Which inputs and outputs of a plan may lie in a caller's memory instead of the arena: a copy less of each.
#pragma once

#include <vector>

#include "plan/lowering.h"

namespace secateur {

// For every input, the values that lie in its memory; none where it must be copied in.
std::vector<std::vector<int>> lent_inputs(const std::vector<Value>& values, const std::vector<int>& inputs);
// The same for every output.
std::vector<std::vector<int>> lent_outputs(const std::vector<Value>& values, const std::vector<int>& outputs);

}  // namespace secateur
