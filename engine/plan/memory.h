// Where the values of a plan lie in one arena: pure, from lifetimes to offsets.
#pragma once

#include <cstddef>
#include <vector>

namespace secateur {

// A buffer that must exist from step `first` (-1: from before the first one) to step `last`, both included.
struct Lifetime {
  size_t nbytes = 0;
  int first = -1, last = -1;
};

struct Placement {
  std::vector<size_t> offsets;  // of the buffers in the order given, multiples of kAlign
  size_t total = 0;             // bytes of the arena
};

inline constexpr size_t kManyBuffers = 4096;  // comparing each with each: 8 million steps

// No two buffers that live at one step overlap; each is followed by kAlign bytes that vector loads may read. Largest
// first, each at the lowest offset free during its life: within a few percent of optimal on CNNs. Beyond kManyBuffers
// in the order of their first step, n log n.
Placement place(const std::vector<Lifetime>& lives);

}  // namespace secateur
