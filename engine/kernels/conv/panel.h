// What the packer hands to the ISA files: plain structs of numbers and pointers, no code.
//
// The panel. A task handles a tile: some rows of one output image, all or some output channels. It first copies what it
// needs of the input into its scratch, channel chunk by channel chunk, as planes: one plane per (input channel, column
// shift, row phase), whose element (r, j) is
//
//     x[channel][(row0 + r) * step_h + phase - pad_top][j * step_w + shift - pad_left]        (0 outside the image)
//
// with step = stride, or 2 * stride under a fused 2x2 pool. Rows are `pitch` floats apart and the pixels of a tile are
// one flat run of rows * pitch floats, so a kernel tap (u, v) of stride-1 output pixel f is plane(c, v)[u * pitch + f]:
// one constant offset per nonzero weight, whatever the kernel size, stride, dilation and padding. Where pitch is a
// multiple of 8 all vector loads are aligned to 32 bytes, which is worth 1.5x (measured on Zen 4; 1.8x on Cascade Lake
// with 64 bytes). Planes no nonzero refers to are neither stored nor filled.
//
// Two other ways of holding the input. Images of few pixels whose size a layer keeps are held as *taps*: one plane per
// (input channel, kernel tap), the whole image moved by the tap and aligned to vectors; filling it is one masked copy.
// A 1x1 kernel over images that are whole vectors reads its input *in place*: planes are the channels themselves.
//
// Kernels three columns wide over rows of whole vectors may hold the *middle* column's planes only. The left and the
// right column's nonzeros are summed apart, and those sums moved by one lane when a channel is done: a third of the
// panel, for two moves a vector and channel.
//
// Images of at most four pixels are held as taps of four floats, and a vector takes as many nonzeros as it has groups
// of four lanes ("quads").
//
// Where output channels are the lanes ("outputs") a plane is the padded image itself, one a channel and in full
// resolution whatever the stride: a pixel is broadcast, so that it may lie anywhere. Without padding the input is read
// in place.
//
// Under a fused pool every weight meets four pixels of each window. The two columns are two planes `pair` floats apart;
// the two rows have an offset each. The maximum over the window is then four registers, lane by lane: no shuffles.
// Where rows are half, one or two vectors wide the pixels stay in their order and are pooled ("folded") in registers
// when a channel is done; that saves planes, and wins on small maps. Taps are pooled through a buffer.
#pragma once

#include <cstdint>

namespace secateur {

struct ConvPlane {
  int32_t channel;
  int32_t shift, phase;  // column and row of the input, before padding is taken off
  int32_t extra;         // rows needed beyond the tile's own
  int32_t begin, end;    // columns j that lie inside the image; 0 elsewhere
  uint32_t offset;       // floats from the start of the panel
};

struct ConvTap {
  int32_t channel;
  int32_t from;     // first float it copies, from the start of the channel; may lie before it
  int32_t mask;     // its first vector's lanes, into tap_masks
  uint32_t offset;  // floats from the start of the panel
};

// The nonzeros of one output channel in one chunk.
struct ConvRow {
  int32_t out;
  int32_t count;
  int32_t left, right;  // middle: nonzeros of the left column come first, then the right one's
  int64_t begin;        // into near or far, and nonzeros
  uint8_t first, last;  // of this channel's rows: starts from the bias, ends with the epilogue
};

struct ConvChunk {
  int32_t plane_begin, plane_end;  // into planes or tap_planes
  // dense: taps[tap_begin .. tap_end) are panel offsets, weights [block of out channels][tap][out in block]
  int32_t tap_begin, tap_end;
  int64_t weight_begin;
};

struct ConvView {
  // input image and planes
  int64_t in_plane;  // floats between channels
  int32_t in_h, in_w;
  int32_t step_h, step_w, pad_top, pad_left;
  bool three;  // planes of a channel are its columns moved by -1, 0, 1, and no rows skipped
  bool in_place;
  int32_t tap_vectors;  // taps: vectors copied per plane; 0 = planes as above
  bool quads;
  int32_t middle;  // vectors a row, -1 = half of one; 0 = all columns have planes
  // flat pixel space of a tile
  int32_t pitch;
  int32_t tile_rows, n_tiles;
  int32_t block;  // vectors per register block
  uint32_t pair;  // fused pool: distance of the two columns' planes
  // output image
  int32_t rows, cols;  // of the flat space: pooled size under the sparse kernel's pool
  int32_t out_c;
  int64_t out_plane;  // floats between stored channels
  bool pooled;        // sparse: four sums a pixel; dense: pool at the end
  int32_t fold;       // sparse: rows per vector as 1 = two, 2 = one, 3 = half; 4 = through the
                      // buffer; 0 = no folding
  // epilogue
  float lo, hi, slope;
  const float* bias;
  // work
  const ConvPlane* planes;
  const ConvTap* tap_planes;
  const uint32_t* tap_masks;
  const ConvChunk* chunks;
  int32_t n_chunks;
  int32_t n_parts;           // output channels in this many independent parts
  const int32_t* part_rows;  // sparse: [chunk][part + 1] into rows
  const ConvRow* out_rows;
  // sparse: where each nonzero reads, in units of 1 << near_unit floats if `near` is there, else in floats (four sums a
  // pixel: row 0's offset | row 1's offset << 16), and its weight
  const uint16_t* near;
  const uint32_t* far;
  int32_t near_unit;
  const float* nonzeros;  // blocks: as many as channels in a block, one after another
  const int32_t* taps;
  const float* weights;
  // outputs in lanes: the tile's pixels, from the panel's start; rows between two of them; taps at a time
  const int32_t* pixels;
  int32_t stride_h, chunk_taps;
  // scratch of a worker, in floats: panel | partial sums [out_c][tile_floats] | one block
  int64_t partial_at, buffer_at;
  int64_t tile_floats;
};

struct ConvTask {
  const float* x;
  float* y;
  const float* residual;  // or null
  int32_t tile;
  int32_t part_begin, part_end;
  float* scratch;
};

using ConvTaskFn = void (*)(const ConvView&, const ConvTask&);

// Dense register block: output channels x vectors, for 32 and for 16 registers.
inline constexpr int kDenseRows = 8, kDenseVectors = 3;            // 24 sums + 3 loads
inline constexpr int kDenseRowsSmall = 4, kDenseVectorsSmall = 3;  // 12 + 3

// Outputs in lanes: pixels x vectors of channels, for 32 and for 16 registers.
inline constexpr int kOutputPixels = 6, kOutputVectors = 4, kOutputVectorsSmall = 2;

// Middle planes: vectors at once, two sums each.
constexpr int conv_middle_vectors(bool wide) { return wide ? 12 : 6; }

// Blocks of output channels: the vectors they run over at once, so that sums, loads and a weight fit the registers.
constexpr int conv_block_vectors(int block, bool wide) {
  return wide ? (block == 2 ? 10 : block == 4 ? 6 : 3) : (block == 2 ? 4 : block == 4 ? 2 : 1);
}

}  // namespace secateur
