// Exact mode: an ONNX file without the raw data of its initializers (the skeleton), so that unpack can give back the very
// same bytes (docs/format.md, "Exact files").
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/graph_coder.h"
#include "graph/graph.h"

namespace secateur::sct {

// Which bytes are cut out is a rule both sides can follow: in every message model.graph(7).initializer(5), the first
// raw_data(9) that comes after dims(1) and data_type(2) and is numel * size long.
struct Cut {
  size_t at = 0;  // in the whole file
  Tensor tensor;  // name, dtype, dims; no data
};

// Walks a whole ONNX file. Throws FormatError.
std::vector<Cut> find_cuts(std::span<const uint8_t> onnx);

// Walks a skeleton; `at` counts in the whole file, which is `full_size` bytes long.
std::vector<Cut> find_cuts_in_skeleton(std::span<const uint8_t> skeleton, size_t full_size);

// The skeleton's bytes with their length, predicted like the texts of a graph.
template <class C>
void code_skeleton(C& c, GraphModels& models, std::vector<uint8_t>& bytes, uint64_t& full_size) {
  constexpr uint64_t kModelled = 1 << 20;  // bytes; what comes after is written as it is
  Uint sizes;
  full_size = sizes.code(c, full_size);
  const uint64_t size = sizes.code(c, bytes.size());
  if (size > full_size) throw FormatError("damaged skeleton: larger than its file");
  if constexpr (!C::kEncoding) bytes.clear();
  models.fields.restart();
  uint64_t last[5] = {0, 0, 0, 0, 0}, word = 0;
  for (uint64_t i = 0; i < size; ++i) {
    if constexpr (!C::kEncoding) {
      if ((i & 255) == 0 && c.exhausted()) throw FormatError("truncated: the skeleton's stream ends early");
      bytes.push_back(0);
    }
    if (i >= kModelled) {
      bytes[i] = static_cast<uint8_t>(c.bits(bytes[i], 8));
      continue;
    }
    const std::array<uint64_t, kMaxContexts> names = {hash(100, 0),
                                                      hash(101, last[0]),
                                                      hash(102, last[0], last[1]),
                                                      hash(103, last[0], last[1], last[2]),
                                                      hash(104, last[0], last[1], last[2], last[3]),
                                                      hash(105, last[0], last[1], last[2], last[3], last[4]),
                                                      hash(106, word),
                                                      hash(107, last[1], last[2])};
    std::array<uint64_t, kMaxContexts> at;
    uint64_t node = 1;
    for (int b = 7; b >= 0; --b) {
      for (int j = 0; j < kMaxContexts; ++j) at[j] = hash(names[j], node);
      node = 2 * node + static_cast<uint64_t>(models.fields.code(c, bytes[i] >> b & 1, at, kMaxContexts, 3));
    }
    bytes[i] = static_cast<uint8_t>(node - 256);
    const bool letter = (node | 32) - 256 >= 'a' && (node | 32) - 256 <= 'z';
    word = letter ? hash(word, node) : 0;
    for (int k = 4; k > 0; --k) last[k] = last[k - 1];
    last[0] = node;
  }
}

}  // namespace secateur::sct
