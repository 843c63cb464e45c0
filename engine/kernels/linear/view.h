// What the packer hands to the ISA files: plain structs of numbers and pointers, no code.
//
// Sparse, few rows. Output features are sorted by their number of nonzeros and taken in groups of 8: for j < common the
// group's j-th nonzeros stand side by side, so eight sums run at once and no branch depends on the data; what longer
// members have beyond `common` follows member by member. Column indices have 16 bits (32 when there are more inputs).
// Scalar loads beat gathers: 0.76 cycles a nonzero against 1.3 on Zen 4 (1.7 on Cascade Lake).
//
// Sparse, many rows. x is transposed tile by tile into [in][tile rows], then a nonzero multiplies whole vectors of
// rows. Inputs are taken in chunks whose part of the panel stays in the first cache, sums wait in scratch meanwhile.
// Nonzeros lie chunk by chunk, then in units of kLinearUnit features, those of equal counts beside each other: then the
// branch at a feature's end is predicted. kLinearTurn features at a time are turned back into rows: feature by feature
// every store would open another cache line (7 times slower where rows are long).
//
// Blocks. Features are taken 16 by 16; of each block the columns with any nonzero follow one another, 16 weights a
// column.
//
// Dense. Weights lie in panels of `panel` output features: [panel][in][features in panel], zeros behind the last.
#pragma once

#include <cstdint>

namespace secateur {

inline constexpr int kLinearGroup = 8, kLinearBlock = 16;

struct LinearGroup {
  int32_t common;
  int32_t tail[kLinearGroup];
  int32_t has_tail;
  int64_t begin;  // into columns and weights
};

struct LinearView {
  int32_t in, out;
  float lo, hi, slope;
  const float* bias;  // groups: in the order of `order`; dense: padded to whole panels
  // sparse
  const int32_t* order;       // output feature of the k-th sorted feature
  const LinearGroup* groups;  // of sorted features 8k .. 8k+7; the last may have fewer
  int32_t n_groups;
  const uint16_t* columns16;  // one of the two
  const uint32_t* columns32;
  const float* weights;
  const int64_t* row_begin;  // blocks: row_begin[o] .. row_begin[o+1] into columns and weights
  // many rows: per chunk and unit its features (within the unit), their counts and where its nonzeros begin; columns16
  // count from the chunk's first input
  const uint8_t* member;
  const int32_t* count;
  const int64_t* unit_begin;
  int32_t n_chunks, chunk, n_units;
  // dense
  const float* panels;
};

struct LinearTask {
  const float* x;  // first row of the task
  float* y;
  const float* residual;  // or null
  int64_t rows;
  int32_t begin, end;  // groups or units (sparse), blocks or panels (dense)
  float* scratch;      // many rows: [in][kTile] | [kLinearUnits * kLinearUnit][kTile]
};

using LinearTaskFn = void (*)(const LinearView&, const LinearTask&);

// Dense register block: rows x vectors of features.
inline constexpr int kLinearRows = 6, kLinearVectors = 4, kLinearVectorsSmall = 2;
// Many rows: rows taken at a time, in vectors; features in a unit, units whose sums wait at once, features turned back
// into rows at a time.
constexpr int linear_tile_vectors(int registers) { return registers == 32 ? 4 : 8; }
inline constexpr int kLinearUnit = 64, kLinearUnits = 8, kLinearTurn = 16;

}  // namespace secateur
