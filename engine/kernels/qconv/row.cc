// Packs linear layers of one row; qconv_panel_run() runs them.
#include <cmath>
#include <cstdio>

#include "kernels/qconv/packed.h"
#include "kernels/qconv/rows.h"
#include "kernels/qconv/tiling.h"

namespace secateur {

bool qconv_row_supports(const ConvShape& s, const QEpilogue& e) {
  return s.kernel_h * s.kernel_w == 1 && s.in_h == 1 && s.in_w == 1 && s.conv_h() == 1 && s.conv_w() == 1 &&
         s.pad_top + s.pad_left == 0 && s.groups == 1 && !e.residual && !e.gelu;
}

// Measured on Zen 4.
double qconv_row_cycles(const QConvKernel& kernel, const ConvShape& s, const QDensity& d) {
  const int groups = (s.out_c + kernel.lanes - 1) / kernel.lanes;
  // Blocks were counted with 16 outputs; narrower ones are at most as often filled.
  const double in = double(quads(s.in_c)), share = double(d.filled_rows) / (std::ceil(s.out_c / 16.0) * in);
  const double filled = groups * in * share;
  // From beyond the second cache weights come slower than they are multiplied.
  const double memory = filled * kernel.lanes * 4 > double(cpu().l2_bytes) ? 4.5 * kernel.lanes / 16 : 0;
  const double block = kernel.isa == Isa::kVnni      ? 2.3
                       : kernel.isa == Isa::kAvxVnni ? 1.5
                       : kernel.isa == Isa::kAvx512  ? 7
                       : kernel.isa == Isa::kAvx2    ? 4.5
                                                     : 24;
  return 60 + groups * 30.0 + filled * (block + memory);
}

std::unique_ptr<PackedQConv> qconv_row_pack(const QConvKernel& kernel, const ConvShape& s, const QEpilogue& e,
                                            const QWeights& w, const Tile&) {
  auto p = std::make_unique<PackedPanel>();
  p->begin(kernel, s, e, w);
  const int lanes = kernel.lanes, groups = (s.out_c + lanes - 1) / lanes, in_quads = static_cast<int>(quads(s.in_c));
  const size_t padded = static_cast<size_t>(groups) * lanes;
  p->bias.resize(padded, 0), p->scale.resize(padded, 0.0f), p->offset.resize(padded, 0.0f);
  std::vector<int8_t> blocks;
  const int parts = w.wide ? kMostParts : 1;
  for (int g = 0; g < groups; ++g) {
    p->row_begin.push_back(static_cast<int64_t>(p->taps.size()));
    for (int k = 0; k < in_quads * parts; ++k) {
      const int q = k / parts, part = k % parts;
      const size_t at = blocks.size();
      blocks.resize(at + 4 * static_cast<size_t>(lanes), 0);
      bool any = false;
      for (int i = 0; i < lanes && g * lanes + i < s.out_c; ++i)
        for (int c = 0; c < 4 && 4 * q + c < s.in_c; ++c) {
          const int value = weight_part(true, w.at(int64_t{g * lanes + i} * s.in_c + 4 * q + c), part);
          blocks[at + static_cast<size_t>(4 * i + c)] = static_cast<int8_t>(value);
          any = any || value != 0;
        }
      if (any) {
        p->taps.push_back(q);
      } else {
        blocks.resize(at);
      }
    }
  }
  p->row_begin.push_back(static_cast<int64_t>(p->taps.size()));
  p->weights = Buffer(blocks.size());
  if (!blocks.empty()) std::memcpy(p->weights.data(), blocks.data(), blocks.size());
  p->cycles = qconv_row_cycles(kernel, s, measure_density(s, e, w));
  QConvView& v = p->view;
  v.in_plane = v.out_plane = 1;
  v.in_h = v.in_w = v.rows = v.cols = v.tile_rows = v.n_tiles = 1;
  v.bias = p->bias.data(), v.scale = p->scale.data(), v.offset = p->offset.data();
  p->share_dynamic();
  v.row_begin = p->row_begin.data();
  v.entries = p->taps.data();
  v.weights = p->weights.as<int32_t>();
  p->packed_bytes = p->weights.size() + p->taps.size() * 4 + p->row_begin.size() * 8 + padded * 12;
  char text[80];
  std::snprintf(text, sizeof text, "%d outputs a vector, %zu of %lld blocks", lanes, p->taps.size(),
                static_cast<long long>(int64_t{groups} * in_quads));
  p->note = text;
  return p;
}

}  // namespace secateur
