// What the packer hands to the ISA files: plain structs of numbers and pointers, no code.
//
// A task handles a tile: some rows of one output image and some output channels, four at a time. It copies what it
// needs of the input into its scratch, chunk of input quads by chunk, as planes of 32-bit words (four channels of a
// pixel): plane (quad, column shift, row) with element (r, j) = x[quad][(row0 + r) * stride_h + row - pad_top][j *
// stride_w + shift
// - pad_left], the zero point outside the image. Rows are `pitch` words apart and the pixels of a tile are one flat
// run, so that tap (u, v) of pixel f is a constant offset from f. Where an output row is near a multiple of the vector,
// pitch is such a multiple, planes are shared by the taps of one column and every load is aligned; else every tap has a
// plane of its own with pitch = width of the output: no lane is lost, again all loads are aligned, and small maps pay
// few bytes for it.
#pragma once

#include <cstdint>

namespace secateur {

struct QPlane {
  int32_t quad;
  int32_t column;      // of the kernel
  int32_t shift, row;  // before padding is taken off
  int32_t extra;       // rows beyond the tile's own
  int32_t begin, end;  // columns inside the image
  uint32_t offset;     // words from the start of the panel
};

struct QChunk {
  int32_t plane_begin, plane_end;
  int32_t tap_begin, tap_end;  // dense: byte offsets into the panel
  int64_t weight_begin;        // dense: words; [quad of outputs][tap][4 outputs][weight_words]
};

// Per vector of the tile: where its pixels go.
struct QSpan {
  int32_t at, count;  // words from the tile's first pixel in an output plane; pixels stored
};

struct QConvView {
  // input
  int64_t in_plane;  // words
  int32_t in_h, in_w, stride_h, stride_w, pad_top, pad_left;
  int32_t kernel_h, kernel_w;  // depthwise only
  int32_t x_zero;              // four times the byte
  // tile
  int32_t pitch, tile_rows, n_tiles, n_vectors, block;
  const QSpan* spans;
  // output
  int32_t rows, cols, out_c;
  int64_t out_plane;  // pixels
  int32_t output;     // QOutput
  bool simple;        // bytes without residual or GELU: what nearly all layers are
  // epilogue
  const int32_t* bias;  // [4 * quads of outputs], zero point of x folded in
  const float* scale;   // same
  const float* offset;  // same
  int32_t zero, lo, hi;
  bool residual;
  float a, b;
  int32_t r_zero, sum_zero, sum_lo, sum_hi;
  bool gelu;
  float inverse;
  // work
  const QPlane* planes;
  const int32_t* narrow;  // or null; per kernel column: which lanes are inside the image where rows share vectors
  const QChunk* chunks;
  int32_t n_chunks;
  const int32_t* taps;
  const int32_t* weights;       // dense; depthwise: [part][quad][kernel row][four columns][weight_words][4 channels]
  int32_t n_parts;              // depthwise: of a weight, packed.h
  int64_t part_words;           // same: from a part to the next
  const uint8_t* in_bytes;      // same, or null: quads whose products of bytes do not saturate in 16 bits, and
  const int32_t* byte_weights;  // their weights, one word each
  const int64_t* row_begin;  // 1x4: [chunk][4 * quads of outputs + 1] into entries, in words; 4x4: [chunk][quads + 1]
  const int32_t* entries;    // {byte offset into the panel, weight words of one output or of four}
  // scratch, in words: panel | partial sums [output][n_vectors * lanes]
  int64_t partial_at;
};

struct QConvTask {
  const uint8_t* x;
  void* y;
  const uint8_t* residual;
  int32_t tile;
  int32_t quad_begin, quad_end;  // of the outputs
  int32_t* scratch;
  bool direct;  // the planes are those of x: no panel
};

// QConvView::output, as QOutput.
enum : int32_t { kQU8, kQI32, kQI32Rows, kQF32Rows, kQF32 };

inline constexpr int kQDenseRows = 4;

}  // namespace secateur
