// Moving elements without computing: strided copies (Slice, Transpose, Expand, Concat, Pad, Gather).
#pragma once

#include <cstdint>

#include "kernels/eltwise/typed.h"

namespace secateur {

// For every index in dims: dst[sum index*stride_dst] = src[sum index*stride_src]. Strides count elements and may be
// zero (repeat) or negative (reversed) in the source. No overlap between src and dst.
struct Copy {
  int rank = 0;
  int64_t dims[kMaxRank] = {};
  int64_t stride_src[kMaxRank] = {};
  int64_t stride_dst[kMaxRank] = {};
  int64_t offset_src = 0, offset_dst = 0;  // elements
  int element = 4;                         // bytes: 1, 2, 4 or 8
};

// Drops axes of size 1 and merges neighbours that are walked as one. Call once when planning.
void simplify(Copy& c);
void copy_ref(const Copy& c, const void* src, void* dst) noexcept;

// Writes `n` elements of `element` bytes, all equal to *value.
void fill_ref(void* dst, int64_t n, const void* value, int element) noexcept;

// Of `n` matrices [rows, cols] the part on and above diagonal k (upper) or on and below it; zeros elsewhere. k counts
// to the right of the main diagonal and may lie outside of the matrix.
struct Triangle {
  int64_t n = 0, rows = 0, cols = 0, k = 0;
  bool upper = true;
  int element = 4;  // bytes
};
void triangle_ref(const Triangle& t, const void* src, void* dst) noexcept;

}  // namespace secateur
