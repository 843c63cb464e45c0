// A layer packed for the ISA files, and what the ways of packing share.
#pragma once

#include <cstring>
#include <vector>

#include "base/arena.h"
#include "kernels/qconv/panel.h"
#include "kernels/qconv/qconv.h"

namespace secateur {

struct PackedPanel final : PackedQConv {
  QConvView view{};
  bool direct = false;
  double cycles = 0;
  std::vector<QSpan> spans;
  std::vector<int32_t> bias, taps;
  std::vector<float> scale, offset;
  std::vector<int32_t> sums;  // of an output's weights; dynamic only
  std::vector<QPlane> planes;
  std::vector<int32_t> narrow;
  std::vector<QChunk> chunks;
  std::vector<int64_t> row_begin;
  Buffer weights;                 // dense: words; sparse: entries
  std::vector<uint8_t> in_bytes;  // depthwise; and their weights
  std::vector<int32_t> byte_weights;

  // What every kernel needs: sizes, bias with the zero point of x folded in, the epilogue.
  void begin(const QConvKernel& k, const ConvShape& s, const QEpilogue& e, const QWeights& w);
  // Room for what a call with a zero point and scale of its own computes; last, when the sizes are known.
  void share_dynamic();
};

// A weight as the sum of up to three that the kernel multiplies: bytes, or 16 bits that hold all.
inline constexpr int kMostParts = 3;
inline int weight_part(bool bytes, int w, int part) {
  if (!bytes) return part == 0 ? w : 0;
  for (;; --part) {
    const int now = w < -128 ? -128 : w > 127 ? 127 : w;
    if (part == 0) return now;
    w -= now;
  }
}

// A block of kRows outputs, of a kernel that adds two of them in 16 bits (pairs.cc); 1 or 4.
template <int kRows>
struct ByteBlock {
  int32_t at;  // byte offset into the panel
  int8_t w[4 * kRows];
};
// Appends the block, -255 to 255, as parts that no 16-bit sum of a pair's own is too small for.
template <int kRows>
void add_byte_blocks(int32_t at, const int16_t* w, std::vector<ByteBlock<kRows>>& to);
// Reorders so that blocks 2 i and 2 i + 1 may be added; where none fits, the second is of zeros.
template <int kRows>
void pair_blocks(std::vector<ByteBlock<kRows>>& blocks);

// Four columns of a kernel row for one product of bytes; of fewer, the spare ones see the first column's values and so
// share its weight. False where a 16-bit sum may saturate.
bool place_columns(const int16_t* w, int columns, int8_t to[4]);

// Four weights as the kernel multiplies them.
inline void put_weights(int words, const int16_t w[4], int32_t* to) {
  if (words == 1) {
    for (int k = 0; k < 4; ++k) reinterpret_cast<int8_t*>(to)[k] = static_cast<int8_t>(w[k]);
    return;
  }
  const int16_t pairs[4] = {w[0], w[2], w[1], w[3]};
  std::memcpy(to, pairs, 8);
}

}  // namespace secateur
