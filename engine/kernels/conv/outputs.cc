// Packs layers whose output channels are the lanes, and says what they cost.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "kernels/conv/packing.h"

namespace secateur {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What a tile of some rows reads of a channel.
struct Padded {
  int rows, pitch;
  int64_t floats;  // from one channel to the next
};

Padded padded(const ConvShape& s, ConvHold hold, int tile_rows) {
  if (hold == ConvHold::kInPlace) return {s.in_h, s.in_w, int64_t{s.in_h} * s.in_w};
  Padded p;
  p.rows = (tile_rows - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
  p.pitch = (s.conv_w() - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w + 1;
  // An odd number of cache lines, so that channels do not pile up in the same sets of the first cache.
  p.floats = (ceil_div(int64_t{p.rows} * p.pitch, 16) | 1) * 16;
  return p;
}

// Of one image on one thread. Fitted on Zen 4 (32 KB L1, 1 MB L2) to seven layers of ResNet-50 in all their ways.
double cycles_of(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e, ConvHold hold, const ConvTiling& t) {
  const double l2 = double(cpu().l2_bytes);
  const int lanes = kernel.vector_lanes, group = kernel.block;
  const double taps = double(s.in_c) * s.kernel_h * s.kernel_w;
  const bool in_place = hold == ConvHold::kInPlace;
  const Padded p = padded(s, hold, t.tile_rows);
  const int64_t pixels = int64_t{t.tile_rows} * s.conv_w(), blocks = ceil_div(pixels, kOutputPixels);
  // A multiply-add of one vector; portable code multiplies, then adds. In place 12 multiply-adds hide less than 24:
  // beyond the first cache channels that begin anywhere in a line (7x7) are 1.2 times as dear, pages of their own
  // another cycle a tap.
  const bool bare = in_place && lanes == 8;
  const bool cut = bare && p.floats % 4 != 0 && 4 * s.in_c * p.floats > 3 * int64_t(cpu().l1d_bytes) / 2;
  const double fma = lanes == 16 ? 0.95 : lanes == 4 ? 0.8 : cut ? 0.6 : 0.5;
  const double pages = bare ? 1.2 * std::min(1.0, double(p.floats) / 1024) : 0;
  double cycles = 0;
  for (int out = 0; out < s.out_c; out += group) {
    const int64_t vectors = ceil_div(std::min(group, s.out_c - out), lanes);
    for (const int64_t rows : {pixels / blocks, pixels / blocks + 1}) {  // blocks of so many pixels
      const double n = double(rows * blocks > pixels ? pixels % blocks : blocks - pixels % blocks);
      // Sums in turn wait for each other (4 cycles at best); a load a pixel, one or two a vector of weights.
      const double loads = 0.55 * double(rows + vectors * (lanes == 16 ? 2 : 1));
      cycles += n * (taps * (std::max({4.6, double(rows * vectors) * fma, loads}) + pages) + 30.0 * t.n_chunks);
    }
    // Turned and stored; many sums at once leave the second cache in between.
    const double sums = double(pixels * vectors * lanes);
    cycles += sums * (lanes == 16 ? 0.4 : 0.7) * (e.residual ? 1.4 : 1.0) +
              sums * std::clamp((4 * sums / l2 - 0.05) / 0.15, 0.0, 1.0);
  }
  if (!in_place) cycles += double(s.in_c) * (10 + p.rows * (2 + 2.0 * std::ceil(double(p.pitch) / lanes)));
  // Every group of outputs reads all of a tile's input, every tile all weights.
  const double read = 4.0 * s.in_c * double(p.rows) * p.pitch / (in_place ? t.n_tiles : 1);
  cycles += 0.03 * read * double(ceil_div(s.out_c, group)) * std::clamp((read / l2 - 0.4) / 0.6, 0.0, 1.0);
  const double weight_bytes = 4 * taps * s.out_c;
  cycles += 0.07 * weight_bytes * std::clamp(weight_bytes / l2 - 1, 0.0, 1.0);
  const double image_bytes = 4.0 * (double(s.in_c) * s.in_h * s.in_w +
                                    double(s.out_c) * conv_out_h(s, e) * conv_out_w(s, e) * (e.residual ? 2 : 1));
  return std::max(cycles, weight_bytes / (weight_bytes > 0.7 * l2 ? 6.5 : 32.0)) * t.n_tiles +
         0.02 * std::max(0.0, image_bytes - 0.5 * l2);
}

}  // namespace

std::vector<ConvPlanned> conv_outputs_plans(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e) {
  std::vector<ConvPlanned> plans;
  const bool pooled = e.pool != Pool2x2::kNone, bare = !s.pad_top && !s.pad_left && !s.pad_bottom && !s.pad_right;
  const int64_t taps = int64_t{s.in_c} * s.kernel_h * s.kernel_w;
  for (const ConvHold hold : {ConvHold::kShared, ConvHold::kInPlace}) {
    const int64_t most = int64_t{1} << (hold == ConvHold::kInPlace ? 31 : 28);  // floats
    if (hold == ConvHold::kInPlace && !bare) continue;
    ConvPlanned plan{};
    plan.geometry.hold = hold;
    ConvTiling& t = plan.tiling;
    for (int n_tiles = 1, last = 0; n_tiles <= s.conv_h(); n_tiles *= 2) {
      t.tile_rows = static_cast<int>(ceil_div(s.conv_h(), n_tiles));
      if (pooled) t.tile_rows = (t.tile_rows + 1) / 2 * 2;
      if (t.tile_rows == last || s.in_c * padded(s, hold, t.tile_rows).floats >= most) continue;
      last = t.tile_rows;
      t.n_tiles = static_cast<int>(ceil_div(s.conv_h(), t.tile_rows));
      // As many taps as keep their weights in the first cache for all pixels.
      t.n_chunks = static_cast<int>(ceil_div(4 * taps * kernel.block, 35 * cpu().l1d_bytes / 100));
      t.chunk_channels = static_cast<int>(ceil_div(taps, t.n_chunks));
      t.n_chunks = static_cast<int>(ceil_div(taps, t.chunk_channels));
      t.cycles = cycles_of(kernel, s, e, hold, t);
      plans.push_back(plan);
    }
  }
  return plans;
}

std::unique_ptr<PackedConv> conv_outputs_pack(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e,
                                              const float* weights, const float* bias, const Tile& tile) {
  auto p = std::make_unique<PackedConvPanel>();
  p->kernel = &kernel;
  p->shape = s;
  p->epilogue = e;
  p->density = measure_density(s, weights);
  p->nnz = p->density.nnz;
  const ConvPlanned planned = plan_conv(kernel, s, e, p->nnz, tile);
  const ConvTiling& t = planned.tiling;
  const int lanes = kernel.vector_lanes, group = kernel.block;
  const int64_t n_taps = int64_t{s.in_c} * s.kernel_h * s.kernel_w, outs = ceil_div(s.out_c, lanes) * lanes;
  p->bias.assign(static_cast<size_t>(outs), 0.0f);
  if (bias) std::copy_n(bias, s.out_c, p->bias.begin());
  // [group][tap][channel], zeros behind the last.
  p->weights = Buffer(static_cast<size_t>(n_taps * outs) * sizeof(float));
  float* to = p->weights.as<float>();
  for (int64_t out = 0; out < outs; out += group)
    for (int64_t k = 0; k < n_taps; ++k)
      for (int64_t o = out; o < std::min(outs, out + group); ++o) *to++ = o < s.out_c ? weights[o * n_taps + k] : 0.0f;

  ConvView& v = p->view;
  v.in_place = planned.geometry.hold == ConvHold::kInPlace;
  const Padded plane = padded(s, planned.geometry.hold, t.tile_rows);
  for (int c = 0; c < s.in_c; ++c) {
    const auto at = static_cast<uint32_t>(c * plane.floats);
    if (!v.in_place)
      p->planes.push_back({c, 0, 0, (s.kernel_h - 1) * s.dilation_h, std::min(s.pad_left, plane.pitch),
                           std::min(s.pad_left + s.in_w, plane.pitch), at});
    for (int u = 0; u < s.kernel_h; ++u)
      for (int w = 0; w < s.kernel_w; ++w)
        p->taps.push_back(static_cast<int32_t>(at) + u * s.dilation_h * plane.pitch + w * s.dilation_w);
  }
  for (int i = 0; i < t.tile_rows; ++i)
    for (int j = 0; j < s.conv_w(); ++j) p->pixels.push_back(i * s.stride_h * plane.pitch + j * s.stride_w);
  ConvChunk chunk{};
  chunk.plane_end = p->n_planes();
  chunk.tap_end = static_cast<int32_t>(n_taps);
  p->chunks.push_back(chunk);

  const bool large = t.cycles > kSerialMicroseconds * kCyclesPerMicrosecond;
  v.n_parts = large ? static_cast<int>(std::min<int64_t>(8, ceil_div(s.out_c, group))) : 1;
  v.in_h = s.in_h, v.in_w = s.in_w;
  v.in_plane = int64_t{s.in_h} * s.in_w;
  v.step_h = v.step_w = 1;
  v.stride_h = s.stride_h;
  v.pad_top = s.pad_top, v.pad_left = s.pad_left;
  v.pitch = plane.pitch;
  v.tile_rows = t.tile_rows, v.n_tiles = t.n_tiles;
  v.chunk_taps = t.chunk_channels;
  v.rows = s.conv_h(), v.cols = s.conv_w();
  v.pooled = e.pool != Pool2x2::kNone;
  v.out_c = s.out_c;
  v.out_plane = int64_t{conv_out_h(s, e)} * conv_out_w(s, e);
  v.lo = e.act.lo, v.hi = e.act.hi, v.slope = e.act.slope;
  v.bias = p->bias.data();
  v.weights = p->weights.as<float>();
  v.planes = p->planes.data();
  v.chunks = p->chunks.data();
  v.n_chunks = 1;
  v.taps = p->taps.data();
  v.pixels = p->pixels.data();
  const int64_t panel = v.in_place ? 0 : s.in_c * plane.floats;
  v.partial_at = (panel + 2 * lanes + 15) / 16 * 16;
  // A vector of pixels that begins with the last one is turned whole.
  const auto sums = (static_cast<int64_t>(p->pixels.size()) + lanes) * group;
  p->scratch_bytes_per_thread = align_up(static_cast<size_t>(v.partial_at + sums) * sizeof(float));
  p->cycles = t.cycles;
  p->packed_bytes = p->weights.size() + p->planes.size() * sizeof(ConvPlane) +
                    (p->taps.size() + p->pixels.size() + p->bias.size()) * 4;
  char text[120];
  std::snprintf(text, sizeof text, "%s, %d tile%s of %dx%d, %d taps at a time", v.in_place ? "in place" : "one plane",
                t.n_tiles, t.n_tiles > 1 ? "s" : "", t.tile_rows, v.cols, t.chunk_channels);
  p->note = text;
  return p;
}

}  // namespace secateur
