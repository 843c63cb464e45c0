// Weights whose kernels are packed are read again only when the model is planned for other shapes. Until then they lie
// here as a mask and their nonzeros, and the pages of the tensor go back to the system; its address stays.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/graph.h"

namespace secateur {

class Away {
 public:
  // Takes the values of a float32 tensor of `kLeast` bytes or more of which at most half are not zero. False where that
  // would not save memory; then nothing happened.
  bool put(Tensor& t);
  // Every tensor as it was, but that -0, which a product with a mask leaves, is 0.
  void bring_back();
  bool empty() const { return taken_.empty(); }

  static constexpr size_t kLeast = size_t{1} << 20;

 private:
  struct Taken {
    Tensor* tensor;
    std::vector<uint64_t> mask;  // bit i of word k: element 64 k + i is not zero
    std::vector<uint32_t> values;
  };
  std::vector<Taken> taken_;
};

}  // namespace secateur
