// Turns ONNX weights into what panel.h describes, and runs it: tasks over images, tiles and parts of the channels.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/arena.h"
#include "kernels/conv/panel.h"
#include "kernels/conv/rows.h"
#include "kernels/conv/tiling.h"

namespace secateur {
namespace {

struct PackedPanel final : PackedConv {
  ConvView view{};
  double cycles = 0;
  std::vector<float> bias;
  std::vector<ConvPlane> planes;
  std::vector<ConvTap> tap_planes;
  std::vector<uint32_t> tap_masks;
  std::vector<ConvChunk> chunks;
  std::vector<int32_t> part_rows, taps;
  std::vector<ConvRow> out_rows;
  int32_t n_planes() const { return static_cast<int32_t>(planes.size() + tap_planes.size()); }
  Buffer near, far, nonzeros, weights;
};

// Where a tap's planes start in the panel of its chunk.
class Layout {
 public:
  Layout(const ConvShape& s, const ConvGeometry& g, int tile_rows)
      : s_(s), g_(g), tile_rows_(tile_rows), shift_floats_(g.shift_floats(tile_rows)) {
    if (g.hold == ConvHold::kTaps || g.hold == ConvHold::kInPlace) return;
    int64_t at = 0;
    phase_at_.assign(g.step_h, 0);
    for (int f = 0; f < g.step_h; ++f) {
      phase_at_[f] = at;
      if (g.extra[f] >= 0) at += int64_t{tile_rows + g.extra[f]} * g.pitch;
    }
  }
  int64_t channel_floats() const { return g_.channel_floats(tile_rows_); }
  int n_planes() const {
    return g_.hold == ConvHold::kPlanes || g_.hold == ConvHold::kMiddle ? g_.n_shifts * g_.step_h : g_.n_taps;
  }

  // Panel offset of input row `q`, column `shift` (both before padding) of a channel, `in_chunk` of its chunk.
  uint32_t tap(int channel, int in_chunk, int q, int shift) const {
    if (g_.hold == ConvHold::kInPlace) return static_cast<uint32_t>(int64_t{channel} * s_.in_h * s_.in_w);
    const int64_t start = in_chunk * channel_floats();
    if (g_.hold == ConvHold::kTaps) return static_cast<uint32_t>(start + plane(q, shift) * g_.tap_floats());
    if (g_.hold == ConvHold::kMiddle) shift = 0;
    return static_cast<uint32_t>(start + shift / g_.shift_step * shift_floats_ + phase_at_[q % g_.step_h] +
                                 int64_t{q / g_.step_h} * g_.pitch);
  }
  // Index of the plane the tap is in, unique within a channel.
  int plane(int q, int shift) const {
    if (g_.hold == ConvHold::kTaps || g_.hold == ConvHold::kInPlace)
      return q / s_.dilation_h * s_.kernel_w + shift / s_.dilation_w;
    if (g_.hold == ConvHold::kMiddle) return q % g_.step_h;
    return shift / g_.shift_step * g_.step_h + q % g_.step_h;
  }

  ConvTap make_tap(int channel, int in_chunk, int index, int vectors) const {
    const int u = index / s_.kernel_w, v = index % s_.kernel_w;
    return {channel, (u * s_.dilation_h - s_.pad_top) * s_.in_w + v * s_.dilation_w - s_.pad_left, index * vectors,
            static_cast<uint32_t>(in_chunk * channel_floats() + index * g_.tap_floats())};
  }

  ConvPlane make_plane(int channel, int channel_in_chunk, int index) const {
    ConvPlane p;
    p.channel = channel;
    p.shift = g_.hold == ConvHold::kMiddle ? s_.pad_left : index / g_.step_h * g_.shift_step;
    p.phase = index % g_.step_h;
    p.extra = g_.extra[p.phase];
    // first j with j * step + shift - pad >= 0; first with >= in_w
    const int from = s_.pad_left - p.shift;
    p.begin = from <= 0 ? 0 : (from + g_.step_w - 1) / g_.step_w;
    const int to = g_.in_w + from;
    p.end = std::min(g_.pitch, to <= 0 ? 0 : (to + g_.step_w - 1) / g_.step_w);
    p.begin = std::min(p.begin, p.end);
    p.offset = static_cast<uint32_t>(channel_in_chunk * channel_floats() + index / g_.step_h * shift_floats_ +
                                     phase_at_[p.phase]);
    return p;
  }

