// Packs layers in which every channel has a kernel of its own; qconv_panel_run() runs them.
#include <algorithm>
#include <cstdio>

#include "kernels/qconv/packed.h"
#include "kernels/qconv/rows.h"
#include "kernels/qconv/tiling.h"

namespace secateur {
namespace {

int column_groups(const ConvShape& s) { return (s.kernel_w + 3) / 4; }

// Quads that may be multiplied as bytes where the level's own products take 16 bits.
void pack_bytes(PackedPanel& p, const QWeights& w) {
  const ConvShape& s = p.shape;
  const int groups = column_groups(s);
  p.in_bytes.assign(size_t(quads(s.in_c)), 1);
  p.byte_weights.assign(p.in_bytes.size() * s.kernel_h * groups * 4, 0);
  for (int c = 0; c < s.in_c; ++c)
    for (int u = 0; u < s.kernel_h; ++u)
      for (int g = 0; g < groups; ++g) {
        int16_t four[4] = {};
        int8_t placed[4];
        const int columns = std::min(4, s.kernel_w - 4 * g);
        for (int k = 0; k < columns; ++k)
          four[k] = static_cast<int16_t>(w.at((int64_t{c} * s.kernel_h + u) * s.kernel_w + 4 * g + k));
        if (!place_columns(four, columns, placed)) p.in_bytes[size_t(c / 4)] = 0;
        const int64_t at = (int64_t{c / 4} * s.kernel_h + u) * groups + g;
        std::memcpy(&p.byte_weights[size_t(at * 4 + c % 4)], placed, 4);
      }
}

}  // namespace

bool qconv_depthwise_supports(const ConvShape& s, const QEpilogue& e) {
  return s.groups == s.in_c && s.out_c == s.in_c && s.in_c > 1 && s.dilation_h == 1 && s.dilation_w == 1 &&
         s.stride_w <= 2 && s.stride_h <= s.kernel_h && s.kernel_h <= 16 && s.kernel_w <= 16 &&
         (e.output == QOutput::kU8 || e.output == QOutput::kI32 || e.output == QOutput::kF32) && !e.residual && !e.gelu;
}

// Measured on Zen 4.
double qconv_depthwise_cycles(const QConvKernel& kernel, const ConvShape& s, bool wide) {
  const double product = kernel.isa == Isa::kVnni      ? 1
                         : kernel.isa == Isa::kAvxVnni ? 0.7
                         : kernel.isa == Isa::kAvx512  ? 4.4
                         : kernel.isa == Isa::kAvx2    ? 1.6
                                                       : 16;
  const double vectors = double(s.conv_h()) * ((s.conv_w() + kernel.lanes - 1) / kernel.lanes);
  // Weights of several bytes: more products, and loops whose length is not known.
  const double parts = wide && kernel.weight_words == 1 ? 2.5 : 1;
  const double row = column_groups(s) * (s.kernel_h * 4 * product * parts * 1.1 + 10.0 * s.stride_w);
  return 300 + double(quads(s.in_c)) * (vectors * (row + (kernel.isa == Isa::kPortable ? 250 : 12)) + 20);
}

std::unique_ptr<PackedQConv> qconv_depthwise_pack(const QConvKernel& kernel, const ConvShape& s, const QEpilogue& e,
                                                  const QWeights& w, const Tile&) {
  auto p = std::make_unique<PackedPanel>();
  p->begin(kernel, s, e, w);
  const int words = kernel.weight_words, groups = column_groups(s);
  const size_t count = static_cast<size_t>(quads(s.in_c)) * s.kernel_h * groups * 4 * words;
  const bool bytes = words == 1;
  int parts = 1;
  for (int64_t i = 0; i < s.weight_count(); ++i)
    while (parts < kMostParts && weight_part(bytes, w.at(i), parts) != 0) ++parts;
  p->cycles = qconv_depthwise_cycles(kernel, s, parts > 1);
  p->weights = Buffer(count * 4 * static_cast<size_t>(parts));
  std::memset(p->weights.data(), 0, p->weights.size());
  for (int part = 0; part < parts; ++part)
    for (int c = 0; c < s.in_c; ++c)
      for (int u = 0; u < s.kernel_h; ++u)
        for (int g = 0; g < groups; ++g) {
          int16_t four[4] = {};
          for (int k = 0; k < 4 && 4 * g + k < s.kernel_w; ++k)
            four[k] = static_cast<int16_t>(
                weight_part(bytes, w.at((int64_t{c} * s.kernel_h + u) * s.kernel_w + 4 * g + k), part));
          int32_t packed[2];
          put_weights(words, four, packed);
          int32_t* to = p->weights.as<int32_t>() + part * count;
          const int64_t at = (int64_t{c / 4} * s.kernel_h + u) * groups + g;
          for (int i = 0; i < words; ++i) to[(at * words + i) * 4 + c % 4] = packed[i];
        }
  if (!bytes) pack_bytes(*p, w);
  QConvView& v = p->view;
  v.in_h = s.in_h, v.in_w = s.in_w;
  v.in_plane = int64_t{s.in_h} * s.in_w;
  v.kernel_h = s.kernel_h, v.kernel_w = s.kernel_w;
  v.rows = s.conv_h(), v.cols = s.conv_w();
  v.out_plane = int64_t{v.rows} * v.cols;
  v.tile_rows = v.rows, v.n_tiles = 1;
  v.weights = p->weights.as<int32_t>();
  v.in_bytes = p->in_bytes.empty() ? nullptr : p->in_bytes.data(), v.byte_weights = p->byte_weights.data();
  v.n_parts = parts, v.part_words = static_cast<int64_t>(count);
  p->share_dynamic();
  p->packed_bytes = p->weights.size() + p->byte_weights.size() * 4 + p->bias.size() * 12;
  p->note = "four columns of a kernel a product";
  return p;
}

}  // namespace secateur
