// Constants computed while planning: whether the node in hand is one, and how much all of them may take.
#pragma once

#include <cstddef>
#include <memory>

#include "base/arena.h"
#include "graph/graph.h"

namespace secateur {

class Folding {
 public:
  // All inputs of the node in hand are constant: its steps run at once.
  bool now = false;
  double work = 0;  // of the steps run so far

  // The file's own constants: what is computed of them may be a few times as large.
  void allow_for(size_t file_bytes) { may_ += kTimesFile * file_bytes; }
  // Memory for a result of n; TooLargeError where it, or all of them together, are beyond measure.
  std::shared_ptr<Buffer> result(const Node& n, size_t nbytes);

 private:
  // One value may be as large as the weights of a big layer, not larger: a few bytes of a broken file could else ask
  // for all memory (ConstantOfShape).
  static constexpr size_t kMostBytes = size_t{1} << 30;
  static constexpr size_t kTimesFile = 4;

  size_t bytes_ = 0, may_ = kMostBytes;
};

}  // namespace secateur