 private:
  const ConvShape& s_;
  const ConvGeometry& g_;
  int tile_rows_;
  int64_t shift_floats_;
  std::vector<int64_t> phase_at_;
};

// Of `block` output channels from `out` on; their weights follow one another from `weights` on.
struct Nonzero {
  int32_t out, channel;
  int16_t u, v;
  int64_t weights;
};

void add_planes(PackedPanel& p, const Layout& layout, ConvHold hold, int channel, int in_chunk,
                const std::vector<char>& used) {
  if (hold == ConvHold::kInPlace) return;
  for (int i = 0; i < static_cast<int>(used.size()); ++i) {
    if (!used[i]) continue;
    if (hold == ConvHold::kTaps) {
      p.tap_planes.push_back(layout.make_tap(channel, in_chunk, i, p.view.tap_vectors));
    } else {
      p.planes.push_back(layout.make_plane(channel, in_chunk, i));
    }
  }
}

// For every tap and vector of its plane, the lanes that lie inside the image.
std::vector<uint32_t> tap_masks(const ConvShape& s, int lanes, int vectors) {
  std::vector<uint32_t> masks;
  for (int u = 0; u < s.kernel_h; ++u)
    for (int v = 0; v < s.kernel_w; ++v)
      for (int p = 0; p < vectors; ++p) {
        uint32_t bits = 0;
        for (int k = 0; k < lanes && p * lanes + k < s.in_h * s.in_w; ++k) {
          const int row = (p * lanes + k) / s.in_w + u * s.dilation_h - s.pad_top;
          const int col = (p * lanes + k) % s.in_w + v * s.dilation_w - s.pad_left;
          if (row >= 0 && row < s.in_h && col >= 0 && col < s.in_w) bits |= 1u << k;
        }
        masks.push_back(bits);
      }
  return masks;
}

// The nonzeros of a layer, `block` output channels together.
struct Nonzeros {
  std::vector<std::vector<Nonzero>> by_chunk;
  std::vector<float> values;            // [entries][block]
  std::vector<int> first, last, count;  // by output channel: chunks of the first and last, how many

