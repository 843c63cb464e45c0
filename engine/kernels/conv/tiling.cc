// The cost model. Its numbers were measured on a Zen 4 core (32 KB L1, 1 MB L2) with random offsets: GFLOP/s of the
// sparse inner loop at 24 vectors were 105 from L1, 77-87 from 64 KB, 62-67 from 192 KB, 54-60 from 512 KB, 40 from L3,
// with loads aligned to 32 bytes; unaligned 71, 60, 52, 47, 33. 118 is the peak of registers only.
// The sparse kernels' coefficients are fitted to 1,700 timings of tilings at random: 37 layers of ResNet-20, ResNet-50,
// VGG-16 and MobileNetV2, densities 4, 10 and 25 %, weights not in L2. Mean error 9 %; the tiling it prefers takes 2.5
// % longer than the best one tried (before the fit: 15 % and 5.3 %).
#include "kernels/conv/tiling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/cpu.h"
#include "kernels/conv/panel.h"

namespace secateur {
namespace {

int ceil_div(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

// Cycles per load and multiply-add of 16 floats out of a working set of `bytes`.
double cycles_per_16(double bytes, int alignment) {
  const double l1 = double(cpu().l1d_bytes), l2 = double(cpu().l2_bytes);
  constexpr double by16[] = {0.95, 1.35, 1.85, 2.40, 2.90}, by8[] = {1.05, 1.50, 2.00, 2.50, 3.00},
                   by4[] = {1.43, 1.74, 2.07, 2.32, 3.2}, by1[] = {1.67, 1.97, 2.27, 2.52, 3.50};
  const double* t = alignment >= 16 ? by16 : alignment >= 8 ? by8 : alignment >= 4 ? by4 : by1;
  if (bytes <= 0.8 * l1) return t[0];
  if (bytes <= 2.0 * l1) return t[0] + (t[1] - t[0]) * (bytes - 0.8 * l1) / (1.2 * l1);
  if (bytes <= 0.2 * l2) return t[1] + (t[2] - t[1]) * (bytes - 2.0 * l1) / std::max(1.0, 0.2 * l2 - 2.0 * l1);
  if (bytes <= 0.8 * l2) return t[2] + (t[3] - t[2]) * (bytes - 0.2 * l2) / (0.6 * l2);
  return t[4];
}

// Memory behind the second cache: what a core may call its own of the third, and cycles a byte that goes there and
// comes back, from the third cache and from beyond it. Measured on Zen 3 (512 KB L2): a 3x3 layer of 64 channels at
// 360x640 takes 38 ms in tiles of 16 rows, 82 ms in one.
constexpr double kThirdCache = 8 << 20, kFromThird = 0.12, kFromMemory = 0.6;

// Cycles for `bytes` written and read again, in rounds that each take `set` bytes at once.
double beyond_l2(double bytes, double set) {
  const double l2 = double(cpu().l2_bytes);
  const double third = std::clamp((set / l2 - 0.75) / 1.25, 0.0, 1.0);
  const double memory = std::clamp((set / kThirdCache - 0.75) / 1.25, 0.0, 1.0);
  return bytes * (kFromThird * third + (kFromMemory - kFromThird) * memory);
}

// The working set as a cache feels it when strips of `strip` bytes lie `apart` bytes apart: of 8 ways and
// ways * period bytes, strips that start in few places use a part only.
double crowded(double bytes, double strip, int64_t apart) {
  double felt = bytes;
  for (const double cache : {double(cpu().l1d_bytes), double(cpu().l2_bytes)}) {
    const auto period = static_cast<int64_t>(cache / 8);
    const double places = double(period) / double(std::gcd(apart % period == 0 ? period : apart % period, period));
    const double usable = std::min(cache, places * std::max(64.0, strip) * 8);
    if (bytes > usable) felt = std::max(felt, bytes * cache / usable);
  }
  return felt;
}

struct Limits {
  int max_block;
  bool wide;
  double width;  // cost of one vector against 16 floats
  double work;   // slowdown of the arithmetic (no FMA in the portable build)
};

Limits limits(const ConvKernel& k, bool pooled) {
  const bool sparse = k.family == ConvFamily::kSparse;
  const bool wide = k.vector_registers == 32;
  Limits l;
  l.wide = wide;
  l.max_block = sparse                           ? (pooled ? (wide ? 7 : 3) : (wide ? 24 : 12))
                : k.family == ConvFamily::kBlock ? conv_block_vectors(k.block, wide)
                                                 : kDenseVectors;
  l.width = double(k.vector_lanes) / 16.0;
  l.work = k.vector_lanes >= 16 ? 1.0 : k.vector_lanes >= 8 ? (sparse ? 1.1 : 1.0) : sparse ? 2.4 : 3.0;
  return l;
}

// Cycles of a row of a register block; per vector of 16 floats where not a start.
struct RowCosts {
  double start, store, residual;
  double crop_start, crop;       // storing rows that are shorter than their vectors
  double near_spill, far_spill;  // sums stored and loaded again between chunks, where L2 holds them and where not
  double fill;                   // of what fill_cycles() says alone: the rest hides behind arithmetic
};

RowCosts row_costs(const ConvKernel& k) {
  if (k.family == ConvFamily::kSparse) return {18, 1.5, 3.5, 9, 0.2, 1.25, 3.5, 0.7};
  return {21, 2, 3, 10, 3, 3.5, 8, 1};
}

// Copying `planes` planes. A panel that does not stay in L1 is written back to L2 line by line.
double fill_cycles(const ConvGeometry& g, int lanes, int tile_rows, double planes, double panel_bytes) {
  const bool spills = panel_bytes > 0.7 * double(cpu().l1d_bytes);
  if (g.hold == ConvHold::kInPlace) return 0;
  if (g.hold == ConvHold::kTaps) {
    const double vectors = std::ceil(double(g.tap_floats()) / lanes);
    return planes * (vectors * ((lanes >= 16 ? 2.5 : lanes >= 8 ? 3.0 : 6.0) + (spills ? lanes / 8.0 : 0.0)) + 4.0);
  }
  double rows = 0;
  for (int x : g.extra)
    if (x >= 0) rows += tile_rows + x;
  const int used = static_cast<int>(std::count_if(g.extra.begin(), g.extra.end(), [](int x) { return x >= 0; }));
  const int rest = g.pitch % lanes;
  const double vectors = g.pitch / lanes + (rest == 0 ? 0.0 : lanes == 16 && rest <= 8 ? 0.5 : 1.0);
  const double width = std::max(0.5, lanes / 16.0);
  // Three planes at a time read a row once.
  const double per_vector = g.three()                     ? 1.5 * width
                            : g.hold == ConvHold::kMiddle ? 1.7 * width
                            : g.step_w == 1               ? 2.2 * width
                            : g.step_w == 2               ? (lanes >= 8 ? 3.2 * width : 8.0)
                                                          : 1.5 * lanes;
  double cycles = rows * (std::max(1.0, vectors * per_vector) + (g.three() ? 0.4 : 1.2)) + 10.0 * used;
  if (spills) cycles += rows * g.pitch / 16.0 * 2.0;
  return planes * cycles;
}

}  // namespace

int64_t ConvGeometry::tap_floats() const { return quads() ? 4 : (int64_t{rows} * cols + 15) / 16 * 16; }

int64_t ConvGeometry::channel_floats(int tile_rows) const {
  if (hold == ConvHold::kInPlace) return int64_t{tile_rows} * pitch;
  if (hold != ConvHold::kTaps) return shift_floats(tile_rows) * n_shifts;
  const int64_t floats = tap_floats() * n_taps;
  return floats < 128 ? floats : (floats / 16 | 1) * 16;  // as below
}

int64_t ConvGeometry::shift_floats(int tile_rows) const {
  int64_t floats = 0;
  for (int x : extra)
    if (x >= 0) floats += int64_t{tile_rows + x} * pitch;
  if (alignment < 8) return (floats + alignment - 1) / alignment * alignment;
  if (floats < 128) return (floats + 7) / 8 * 8;
  // An odd number of cache lines, so that planes do not pile up in the same L1 sets.
  const int64_t lines = (floats + 15) / 16;
  return (lines | 1) * 16;
}

namespace {

bool is_pointwise(const ConvShape& s) {
  return s.kernel_h == 1 && s.kernel_w == 1 && s.stride_h == 1 && s.stride_w == 1 && s.pad_top == 0 &&
         s.pad_left == 0 && s.pad_bottom == 0 && s.pad_right == 0;
}

// kBuffer: the whole image is one block, pooled when it is done.
enum class PoolBy { kNothing, kFourSums, kFolding, kBuffer, kLater };

// The image keeps its size and is small enough to be one tile: then every tap is a plane of its own.
bool fits_taps(const ConvShape& s) {
  return s.stride_h == 1 && s.stride_w == 1 && s.conv_h() == s.in_h && s.conv_w() == s.in_w &&
         s.kernel_h * s.kernel_w > 1 && int64_t{s.in_h} * s.in_w <= 64;
}

// Another way than kPlanes is only asked for where it fits.
ConvGeometry conv_geometry(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e, PoolBy pool_by,
                           ConvHold hold) {
  ConvGeometry g;
  g.hold = hold;
  g.n_taps = s.kernel_h * s.kernel_w;
  g.pooled = pool_by == PoolBy::kFourSums;
  g.fold = g.fold_rows = 0;
  g.in_c = s.in_c;
  g.pad_left = s.pad_left;
  g.in_h = s.in_h;
  g.in_w = s.in_w;
  const int window = g.pooled ? 2 : 1;
  g.step_h = s.stride_h * window;
  g.step_w = s.stride_w * window;
  g.rows = s.conv_h() / window;
  g.cols = s.conv_w() / window;
  if (pool_by == PoolBy::kLater) g.rows = g.rows / 2 * 2;
  const bool pointwise = is_pointwise(s) && e.pool == Pool2x2::kNone;
  if (pointwise) {
    // Rows mean nothing to a 1x1 kernel: take the longest that are whole vectors, else one row if it is short.
    const int64_t pixels = int64_t{g.rows} * g.cols;
    int best = 0;
    for (int w = 16; w <= 256 && w <= pixels; w += 16)
      if (pixels % w == 0) best = w;
    if (best == 0)
      for (int w = 8; w <= 256 && w <= pixels; w += 8)
        if (pixels % w == 0) best = w;
    if (best == 0 && pixels <= 512) best = static_cast<int>(pixels);
    if (best != 0) {
      g.in_h = g.rows = static_cast<int>(pixels / best);
      g.in_w = g.cols = best;
    }
  }
  // Rounding a row up costs arithmetic on dropped columns, not rounding costs unaligned loads.
  if (hold == ConvHold::kTaps) {
    g.pitch = g.cols;
    g.alignment = g.quads() ? 4 : 16;
  } else if (hold == ConvHold::kMiddle) {
    g.pitch = g.cols;
    g.alignment = g.cols % 16 == 0 ? 16 : g.cols % 8 == 0 ? 8 : 4;
  } else if (hold == ConvHold::kShared) {
    g.pitch = g.cols + (s.kernel_w - 1) * s.dilation_w;
    g.alignment = 1;
  } else if (hold == ConvHold::kInPlace || (pointwise && g.rows == 1)) {
    g.pitch = g.cols;  // no row is ever skipped, and planes start aligned
    g.alignment = hold == ConvHold::kInPlace ? 16 : 8;
  } else {
    double best = 0;
    for (int to : {1, 4, 8}) {
      const int pitch = (g.cols + to - 1) / to * to;
      const int alignment = pitch % 8 == 0 ? 8 : pitch % 4 == 0 ? 4 : 1;
      const double cost = pitch * cycles_per_16(0, alignment) * (pitch == g.cols ? 1.0 : 1.03);
      if (best > 0 && cost >= best) continue;
      best = cost;
      g.pitch = pitch;
      g.alignment = alignment;
    }
  }
  if (pool_by == PoolBy::kFolding && g.pitch == g.cols) {
    const int lanes = kernel.vector_lanes;
    g.fold = 2 * g.cols == lanes ? 1 : g.cols == lanes ? 2 : g.cols == 2 * lanes ? 3 : 0;
    g.fold_rows = 4 * lanes / g.cols;
    if (g.fold && g.rows % g.fold_rows != 0) g.fold = 0;
  }
  if (pool_by == PoolBy::kBuffer) g.fold = 4;
  // Planes are indexed by column shift; without a pool only multiples of the dilation occur.
  g.shift_step = g.pooled ? 1 : s.dilation_w;
  const int last_shift = (s.kernel_w - 1) * s.dilation_w + (g.pooled ? s.stride_w : 0);
  g.n_shifts = hold == ConvHold::kMiddle || hold == ConvHold::kShared ? 1 : last_shift / g.shift_step + 1;
  g.pair_shifts = s.stride_w;
  g.extra.assign(g.step_h, -1);
  for (int u = 0; u < s.kernel_h; ++u)
    for (int second = 0; second < window; ++second) {
      const int q = u * s.dilation_h + second * s.stride_h;
      g.extra[q % g.step_h] = std::max(g.extra[q % g.step_h], q / g.step_h);
    }
  return g;
}

template <class Visit>
void each_tiling(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e, const ConvGeometry& g, int64_t nnz,
                 Visit&& visit) {
  const bool sparse = kernel.family != ConvFamily::kDense;
  const Limits lim = limits(kernel, g.pooled);
  const int lanes = kernel.vector_lanes, cells = g.pooled ? 4 : 1;
  const bool quads = g.quads(), middle = g.hold == ConvHold::kMiddle;
  const bool dense_pool = kernel.family != ConvFamily::kSparse && e.pool != Pool2x2::kNone;
  const int m = kernel.vector_registers == 32 ? kDenseRows : kDenseRowsSmall;
  // Channels with at least one nonzero, and channel-row pairs, if zeros fall at random.
  const double per_channel = double(nnz) / s.in_c;
  const double used = s.in_c * (per_channel > 30 ? 1.0 : 1.0 - std::exp(-per_channel));
  const double taps = double(s.kernel_h) * s.kernel_w;
  const bool by_tap = g.hold == ConvHold::kTaps;
  const RowCosts c = row_costs(kernel);
  const int all_planes = by_tap ? g.n_taps : g.n_shifts;
  const double planes_per_channel = all_planes * (1.0 - std::exp(-per_channel / all_planes * (g.pooled ? 2 : 1)));
  // Images beyond L2 are written to and come from where the layers before have left them.
  const double image_bytes = 4.0 * (double(s.in_c) * s.in_h * s.in_w +
                                    double(s.out_c) * conv_out_h(s, e) * conv_out_w(s, e) * (e.residual ? 2 : 1));
  const double memory = 0.02 * std::max(0.0, image_bytes - 0.5 * double(cpu().l2_bytes));
  int last_rows = 0;
  for (int n_tiles = 1; n_tiles <= g.rows; ++n_tiles) {
    int tile_rows = ceil_div(g.rows, n_tiles);
    if (dense_pool) tile_rows = (tile_rows + 1) / 2 * 2;
    if (g.fold && g.fold < 4) tile_rows = ceil_div(tile_rows, g.fold_rows) * g.fold_rows;
    if (by_tap && n_tiles > 1) break;
    if (tile_rows == last_rows) continue;
    last_rows = tile_rows;
    const int tiles = ceil_div(g.rows, tile_rows);
    const int vectors = ceil_div(int64_t{tile_rows} * g.pitch, lanes);
    const double channel_bytes = double(g.channel_floats(tile_rows)) * 4;
    const double touched = (sparse ? planes_per_channel / all_planes : 1.0);
    for (int n_chunks = 1; n_chunks <= s.in_c && n_chunks <= 64; n_chunks += n_chunks < 8 ? 1 : n_chunks / 4) {
      const int chunk = ceil_div(s.in_c, n_chunks);
      const int chunks = ceil_div(s.in_c, chunk);
      if (g.pooled && int64_t{chunk} * g.channel_floats(tile_rows) + vectors * lanes > 65535) continue;
      if (int64_t{chunk} * g.channel_floats(tile_rows) > (int64_t{1} << 28)) continue;
      const double panel_bytes = chunk * channel_bytes * touched;
      if (n_chunks > 1 && panel_bytes < 8192) break;
      const double partial_bytes = chunks > 1 ? double(s.out_c) * vectors * lanes * cells * 4 : 0;
      for (int n_blocks = ceil_div(vectors, lim.max_block); n_blocks <= vectors; n_blocks = n_blocks * 3 / 2 + 1) {
        const int block =
            g.fold && g.fold < 4 ? ceil_div(ceil_div(vectors, n_blocks), 4) * 4 : ceil_div(vectors, n_blocks);
        if (g.fold == 4 && block < vectors) continue;
        if (middle && (block * lanes % g.cols != 0 || block > conv_middle_vectors(lim.wide) ||
                       int64_t{chunk} * g.channel_floats(tile_rows) / g.alignment > 65535))
          continue;
        const int blocks = ceil_div(vectors, block);
        // A block reads a strip of every plane: its own floats and the rows its taps reach below.
        double reach = 0;
        if (g.hold == ConvHold::kTaps || g.hold == ConvHold::kInPlace) {
          reach = double(block) * lanes;
        } else {
          for (int x : g.extra)
            if (x >= 0) reach += double(block) * lanes + double(x) * g.pitch;
        }
        double strip_bytes = std::min(panel_bytes, chunk * all_planes * touched * reach * 4);
        if (g.hold == ConvHold::kInPlace) strip_bytes = crowded(strip_bytes, reach * 4, int64_t{4} * s.in_h * s.in_w);
        const double stored = double(block) * cells * lim.width;
        const double spill = chunks > 1 ? stored * (partial_bytes > 0.6 * cpu().l2_bytes ? c.far_spill : c.near_spill) *
                                              (chunks - 1) / chunks
                                        : 0;
        double cycles = beyond_l2(2.0 * partial_bytes * (chunks - 1), partial_bytes);
        if (g.hold != ConvHold::kInPlace) cycles += beyond_l2(panel_bytes * chunks, panel_bytes);
        // A panel that shares the second cache with input, sums and results loses part of itself before it is read.
        const double lost = std::clamp((panel_bytes / double(cpu().l2_bytes) - 0.15) / 0.6, 0.0, 1.0);
        if (sparse) {
          const double load = cycles_per_16(strip_bytes + 2048, g.alignment) * cells * lim.width * lim.work;
          const int of = kernel.block;  // nonzeros in `nnz` are blocks of so many channels
          const auto entry = [&](int n) {
            // Of 16 registers, blocks have eight sums: see the dense kernels.
            if (of > 1)
              return std::max((lim.wide ? 1.03 : 1.1) * of * n * lim.width * lim.work, load * n + 0.5 * of) + 0.8;
            return quads ? std::max(1.0, 4.0 / lanes * 3.6) * load / 1.1 : load * n + 0.8;
          };
          // Rows of a chunk that have anything in it.
          const double row_share = 1.0 - std::exp(-double(nnz) * of / s.out_c / chunks * double(s.groups));
          const double rows = double(s.out_c) / of * std::max(row_share, 1.0 / chunks) * chunks /
                              (s.groups > 1 ? std::min(chunks, s.groups) : 1);
          cycles += nnz * (entry(block) * (blocks - 1) + entry(vectors - block * (blocks - 1)));
          cycles += rows * blocks *
                    ((quads    ? 30.0
                      : middle ? c.start + 11.0 + 3.5 * block * lim.width
                               : c.start) +
                     (g.pooled ? 40.0 : 0.0) +
                     of * (spill + stored * (e.residual ? c.residual : c.store) +
                           (g.pitch != g.cols ? c.crop * stored + c.crop_start : 0)));
          if (dense_pool) cycles += double(s.out_c) * vectors * 6.0;
          // Blocks that L2 cannot hold come from L3 for every tile; single nonzeros arrive in time.
          const double stream = nnz * (2.0 + 4.0 * of);
          if (of > 1 && stream > 0.7 * double(cpu().l2_bytes)) cycles += stream / 12.0;
          // A channel that one output reads is begun for it alone, and has no arithmetic to hide its copy behind.
          const bool alone = s.groups == s.in_c && s.out_c == s.in_c;
          cycles += (alone ? 60.0 * s.in_c : 0.0) +
                    (alone ? 1.0 : c.fill) * fill_cycles(g, lanes, tile_rows, used * planes_per_channel, panel_bytes) +
                    0.02 * lost * panel_bytes * chunks;
        } else {
          // Loads of the panel are shared by m rows; weights stream from wherever they fit.
          const double macs = double(s.in_c) * taps * ceil_div(s.out_c, m) * m;
          // Where a load is shared by eight rows the line it may cross costs nothing (Zen 5: 250 GFLOP/s either way).
          const int alignment = g.hold == ConvHold::kShared ? 16 : g.alignment;
          const double load = lim.wide ? cycles_per_16(strip_bytes, alignment) - 1.0
                                       : 2.0 * cycles_per_16(strip_bytes + 4096, g.alignment) - 2.0;
          // Of 16 registers, two vectors of four channels are eight sums: just what an addition's latency takes. Of 32,
          // one vector of eight is nine loads for eight multiply-adds, which two 512-bit units a core wait for.
          const double waits =
              !lim.wide ? (block < kDenseVectorsSmall ? 1.07 : 1.0) : (block == 1 && vectors > 1 ? 1.25 : 1.0);
          cycles += macs * stored * lim.work * waits * ((lanes == 16 ? 0.96 : 1.04) + std::max(0.0, load) / m) * blocks;
          // fewer than 8 sums cannot hide the latency of an addition; one broadcast a row bounds short blocks
          cycles = std::max(cycles, macs * blocks * std::max(0.55, 4.0 / m));
          cycles += double(s.out_c) * chunks * blocks *
                    (spill + 2.0 * stored + 4.0 + (g.pitch != g.cols ? (3.0 * stored + 10) / chunks : 0));
          if (dense_pool) cycles += double(s.out_c) * vectors * 6.0;
          const double weight_bytes = macs * 4;
          const double rate = weight_bytes > 16e6 ? 4.0 : weight_bytes > 0.7 * cpu().l2_bytes ? 6.5 : 32.0;
          cycles = std::max(cycles, weight_bytes / rate * blocks);
          cycles += fill_cycles(g, lanes, tile_rows, double(s.in_c) * all_planes, panel_bytes);
          if (!lim.wide) {
            // Measured on Zen 3 (512 KB L2): a chunk's weights that L2 does not keep come anew for every block.
            const double gone = std::clamp((weight_bytes / chunks / double(cpu().l2_bytes) - 0.45) / 0.4, 0.0, 1.0);
            cycles += 0.06 * lost * panel_bytes * chunks + (blocks > 1 ? 0.02 * gone * weight_bytes * blocks : 0.0);
          }
        }
        cycles = cycles * tiles + memory;
        visit(ConvTiling{tile_rows, tiles, chunk, chunks, block, cycles});
      }
    }
  }
}

template <class Visit>
void each_plan(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e, int64_t nnz, Visit&& visit) {
  const auto consider = [&](PoolBy by, ConvHold hold) {
    const ConvGeometry g = conv_geometry(kernel, s, e, by, hold);
    if (by == PoolBy::kFolding && !g.fold) return;
    each_tiling(kernel, s, e, g, nnz, [&](const ConvTiling& t) { visit(g, t); });
  };
  if (outputs_in_lanes(kernel)) {
    for (const ConvPlanned& p : conv_outputs_plans(kernel, s, e)) visit(p.geometry, p.tiling);
    return;
  }
  const bool sparse = kernel.family == ConvFamily::kSparse, pooled = e.pool != Pool2x2::kNone;
  if (!pooled) {
    consider(PoolBy::kNothing, ConvHold::kPlanes);
  } else if (sparse) {
    consider(PoolBy::kFourSums, ConvHold::kPlanes);
    consider(PoolBy::kFolding, ConvHold::kPlanes);
  } else {
    consider(PoolBy::kLater, ConvHold::kPlanes);
  }
  // Dense kernels wait for memory there: more bytes of panel beside their weights.
  if (fits_taps(s) && kernel.family != ConvFamily::kDense && (sparse || !pooled))
    consider(pooled ? PoolBy::kBuffer : PoolBy::kNothing, ConvHold::kTaps);
  // Rows of whole vectors, or of half a vector; moved sums of a kernel one column narrower would be the outer ones.
  const int lanes = kernel.vector_lanes, per_row = s.in_w / lanes;
  if (kernel.family == ConvFamily::kSparse && s.kernel_w == 3 && s.stride_h == 1 && s.stride_w == 1 &&
      s.dilation_w == 1 && s.pad_left == 1 && s.conv_w() == s.in_w &&
      ((s.in_w % lanes == 0 && (per_row == 1 || per_row == 2 || (per_row == 4 && lanes < 16))) ||
       (2 * s.in_w == lanes && lanes == 16))) {
    consider(pooled ? PoolBy::kFolding : PoolBy::kNothing, ConvHold::kMiddle);
  }
  // Eight channels share a load of the dense kernel: that it is not aligned costs less than a plane for every column.
  if (kernel.family == ConvFamily::kDense && kernel.vector_registers == 32 && s.kernel_w > 1 && s.stride_h == 1 &&
      s.stride_w == 1)
    consider(pooled ? PoolBy::kLater : PoolBy::kNothing, ConvHold::kShared);
  // Whole vectors, lines of the cache, and offsets of 31 bits.
  const int64_t pixels = int64_t{s.in_h} * s.in_w;
  if (is_pointwise(s) && !pooled && pixels % 16 == 0 && pixels * s.in_c < (int64_t{1} << 31))
    consider(PoolBy::kNothing, ConvHold::kInPlace);
}

Tile tile_name(const ConvGeometry& g, const ConvTiling& t) {
  return {t.tile_rows, t.chunk_channels, t.block, 2 * static_cast<int>(g.hold) + (g.fold != 0)};
}

}  // namespace

Tile tile_of(const ConvPlanned& p) { return tile_name(p.geometry, p.tiling); }

std::vector<ConvPlanned> conv_tilings(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e, int64_t nnz,
                                      int most) {
  std::vector<ConvPlanned> best;
  each_plan(kernel, s, e, nnz, [&](const ConvGeometry& g, const ConvTiling& t) {
    keep_best(best, ConvPlanned{g, t}, most, [](const ConvPlanned& p) { return p.tiling.cycles; });
  });
  return best;
}

ConvPlanned plan_conv(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e, int64_t nnz, const Tile& tile) {
  ConvPlanned best;
  best.tiling.cycles = -1;
  bool named = false;
  each_plan(kernel, s, e, nnz, [&](const ConvGeometry& g, const ConvTiling& t) {
    if (named) return;
    named = tile_name(g, t) == tile;
    if (named || best.tiling.cycles < 0 || t.cycles < best.tiling.cycles) best = {g, t};
  });
  return best;
}

}  // namespace secateur
