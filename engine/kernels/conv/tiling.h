// How a conv is cut into tiles, chunks of input channels and register blocks, and what that will cost.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/conv/conv.h"

namespace secateur {

// How a task sees its input (panel.h). Dense kernels of 32 registers share a load among eight channels and may read one
// plane a channel for all columns of the kernel (kShared): its rows are as long as the padded image's, loads are not
// aligned, and the columns beyond the image are dropped.
enum class ConvHold { kPlanes, kTaps, kInPlace, kMiddle, kShared };

// The shape of the flat pixel space (panel.h), before it is cut.
struct ConvGeometry {
  ConvHold hold = ConvHold::kPlanes;
  int in_c, in_h, in_w;  // as the planes see the input: a 1x1 conv may see other rows than the model
  int step_h, step_w, pad_left;
  int rows, cols, pitch;
  int n_shifts;            // planes per channel and phase, used or not
  int shift_step;          // columns between two of them
  int pair_shifts;         // fused pool: planes between the two columns of a window
  std::vector<int> extra;  // per phase: rows beyond the tile's own, -1 = phase unused
  bool pooled;             // the kernel computes pooled pixels (sparse only)
  int fold;                // or folds them at the end (panel.h); 0 = neither, 4 = in one block
  int fold_rows;           // then tiles are multiples of this many rows
  int alignment;           // floats every load is aligned to: 16, 8, 4 or 1
  int n_taps;              // of the kernel

  // A kernel three columns wide whose planes are filled together.
  bool three() const {
    return hold == ConvHold::kPlanes && step_h == 1 && step_w == 1 && n_shifts == 3 && shift_step == 1 &&
           pad_left == 1 && cols == in_w;
  }
  bool quads() const { return hold == ConvHold::kTaps && rows * cols <= 4; }
  int64_t tap_floats() const;                   // one plane, taps only
  int64_t shift_floats(int tile_rows) const;    // all phases of one column shift
  int64_t channel_floats(int tile_rows) const;  // of the panel; in place: of the image
};

struct ConvTiling {
  int tile_rows = 1, n_tiles = 1;
  int chunk_channels = 1, n_chunks = 1;
  int block = 1;      // vectors
  double cycles = 0;  // of one image on one thread
};

struct ConvPlanned {
  ConvGeometry geometry;
  ConvTiling tiling;  // cycles < 0: the kernel cannot do it
};

// The ways of kernels with output channels in lanes: in place or one padded plane a channel, all channels at once; the
// tiling's chunk counts taps, its block is none.
std::vector<ConvPlanned> conv_outputs_plans(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e);

// The `most` cheapest ways to cut it, best first; none when the kernel cannot do it.
std::vector<ConvPlanned> conv_tilings(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e, int64_t nnz,
                                      int most);
// The way of that tile, or the cheapest where there is none.
ConvPlanned plan_conv(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e, int64_t nnz,
                      const Tile& tile = {});
// A way's name. `form`: 2 * the way of holding the input, + 1 where a fused pool is folded.
Tile tile_of(const ConvPlanned& planned);

// A 1 GHz core needs cycles / 1000 us. One figure for all machines: ratios are what counts.
inline constexpr double kCyclesPerMicrosecond = 3500.0;

}  // namespace secateur