  int64_t entries(int block) const { return static_cast<int64_t>(values.size()) / block; }
};

Nonzeros nonzeros_of(const ConvShape& s, const ConvTiling& t, int block, const float* weights) {
  const auto out_c = static_cast<size_t>(s.out_c);
  Nonzeros z{std::vector<std::vector<Nonzero>>(t.n_chunks),
             {},
             std::vector<int>(out_c, -1),
             std::vector<int>(out_c, -1),
             std::vector<int>(out_c, 0)};
  const int group_in = s.in_c / s.groups, group_out = s.out_c / s.groups;
  const int64_t n_taps = s.weight_count() / s.out_c;
  for (int o = 0; o < s.out_c; o += block) {
    const int n = std::min(block, s.out_c - o);
    const float* w = weights + o * n_taps;
    for (int c = 0; c < group_in; ++c)
      for (int u = 0; u < s.kernel_h; ++u)
        for (int v = 0; v < s.kernel_w; ++v, ++w) {
          bool any = false;
          for (int m = 0; m < n; ++m) any |= w[m * n_taps] != 0;
          if (!any) continue;
          const int channel = o / group_out * group_in + c, chunk = channel / t.chunk_channels;
          z.by_chunk[chunk].push_back(
              {o, channel, static_cast<int16_t>(u), static_cast<int16_t>(v), static_cast<int64_t>(z.values.size())});
          for (int m = 0; m < block; ++m) z.values.push_back(m < n ? w[m * n_taps] : 0.0f);
          if (z.first[o] < 0) z.first[o] = chunk;
          z.last[o] = chunk;
          ++z.count[o];
        }
    if (z.first[o] < 0) z.first[o] = z.last[o] = 0;  // nothing but its bias
  }
  return z;
}

// Parts of the output channels with about equal work.
std::vector<int> parts_of(const Nonzeros& z, int out_c, int block, int parts) {
  std::vector<int> part_of(static_cast<size_t>(out_c));
  const int64_t total = z.entries(block) + out_c;
  int64_t seen = 0;
  for (int o = 0; o < out_c; o += block) {
    part_of[o] = static_cast<int>(std::min<int64_t>(parts - 1, seen * parts / total));
    seen += z.count[o] + 1;
  }
  return part_of;
}

// A chunk's rows, their entries as (offset, weights), and the planes that they read: [channel][plane].
struct ChunkRows {
  std::vector<ConvRow> rows;
  std::vector<std::pair<uint32_t, int64_t>> entries;
  std::vector<char> used;
};

ChunkRows rows_of(PackedPanel& p, const ConvGeometry& g, const Layout& layout, Nonzeros& z, int k, int channel0,
                  int channels) {
  const ConvShape& s = p.shape;
  ChunkRows r;
  const size_t n_planes = layout.n_planes();
  r.used.resize(static_cast<size_t>(channels) * n_planes);
  const bool middle = g.hold == ConvHold::kMiddle;
  auto& list = z.by_chunk[k];
  if (middle) {  // left, right, middle column
    const auto order = [](const Nonzero& z) { return std::pair(z.out, z.v == 0 ? 0 : z.v == 2 ? 1 : 2); };
    std::stable_sort(list.begin(), list.end(), [&](const Nonzero& a, const Nonzero& b) { return order(a) < order(b); });
  }
  size_t i = 0;
  for (int o = 0; o < s.out_c; o += p.kernel->block) {
    ConvRow row{};
    row.out = o;
    row.begin = static_cast<int64_t>(r.entries.size());
    row.first = static_cast<uint8_t>(z.first[o] == k), row.last = static_cast<uint8_t>(z.last[o] == k);
    for (; i < list.size() && list[i].out == o; ++i) {
      const Nonzero& tap = list[i];
      const int c = tap.channel - channel0, q = tap.u * s.dilation_h, x = tap.v * s.dilation_w;
      uint32_t offset = layout.tap(tap.channel, c, q, x);
      char* mark = r.used.data() + static_cast<size_t>(c) * n_planes;
      mark[layout.plane(q, x)] = 1;
      if (g.pooled) {
        offset |= layout.tap(tap.channel, c, q + s.stride_h, x) << 16;
        mark[layout.plane(q + s.stride_h, x)] = 1;
        mark[layout.plane(q, x + s.stride_w)] = 1;
        mark[layout.plane(q + s.stride_h, x + s.stride_w)] = 1;
      }
      r.entries.push_back({offset, tap.weights});
      ++row.count;
      row.left += middle && tap.v == 0;
      row.right += middle && tap.v == 2;
    }
    if (row.count > 0 || row.first) r.rows.push_back(row);
  }
  return r;
}

// Entries in the order they are read, so that they stream from the outer caches; offsets of 16 bits where p.near is.
void write_entries(PackedPanel& p, ChunkRows& r, const std::vector<float>& values, int64_t& at) {
  const int block = p.kernel->block, unit = p.view.near_unit;
  const bool near = p.near.size() > 0;
  for (ConvRow& row : r.rows) {
    const auto* from = r.entries.data() + row.begin;
    row.begin = at;
    for (int32_t i = 0; i < row.count; ++i, ++at) {
      if (near) {
        p.near.as<uint16_t>()[at] = static_cast<uint16_t>(from[i].first >> unit);
      } else {
        p.far.as<uint32_t>()[at] = from[i].first;
      }
      std::copy_n(values.data() + from[i].second, block, p.nonzeros.as<float>() + at * block);
    }
  }
}

void pack_sparse(PackedPanel& p, const ConvGeometry& g, const ConvTiling& t, const float* weights) {
  const ConvShape& s = p.shape;
  const Layout layout(s, g, t.tile_rows);
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

void pack_dense(PackedPanel& p, const ConvGeometry& g, const ConvTiling& t, const float* weights) {
  const ConvShape& s = p.shape;
  const Layout layout(s, g, t.tile_rows);
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
  auto p = std::make_unique<PackedPanel>();
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
                v.quads         ? "taps of 4 pixels, "
                : v.tap_vectors ? "taps, "
                : v.in_place    ? "in place, "
                : v.middle      ? "middle column, "
                                : "",
                t.n_tiles, t.n_tiles > 1 ? "s" : "", t.tile_rows, g.pitch, t.n_chunks, t.n_chunks > 1 ? "s" : "",
                t.block);
  p->note = text;
  return p;
}

void conv_panel_run(const PackedConv& packed, const ConvArgs& args) {
  const auto& p = static_cast<const PackedPanel&>(packed);
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
