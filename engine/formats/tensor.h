// Coding one tensor: the choice of layout and codec, the bytes, the way back.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace secateur::sct {

// What was chosen for a tensor and what its ideal coding would cost (DESIGN.md section 5).
struct TensorReport {
  std::string layout, codec;
  int version = 2;        // of a file that holds this stream, at least
  size_t nbytes = 0;      // length of the tensor's stream
  double bound_bits = 0;  // log2 C(n, nnz) + nnz * H0(values) + bits of the codebook
  int64_t n = 0, nnz = 0;
  int64_t n_values = 0;  // distinct values among the kept ones
};

struct CodedTensor {
  std::vector<uint8_t> bytes;
  TensorReport report;
};

inline constexpr int kNewest = 4;  // version of the files that are read and written here

// The tensors of a file before this one, as bytes: what a tensor of version 2 may point back at.
using Earlier = std::vector<std::span<const uint8_t>>;

// What the writer knows of the tensors before.
struct Past {
  Earlier tensors;
  std::vector<std::vector<uint64_t>> sketches;  // of each: see sketch_of()
};

// The shortest coding among those tried. `own` is the tensor's sketch; empty: like no earlier one.
CodedTensor encode_tensor(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data,
                          const Past& past = {}, const std::vector<uint64_t>& own = {});

// The same, without looking for anything: raw elements.
CodedTensor encode_tensor_raw(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data);

// A tensor that has the bytes of the one `back` before (1: the last).
CodedTensor encode_same(DType dtype, const std::vector<int64_t>& dims, const Earlier& earlier, size_t back);

// Fills `data` (numel * dtype size bytes) from the stream at the start of `bytes`; returns the stream's length.
// `version`: the file's, 1 to kNewest. Throws FormatError. `report`, when given, gets layout, codec and length.
size_t decode_tensor(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> bytes,
                     std::vector<uint8_t>& data, const Earlier& earlier, int version, TensorReport* report = nullptr);

// Fills n, nnz, n_values and bound_bits of a report from the values.
void bound_of(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data, TensorReport& report);

// log2 C(n, k)
double log2_choose(int64_t n, int64_t k);

}  // namespace secateur::sct
