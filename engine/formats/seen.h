// What the writer knows of a tensor when it looks for layouts that fit.
#pragma once

#include "formats/study.h"

namespace secateur::sct {

struct Seen {
  const std::vector<int64_t>& dims;
  std::span<const uint8_t> data;
  const Values& values;
  double ideal_bits;  // of single elements: which are kept, and their values (TensorReport::bound_bits)

  uint64_t at(int64_t i) const { return load(data.data() + i * (values.type.width / 8), values.type.width); }
};

// A layout that fits a tensor with zeros, found by its `find`.
template <class L>
struct Found {
  L layout;
  bool zeros = false;  // there are zeros among the elements it keeps
  double bits = 0;     // what the tensor would ideally take, where that may be less than for single elements
};

}  // namespace secateur::sct
