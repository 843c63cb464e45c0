// The nonzeros of a layer by chunks of its input channels, in the order in which a panel reads them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "kernels/conv/panel.h"
#include "kernels/conv/rows.h"
#include "kernels/conv/tiling.h"

namespace secateur {

struct PackedConvPanel final : PackedConv {
  ConvView view{};
  double cycles = 0;
  std::vector<float> bias;
  std::vector<ConvPlane> planes;
  std::vector<ConvTap> tap_planes;
  std::vector<uint32_t> tap_masks;
  std::vector<ConvChunk> chunks;
  std::vector<int32_t> part_rows, taps, pixels;
  std::vector<ConvRow> out_rows;
  int32_t n_planes() const { return static_cast<int32_t>(planes.size() + tap_planes.size()); }
  Buffer near, far, nonzeros, weights;
};

// Where a tap's planes start in the panel of its chunk.
class ConvPanelLayout {
 public:
  ConvPanelLayout(const ConvShape& s, const ConvGeometry& g, int tile_rows)
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
    return g_.hold == ConvHold::kTaps || g_.hold == ConvHold::kInPlace ? g_.n_taps : g_.n_shifts * g_.step_h;
  }

  // Panel offset of input row `q`, column `shift` (both before padding) of a channel, `in_chunk` of its chunk.
  uint32_t tap(int channel, int in_chunk, int q, int shift) const {
    if (g_.hold == ConvHold::kInPlace) return static_cast<uint32_t>(int64_t{channel} * s_.in_h * s_.in_w);
    const int64_t start = in_chunk * channel_floats();
    if (g_.hold == ConvHold::kTaps) return static_cast<uint32_t>(start + plane(q, shift) * g_.tap_floats());
    if (g_.hold == ConvHold::kMiddle) shift = 0;
    if (g_.hold == ConvHold::kShared) return static_cast<uint32_t>(start + int64_t{q} * g_.pitch + shift);
    return static_cast<uint32_t>(start + shift / g_.shift_step * shift_floats_ + phase_at_[q % g_.step_h] +
                                 int64_t{q / g_.step_h} * g_.pitch);
  }
  // Index of the plane the tap is in, unique within a channel.
  int plane(int q, int shift) const {
    if (g_.hold == ConvHold::kTaps || g_.hold == ConvHold::kInPlace)
      return q / s_.dilation_h * s_.kernel_w + shift / s_.dilation_w;
    if (g_.hold == ConvHold::kMiddle || g_.hold == ConvHold::kShared) return q % g_.step_h;
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

inline void add_planes(PackedConvPanel& p, const ConvPanelLayout& layout, ConvHold hold, int channel, int in_chunk,
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
inline std::vector<uint32_t> tap_masks(const ConvShape& s, int lanes, int vectors) {
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

inline Nonzeros nonzeros_of(const ConvShape& s, const ConvTiling& t, int block, const float* weights) {
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
inline std::vector<int> parts_of(const Nonzeros& z, int out_c, int block, int parts) {
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

inline ChunkRows rows_of(PackedConvPanel& p, const ConvGeometry& g, const ConvPanelLayout& layout, Nonzeros& z, int k,
                         int channel0, int channels) {
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
inline void write_entries(PackedConvPanel& p, ChunkRows& r, const std::vector<float>& values, int64_t& at) {
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

}  // namespace secateur
