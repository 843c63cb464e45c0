// How an int8 convolution is cut into tiles, chunks of input quads and register blocks, and what that will cost.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/qconv/qconv.h"

namespace secateur {

struct QTiling {
  // The image as the kernel sees it: a 1x1 convolution without stride and padding is a run of pixels, cut anew.
  int in_h = 1, in_w = 1, rows = 1, cols = 1;
  bool direct = false;  // planes are those of x itself: nothing is copied
  bool own = false;     // every tap has its own plane
  int pitch = 1;
  int tile_rows = 1, n_tiles = 1, n_vectors = 1, block = 1;
  int chunk_quads = 1, n_chunks = 1;
  int form = 0;       // which of the ways below made it (tile_of)
  double cycles = 0;  // of one image
};

// Words of one plane, an odd number of cache lines: planes then do not meet in the same cache sets.
int64_t qplane_words(int rows, int pitch);
// Rows of planes of a quad: one per kernel row, or one per phase of the stride where the rows of a phase share it.
bool qplane_shared(const ConvShape& s, const QTiling& t);
int qplane_rows(const ConvShape& s, const QTiling& t);
// Rows of the planes of that index beyond the tile's own.
int qplane_extra(const ConvShape& s, const QTiling& t, int index);

// The cheapest way to cut it, or that of the tile where there is one.
QTiling plan_qconv(const QConvKernel& kernel, const ConvShape& s, const QEpilogue& e, const QDensity& d,
                   const Tile& tile = {});
// The `most` cheapest ways, best first; at least one.
std::vector<QTiling> qconv_tilings(const QConvKernel& kernel, const ConvShape& s, const QEpilogue& e, const QDensity& d,
                                   int most);
// A way's name. `form`: 0 whole rows of vectors, 1 a plane per tap, 2 rows as long as the image's.
Tile tile_of(const QTiling& t);

// Of one image.
double qconv_depthwise_cycles(const QConvKernel& kernel, const ConvShape& s, bool wide);
double qconv_row_cycles(const QConvKernel& kernel, const ConvShape& s, const QDensity& d);

inline constexpr double kQCyclesPerMicrosecond = 3500;

}  // namespace secateur
