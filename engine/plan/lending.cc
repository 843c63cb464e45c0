#include "plan/lending.h"

#include <algorithm>

namespace secateur {
namespace {

std::vector<int> sharing(const std::vector<Value>& values, int storage) {
  std::vector<int> ids;
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i].storage == storage) ids.push_back(static_cast<int>(i));
  return ids;
}

}  // namespace

// Numbers only: an index that its owner changes during a run could leave its axis after it was checked.
std::vector<std::vector<int>> lent_inputs(const std::vector<Value>& values, const std::vector<int>& inputs) {
  std::vector<std::vector<int>> lent;
  for (int id : inputs) {
    const Value& v = values[static_cast<size_t>(id)];
    lent.push_back(v.dtype == DType::kFloat && v.anywhere && !v.constant ? sharing(values, id) : std::vector<int>{});
  }
  return lent;
}

// Not what is an input or a constant by another name, nor one memory for two outputs.
std::vector<std::vector<int>> lent_outputs(const std::vector<Value>& values, const std::vector<int>& outputs) {
  const auto storage = [&](int id) { return values[static_cast<size_t>(id)].storage; };
  std::vector<std::vector<int>> lent;
  for (int id : outputs) {
    const Value& v = values[static_cast<size_t>(storage(id))];
    const auto same = std::count_if(outputs.begin(), outputs.end(), [&](int o) { return storage(o) == storage(id); });
    const bool own = v.first >= 0 && !v.is_input && !v.constant && v.layout == ValueLayout::kPlain && same == 1;
    lent.push_back(own && v.dtype == DType::kFloat ? sharing(values, storage(id)) : std::vector<int>{});
  }
  return lent;
}

}  // namespace secateur
