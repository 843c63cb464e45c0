#include "kernels/qconv/tiling.h"

#include <algorithm>
#include <cmath>

namespace secateur {
namespace {

// Cycles, measured on Zen 4 (512-bit operations take two passes there).
struct Costs {
  double product;           // one vector of products, operands in the nearest cache
  double entry;             // offset and weights of a block
  double row;               // one output channel of one block of vectors: start, branch at its end
  double finish, residual;  // a vector of sums to bytes
  double spill;             // sums stored and loaded again between chunks
  double copy;              // a vector of the panel
};

Costs costs(const QConvKernel& k) {
  switch (k.isa) {
    case Isa::kVnni:
      return {1.0, k.family == QConvFamily::kQuads ? 0.3 : 1.2, 18, 2.7, 8, 2.2, 3};
    case Isa::kAvx512:
      if (in_pairs(k.family)) return {2.6, of_four(k.family) ? 0.5 : 1.0, 7, 4.5, 6, 3.5, 2.2};
      return k.family != QConvFamily::kSparse ? Costs{4.4, 1.2, 7, 4.5, 6, 3.5, 2.2}
                                              : Costs{5.0, 1.5, 7, 4.5, 6, 3.5, 2.2};
    case Isa::kAvxVnni:
      // Not measured: two products a cycle, the rest as kAvx2.
      return k.family == QConvFamily::kSparse ? Costs{0.6, 1.2, 6, 2.5, 3.5, 2, 1.5}
                                              : Costs{0.55, 0.5, 6, 2.5, 3.5, 2, 1.5};
    case Isa::kAvx2:
      // Measured on Zen 3.
      if (k.family == QConvFamily::kPairs) return {1.05, 1.4, 6, 2.5, 3.5, 2, 1.5};
      if (k.family == QConvFamily::kQuadPairs) return {0.9, 0.5, 6, 2.5, 3.5, 2, 1.5};
      return k.family != QConvFamily::kSparse ? Costs{1.65, 1.5, 6, 2.5, 3.5, 2, 1.5}
                                              : Costs{2.0, 1.4, 6, 2.5, 3.5, 2, 1.5};
    default:
      return {16, 3, 8, 60, 90, 4, 4};
  }
}

// Loads of a working set of so many bytes against loads of the nearest cache: what it cannot hold comes at half the
// rate.
double load_factor(double bytes, double l1) { return 1 + std::max(0.0, 1 - 0.85 * l1 / bytes); }

}  // namespace

int64_t qplane_words(int rows, int pitch) {
  const int64_t lines = (int64_t{rows} * pitch + 15) / 16;
  return (lines | 1) * 16;
}

bool qplane_shared(const ConvShape& s, const QTiling& t) { return !t.own && s.stride_h < s.kernel_h; }
int qplane_rows(const ConvShape& s, const QTiling& t) { return qplane_shared(s, t) ? s.stride_h : s.kernel_h; }

int qplane_extra(const ConvShape& s, const QTiling& t, int index) {
  int most = 0;
  if (!qplane_shared(s, t)) return most;
  for (int u = 0; u < s.kernel_h; ++u)
    if (u * s.dilation_h % s.stride_h == index) most = std::max(most, u * s.dilation_h / s.stride_h);
  return most;
}

namespace {

// visit(tiling) for every way whose scratch keeps to the second cache; where there is none, for the one of least
// scratch.
template <class Visit>
void each_tiling(const QConvKernel& kernel, const ConvShape& s, const QEpilogue& e, const QDensity& d, Visit&& visit) {
  const Costs cost = costs(kernel);
  const bool dense = kernel.family == QConvFamily::kDense, sparse = !dense && !of_four(kernel.family);
  const double l1 = double(cpu().l1d_bytes), l2 = double(cpu().l2_bytes);
  const int lanes = kernel.lanes, in_quads = static_cast<int>(quads(s.in_c)),
            out_quads = static_cast<int>(quads(s.out_c));
  const bool pointwise = s.kernel_h * s.kernel_w == 1 && s.stride_h == 1 && s.stride_w == 1 &&
                         s.pad_top + s.pad_left + s.pad_bottom + s.pad_right == 0;
  const int pixels = s.in_h * s.in_w;
  QTiling base;
  base.in_h = s.in_h, base.in_w = s.in_w, base.rows = s.conv_h(), base.cols = s.conv_w();
  if (pointwise && pixels % lanes == 0) {
    base.in_h = base.rows = pixels / lanes;
    base.in_w = base.cols = lanes;
    base.direct = pixels % 16 == 0;  // aligned for every ISA
  } else if (pointwise && pixels <= 1024) {
    base.in_h = base.rows = 1;
    base.in_w = base.cols = pixels;
  }
  const int taps = s.kernel_h * s.kernel_w;
  // Of 1x4 blocks, also where they are done four at a time.
  const double filled = dense    ? double(out_quads) * 4 * in_quads * taps
                        : sparse ? double(d.filled) * (in_pairs(kernel.family) ? d.pairing : 1)
                                 : 4.0 * double(d.filled_quads) * (in_pairs(kernel.family) ? d.quad_pairing : 1);
  const double blocks_per_quad = filled / in_quads;

  bool any = false;
  QTiling least;
  double least_scratch = -1;
  const auto consider = [&](int form, int pitch, bool fit) {
    QTiling t = base;
    t.form = form;
    t.own = form == 1;
    t.pitch = pitch;
    // Of the rows of taps, those whose loads straddle cache lines.
    int astray = 0;
    for (int u = 0; u < s.kernel_h && qplane_shared(s, t); ++u)
      astray += u * s.dilation_h / s.stride_h * pitch % lanes != 0;
    const double straddle = 1 + double(astray) / s.kernel_h;
    for (int tiles = 1, last_vectors = 0;; tiles = (base.rows + t.tile_rows - 2) / (t.tile_rows - 1)) {
      t.tile_rows = (base.rows + tiles - 1) / tiles;
      t.n_tiles = (base.rows + t.tile_rows - 1) / t.tile_rows;
      t.n_vectors = (t.tile_rows * t.pitch + lanes - 1) / lanes;
      if (fit && t.n_vectors < 4 && tiles > 1 && any) break;
      const int planes = s.kernel_w * qplane_rows(s, t);
      double quad_words = 0, rows = 0;
      for (int u = 0; u < qplane_rows(s, t); ++u) {
        const int height = t.tile_rows + qplane_extra(s, t, u);
        quad_words += double(s.kernel_w) * double(qplane_words(height, t.pitch));
        rows += double(s.kernel_w) * height;
      }
      const double halo = quad_words / planes / lanes - t.n_vectors;  // vectors beyond the tile's own, per plane
      for (int block = std::min(kernel.max_block, t.n_vectors); block >= 1 && t.n_vectors != last_vectors; --block) {
        const int n_blocks = (t.n_vectors + block - 1) / block;
        const int even = (t.n_vectors + n_blocks - 1) / n_blocks;
        if (even != block) continue;
        const double quad_bytes = planes * (block + std::max(halo, 0.0)) * lanes * 4;
        for (int chunks = 1; chunks <= in_quads && chunks <= 64; ++chunks) {
          t.chunk_quads = (in_quads + chunks - 1) / chunks;
          t.n_chunks = (in_quads + t.chunk_quads - 1) / t.chunk_quads;
          if (t.n_chunks != chunks) continue;
          const double panel = base.direct ? 0 : quad_words * 4 * t.chunk_quads;
          const double partial = chunks > 1 ? 64.0 * lanes / 16 * t.n_vectors * s.out_c : 0;
          if (fit && !base.direct && panel + partial > 0.6 * l2) continue;
          t.block = block;
          const double load = load_factor(quad_bytes * t.chunk_quads, l1) * straddle;
          // Blocks of four outputs load a vector for four products.
          const double product = cost.product * (sparse ? load : 1 + (load - 1) / 4);
          double cycles = in_quads * blocks_per_quad * (t.n_vectors * product + n_blocks * cost.entry);
          cycles += double(chunks) * 4 * out_quads * n_blocks * cost.row * (sparse ? 1 : 0.5);
          cycles += 4.0 * out_quads * t.n_vectors *
                    (cost.finish + (e.residual ? cost.residual : 0) + (e.gelu ? 2.5 * cost.finish : 0));
          cycles += (chunks - 1.0) * 4 * out_quads * t.n_vectors * cost.spill;
          if (!base.direct)
            cycles += in_quads * rows * ((t.pitch + lanes - 1) / lanes) * cost.copy * (s.stride_w > 2 ? 4 : s.stride_w);
          t.cycles = cycles * t.n_tiles + 300.0 + 60.0 * t.n_tiles;
          if (fit) {
            any = true;
            visit(t);
          } else if (least_scratch < 0 || panel + partial < least_scratch) {
            least = t, least_scratch = panel + partial;
          }
        }
      }
      last_vectors = t.n_vectors;
      if (t.tile_rows == 1) break;
    }
  };
  for (const bool fit : {true, false}) {
    if (any) return;
    const int aligned = (base.cols + lanes - 1) / lanes * lanes;
    consider(0, taps == 1 ? base.cols : aligned, fit);
    if (base.direct || taps == 1) continue;
    consider(1, base.cols, fit);
    if (base.cols < aligned) consider(2, base.cols, fit);
  }
  visit(least);
}

}  // namespace

Tile tile_of(const QTiling& t) { return {t.tile_rows, t.chunk_quads, t.block, t.form}; }

std::vector<QTiling> qconv_tilings(const QConvKernel& kernel, const ConvShape& s, const QEpilogue& e, const QDensity& d,
                                   int most) {
  std::vector<QTiling> best;
  each_tiling(kernel, s, e, d,
              [&](const QTiling& t) { keep_best(best, t, most, [](const QTiling& a) { return a.cycles; }); });
  return best;
}

QTiling plan_qconv(const QConvKernel& kernel, const ConvShape& s, const QEpilogue& e, const QDensity& d,
                   const Tile& tile) {
  QTiling best;
  best.cycles = -1;
  bool named = false;
  each_tiling(kernel, s, e, d, [&](const QTiling& t) {
    if (named) return;
    named = tile_of(t) == tile;
    if (named || best.cycles < 0 || t.cycles < best.cycles) best = t;
  });
  return best;
}

}  // namespace secateur
