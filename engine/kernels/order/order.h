// ArgMax, ArgMin and TopK along one axis, fp32: x viewed as [outer][axis][inner], contiguous. NaN counts as the
// largest.
#pragma once

#include <cstdint>

namespace secateur {

struct ArgArgs {
  const float* x = nullptr;
  int64_t* y = nullptr;  // [outer][inner]
  int64_t outer = 1, axis = 1, inner = 1;
  bool smallest = false, last = false;  // last: of equal ones the last
};
void arg_ref(const ArgArgs& args);

struct TopKArgs {
  const float* x = nullptr;
  float* values = nullptr;  // [outer][k][inner]
  int64_t* indices = nullptr;
  int64_t* scratch = nullptr;  // [axis]
  int64_t outer = 1, axis = 1, inner = 1, k = 1;
  bool largest = true;
};
// Sorted, best first; of equal ones the lower index first.
void top_k_ref(const TopKArgs& args);

}  // namespace secateur
