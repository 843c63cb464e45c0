// What a tensor's values are like, found once before any coding is tried.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "formats/values.h"

namespace secateur::sct {

inline constexpr int64_t kCodebookMax = 65536;  // entries
inline constexpr int64_t kGridMax = 65536;      // largest whole number on a grid

struct Values {
  Pattern type;
  int64_t n = 0, nnz = 0;
  bool few = false;               // at most kCodebookMax distinct patterns: then the three below are known
  std::vector<uint64_t> entries;  // distinct patterns in ascending key order, 0 included when present
  std::vector<int64_t> counts;    // of each entry
  std::vector<int32_t> index;     // entry of each element
  int shift = 0;                  // trailing zero bits of all nonzero patterns
  bool ints_fit = false;          // whole numbers below 2^61
  uint32_t scale = 0;             // every value is float32(q * scale); 0 = no such scale found
};

// `data`: n elements of the dtype.
Values study(DType dtype, int64_t n, std::span<const uint8_t> data);

// Guesses from a part of the tensor, about 10 ns an element.
struct Hints {
  bool repeats = false;  // in rows, mirrored, or from row to row
  bool smooth = false;   // values go on as lines through their neighbours
};
Hints hints_of(const Values& v, std::span<const uint8_t> data, int64_t stride);

// The magnitudes with the least hashes, sorted: tensors that share values share these. Empty for narrow types.
using Sketch = std::vector<uint64_t>;
inline constexpr size_t kSketch = 32;
Sketch sketch_of(DType dtype, std::span<const uint8_t> data);
bool alike(const Sketch& a, const Sketch& b);

inline uint64_t load(const uint8_t* p, int width) {
  uint64_t x = 0;
  std::memcpy(&x, p, static_cast<size_t>(width / 8));
  return x;
}

}  // namespace secateur::sct
