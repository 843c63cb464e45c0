// Turns ONNX weights into what panel.h describes, and runs it: tasks over images, tiles and parts of the channels.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "kernels/conv/packing.h"

namespace secateur {
namespace {

void pack_sparse(PackedConvPanel& p, const ConvGeometry& g, const ConvTiling& t, const float* weights) {
  const ConvShape& s = p.shape;
  const ConvPanelLayout layout(s, g, t.tile_rows);
  const int block = p.kernel->block, parts = p.view.n_parts;
  Nonzeros z = nonzeros_of(s, t, block, weights);
  const std::vector<int> part_of = parts_of(z, s.out_c, block, parts);

  // 16 bits an offset where that reaches.
  int unit = 0;
  while (unit < 4 && g.alignment % (2 << unit) == 0) ++unit;
  const bool near =
      !g.pooled && g.hold != ConvHold::kInPlace && (t.chunk_channels * layout.channel_floats()) >> unit < 65536;
  (near ? p.near : p.far) =
      Buffer(static_cast<size_t>(z.entries(block)) * (near ? sizeof(uint16_t) : sizeof(uint32_t)));
  p.nonzeros = Buffer(z.values.size() * sizeof(float));
  p.view.near_unit = unit;
  int64_t at = 0;
  std::vector<char> used(layout.n_planes());
  for (int k = 0; k < t.n_chunks; ++k) {
    const int channel0 = k * t.chunk_channels, channels = std::min(t.chunk_channels, s.in_c - channel0);
    ChunkRows r = rows_of(p, g, layout, z, k, channel0, channels);
    // Equal counts beside each other: the branch at the end of a row is then predicted.
    std::stable_sort(r.rows.begin(), r.rows.end(), [&](const ConvRow& a, const ConvRow& b) {
      return part_of[a.out] != part_of[b.out] ? part_of[a.out] < part_of[b.out] : a.count < b.count;
    });
    write_entries(p, r, z.values, at);
    size_t i = 0;
    p.part_rows.push_back(static_cast<int32_t>(p.out_rows.size()));
    for (int part = 0; part < parts; ++part) {
      for (; i < r.rows.size() && part_of[r.rows[i].out] == part; ++i) p.out_rows.push_back(r.rows[i]);
      p.part_rows.push_back(static_cast<int32_t>(p.out_rows.size()));
    }
    ConvChunk chunk{};
    chunk.plane_begin = p.n_planes();
    for (int c = 0; c < channels; ++c) {
      std::copy_n(r.used.begin() + static_cast<ptrdiff_t>(c * used.size()), used.size(), used.begin());
      add_planes(p, layout, g.hold, channel0 + c, c, used);
    }
    chunk.plane_end = p.n_planes();
    p.chunks.push_back(chunk);
  }
}

void pack_dense(PackedConvPanel& p, const ConvGeometry& g, const ConvTiling& t, const float* weights) {
  const ConvShape& s = p.shape;
  const ConvPanelLayout layout(s, g, t.tile_rows);
  const int m = p.kernel->vector_registers == 32 ? kDenseRows : kDenseRowsSmall;
  const int per_channel = s.kernel_h * s.kernel_w;
  p.weights = Buffer(static_cast<size_t>(s.weight_count()) * sizeof(float));
  float* to = p.weights.as<float>();
  std::vector<char> used(layout.n_planes(), 0);
  for (int u = 0; u < s.kernel_h; ++u)
    for (int v = 0; v < s.kernel_w; ++v) used[layout.plane(u * s.dilation_h, v * s.dilation_w)] = 1;
  for (int k = 0; k < t.n_chunks; ++k) {
    const int channel0 = k * t.chunk_channels, channels = std::min(t.chunk_channels, s.in_c - channel0);
    ConvChunk chunk{};
    chunk.plane_begin = p.n_planes();
    chunk.tap_begin = static_cast<int32_t>(p.taps.size());
    chunk.weight_begin = to - p.weights.as<float>();
    for (int c = 0; c < channels; ++c) {
      add_planes(p, layout, g.hold, channel0 + c, c, used);
      for (int u = 0; u < s.kernel_h; ++u)
        for (int v = 0; v < s.kernel_w; ++v)
          p.taps.push_back(static_cast<int32_t>(layout.tap(channel0 + c, c, u * s.dilation_h, v * s.dilation_w)));
    }
    chunk.plane_end = p.n_planes();
    chunk.tap_end = static_cast<int32_t>(p.taps.size());
    for (int o = 0; o < s.out_c; o += m) {
      const int rows = std::min(m, s.out_c - o);
      for (int k2 = 0; k2 < channels * per_channel; ++k2)
        for (int r = 0; r < rows; ++r) *to++ = weights[(int64_t{o + r} * s.in_c + channel0) * per_channel + k2];
    }
    p.chunks.push_back(chunk);
  }
}

}  // namespace

bool conv_sparse_supports(const ConvShape& s, const Epilogue& e) {
  if (e.pool == Pool2x2::kNone) return true;
  // The maximum is taken before bias and activation: both must be increasing. Offsets have 16 bits.
  if (e.residual || e.act.slope < 0 || s.conv_h() < 2 || s.conv_w() < 2) return false;
  // One channel of one row of the four-sum form: 2 * stride phases of (1 + reach) rows for every column shift.
  const int64_t rows = 2 * s.stride_h + (s.kernel_h - 1) * s.dilation_h + s.stride_h;
  const int64_t shifts = (s.kernel_w - 1) * s.dilation_w + s.stride_w + 1;
  return (rows * (s.conv_w() / 2 + 8) + 32) * shifts + s.conv_w() / 2 + 64 < 65536;
}

bool conv_dense_supports(const ConvShape& s, const Epilogue& e) {
  return s.groups == 1 && (e.pool == Pool2x2::kNone || (!e.residual && s.conv_h() >= 2 && s.conv_w() >= 2));
}

bool conv_block_supports(const ConvShape& s, const Epilogue& e) { return conv_dense_supports(s, e); }

std::unique_ptr<PackedConv> conv_panel_pack(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e,
                                            const float* weights, const float* bias, const Tile& tile) {
  auto p = std::make_unique<PackedConvPanel>();
  const bool sparse = kernel.family != ConvFamily::kDense;
  p->kernel = &kernel;
  p->shape = s;
  p->epilogue = e;
  p->bias.assign((s.out_c + 7) / 8 * 8, 0.0f);  // whole blocks
  if (bias) std::copy_n(bias, s.out_c, p->bias.begin());
  p->density = measure_density(s, weights);
  p->nnz = p->density.nnz;
  const ConvPlanned planned = plan_conv(kernel, s, e, p->density.blocks(kernel.block), tile);
  const ConvGeometry& g = planned.geometry;
  const ConvTiling& t = planned.tiling;
  const bool large = t.cycles > kSerialMicroseconds * kCyclesPerMicrosecond;

  ConvView& v = p->view;
  v.n_parts = large ? std::clamp(s.out_c / 8, 1, 8) : 1;
  const int lanes = kernel.vector_lanes;
  v.in_place = g.hold == ConvHold::kInPlace;
  v.quads = g.quads();
  v.middle = g.hold != ConvHold::kMiddle ? 0 : g.cols < lanes ? -1 : g.cols / lanes;
  if (g.hold == ConvHold::kTaps) {
    v.tap_vectors = static_cast<int>((g.tap_floats() + lanes - 1) / lanes);
    p->tap_masks = tap_masks(s, lanes, v.tap_vectors);
  }
  if (sparse) {
    pack_sparse(*p, g, t, weights);
  } else {
    pack_dense(*p, g, t, weights);
  }
  v.in_h = g.in_h;
  v.in_w = g.in_w;
  v.in_plane = int64_t{s.in_h} * s.in_w;
  v.step_h = g.step_h;
  v.step_w = g.step_w;
  v.pad_top = s.pad_top;
  v.pad_left = s.pad_left;
  v.pitch = g.pitch;
  v.three = g.three();
  v.tile_rows = t.tile_rows;
  v.n_tiles = t.n_tiles;
  v.block = t.block;
  v.pair = g.pooled ? static_cast<uint32_t>(g.shift_floats(t.tile_rows) * g.pair_shifts) : 0;
  v.rows = g.rows;
  v.cols = g.cols;
  v.out_c = s.out_c;
  v.out_plane = int64_t{conv_out_h(s, e)} * conv_out_w(s, e);
  const bool pooled_later = kernel.family != ConvFamily::kSparse && e.pool != Pool2x2::kNone;
  v.pooled = g.pooled || pooled_later;
  v.fold = g.fold;
  v.lo = e.act.lo;
  v.hi = e.act.hi;
  v.slope = e.act.slope;
  v.bias = p->bias.data();
  v.planes = p->planes.data();
  v.chunks = p->chunks.data();
  v.n_chunks = t.n_chunks;
  v.part_rows = p->part_rows.data();
  v.out_rows = p->out_rows.data();
  v.tap_planes = p->tap_planes.data();
  v.tap_masks = p->tap_masks.data();
  v.near = p->near.size() ? p->near.as<uint16_t>() : nullptr;
  v.far = p->far.size() ? p->far.as<uint32_t>() : nullptr;
  v.nonzeros = p->nonzeros.as<float>();
  v.taps = p->taps.data();
  v.weights = p->weights.as<float>();
  const int64_t vectors = (int64_t{t.tile_rows} * g.pitch + lanes - 1) / lanes;
  v.tile_floats = vectors * lanes * (g.pooled ? 4 : 1);
  const bool partial = t.n_chunks > 1 || pooled_later;
  const int64_t panel = v.in_place ? 0 : t.chunk_channels * g.channel_floats(t.tile_rows);
  v.partial_at = (panel + 2 * lanes + 15) / 16 * 16;
  v.buffer_at = v.partial_at + (partial ? v.tile_floats * s.out_c + 2 * lanes + 15 : 0) / 16 * 16;
  p->scratch_bytes_per_thread = align_up(static_cast<size_t>(v.buffer_at + int64_t{t.block} * lanes + 2 * lanes) * 4);
  p->cycles = t.cycles;
  p->packed_bytes = p->near.size() + p->far.size() + p->nonzeros.size() + p->tap_planes.size() * sizeof(ConvTap) +
                    p->weights.size() + p->out_rows.size() * sizeof(ConvRow) + p->planes.size() * sizeof(ConvPlane) +
                    p->taps.size() * 4 + p->bias.size() * 4;
  char text[120];
  std::snprintf(text, sizeof text, "%s%d tile%s of %dx%d, %d chunk%s, %d vectors",
                v.quads                       ? "taps of 4 pixels, "
                : v.tap_vectors               ? "taps, "
                : v.in_place                  ? "in place, "
                : v.middle                    ? "middle column, "
                : g.hold == ConvHold::kShared ? "one plane, "
                                              : "",
                t.n_tiles, t.n_tiles > 1 ? "s" : "", t.tile_rows, g.pitch, t.n_chunks, t.n_chunks > 1 ? "s" : "",
                t.block);
  p->note = text;
  return p;
}

void conv_panel_run(const PackedConv& packed, const ConvArgs& args) {
  const auto& p = static_cast<const PackedConvPanel&>(packed);
  const ConvView& v = p.view;
  const int64_t x_step = args.x_batch_stride ? args.x_batch_stride : int64_t{p.shape.in_c} * v.in_plane;
  const int64_t y_step = args.y_batch_stride ? args.y_batch_stride : int64_t{v.out_c} * v.out_plane;
  const int threads = args.threads ? args.threads->size() : 1;
  const int64_t tiles = args.batch * v.n_tiles;
  const bool parallel = threads > 1 && p.cycles * double(args.batch) > kSerialMicroseconds * kCyclesPerMicrosecond;
  // Split the output channels too while whole tiles would leave threads idle; each part fills its own panel.
  int split = 1;
  if (parallel)
    while (2 * split <= v.n_parts && tiles * split < 4 * threads && tiles * split % threads != 0) split *= 2;
  const auto task = [&](int64_t index, int worker) {
    const int64_t tile = index / split, part = index % split, image = tile / v.n_tiles;
    ConvTask t;
    t.x = args.x + image * x_step;
    t.y = args.y + image * y_step;
    t.residual = p.epilogue.residual ? args.residual + image * y_step : nullptr;
    t.tile = static_cast<int32_t>(tile % v.n_tiles);
    t.part_begin = static_cast<int32_t>(v.n_parts * part / split);
    t.part_end = static_cast<int32_t>(v.n_parts * (part + 1) / split);
    t.scratch = reinterpret_cast<float*>(static_cast<uint8_t*>(args.scratch) + worker * p.scratch_bytes_per_thread);
    p.kernel->task(v, t);
  };
  if (parallel) {
    args.threads->parallel(tiles * split, task);
  } else {
    for (int64_t i = 0; i < tiles; ++i) task(i, 0);
  }
}

}  // namespace secateur
