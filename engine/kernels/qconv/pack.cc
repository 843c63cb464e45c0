// Turns weights into what panel.h describes, and runs it: tasks over images, tiles and quads of output channels.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "kernels/qconv/packed.h"
#include "kernels/qconv/rows.h"
#include "kernels/qconv/tiling.h"

namespace secateur {
namespace {

// Where a tap's plane starts in the panel of its chunk.
class Layout {
 public:
  Layout(const ConvShape& s, const QTiling& t) : s_(s), t_(t) {
    int64_t at = 0;
    for (int u = 0; u < n_rows(); ++u)
      for (int v = 0; v < s.kernel_w; ++v) {
        at_.push_back(at);
        at += qplane_words(t.tile_rows + qplane_extra(s, t, u), t.pitch);
      }
    quad_words_ = at;
  }
  int n_rows() const { return qplane_rows(s_, t_); }
  int n_planes() const { return n_rows() * s_.kernel_w; }
  int64_t quad_words() const { return quad_words_; }

  int plane(int u, int v) const {
    return (qplane_shared(s_, t_) ? u * s_.dilation_h % s_.stride_h : u) * s_.kernel_w + v;
  }
  // Bytes into the panel of the chunk.
  int64_t tap(int quad, int u, int v) const {
    if (t_.direct) return int64_t{quad} * t_.in_h * t_.in_w * 4;
    const int64_t row = qplane_shared(s_, t_) ? u * s_.dilation_h / s_.stride_h : 0;
    return 4 * (quad * quad_words_ + at_[plane(u, v)] + row * t_.pitch);
  }
  QPlane make(int quad, int in_chunk, int index) const {
    const int u = index / s_.kernel_w, v = index % s_.kernel_w;
    QPlane p{};
    p.quad = quad;
    p.column = v;
    p.shift = v * s_.dilation_w;
    p.row = qplane_shared(s_, t_) ? u : u * s_.dilation_h;
    p.extra = qplane_extra(s_, t_, u);
    const int from = s_.pad_left - p.shift, to = t_.in_w + from, step = s_.stride_w;
    p.begin = from <= 0 ? 0 : (from + step - 1) / step;
    p.end = std::min(t_.pitch, to <= 0 ? 0 : (to + step - 1) / step);
    p.begin = std::min(p.begin, p.end);
    p.offset = static_cast<uint32_t>(in_chunk * quad_words_ + at_[index]);
    return p;
  }

 private:
  const ConvShape& s_;
  const QTiling& t_;
  std::vector<int64_t> at_;
  int64_t quad_words_ = 0;
};

// The block of output o, input quad q, tap (u, v) (that part of its weights); false when all zero. Channels of other
// groups are zero.
bool block_at(const ConvShape& s, const QWeights& w, int o, int quad, int u, int v, int16_t out[4], bool bytes = false,
              int part = 0) {
  const int group_in = s.in_c / s.groups, first = o / (s.out_c / s.groups) * group_in;
  bool any = false;
  for (int k = 0; k < 4; ++k) {
    const int c = 4 * quad + k - first;
    const bool inside = c >= 0 && c < group_in && 4 * quad + k < s.in_c;
    const int value = inside ? w.at(((int64_t{o} * group_in + c) * s.kernel_h + u) * s.kernel_w + v) : 0;
    out[k] = static_cast<int16_t>(w.wide ? weight_part(bytes, value, part) : value);
    any = any || out[k] != 0;
  }
  return any;
}

// Input quads that the group of output o reads.
std::pair<int, int> quads_of(const ConvShape& s, int o) {
  const int group_in = s.in_c / s.groups, first = o / (s.out_c / s.groups) * group_in;
  return {first / 4, (first + group_in + 3) / 4};
}

// Pairs of blocks as entries: two offsets, the words of weights of the first, those of the second.
template <int kRows>
void put_pairs(std::vector<ByteBlock<kRows>>& blocks, std::vector<int32_t>& entries) {
  pair_blocks(blocks);
  for (size_t i = 0; i < blocks.size(); i += 2) {
    entries.insert(entries.end(), {blocks[i].at, blocks[i + 1].at});
    for (size_t k = i; k < i + 2; ++k) {
      entries.resize(entries.size() + kRows);
      std::memcpy(entries.data() + entries.size() - kRows, blocks[k].w, 4 * kRows);
    }
  }
  blocks.clear();
}

// Entries of `rows` outputs: 1 or 4.
void pack_sparse(PackedPanel& p, const QTiling& t, const Layout& layout, const QWeights& w, int rows) {
  const ConvShape& s = p.shape;
  const bool paired = in_pairs(p.kernel->family);
  const int weight_words = p.kernel->weight_words, words = 1 + rows * weight_words,
            out = static_cast<int>(4 * quads(s.out_c));
  const int in_quads = static_cast<int>(quads(s.in_c));
  std::vector<int32_t> entries;
  std::vector<char> used(static_cast<size_t>(layout.n_planes()) * static_cast<size_t>(in_quads), 0);
  const bool bytes = weight_words == 1;
  const int parts = w.wide && bytes && !paired ? kMostParts : 1;
  int16_t b[4][4];
  std::vector<ByteBlock<1>> blocks;
  std::vector<ByteBlock<4>> wide_blocks;
  for (int k = 0; k < t.n_chunks; ++k) {
    const int begin = k * t.chunk_quads, end = std::min(in_quads, begin + t.chunk_quads);
    for (int o = 0; o < out; o += rows) {
      p.row_begin.push_back(static_cast<int64_t>(entries.size()));
      if (o >= s.out_c) continue;
      const auto [lo, hi] = quads_of(s, o);
      for (int q = std::max(lo, begin); q < std::min(hi, end); ++q)
        for (int u = 0; u < s.kernel_h; ++u)
          for (int tap = 0; tap < s.kernel_w * parts; ++tap) {
            const int v = tap / parts;
            bool any = false;
            for (int r = 0; r < rows; ++r) {
              if (o + r >= s.out_c) std::memset(b[r], 0, sizeof b[r]);
              else any = block_at(s, w, o + r, q, u, v, b[r], bytes && !paired, tap % parts) || any;
            }
            if (!any) continue;
            used[static_cast<size_t>(q * layout.n_planes() + layout.plane(u, v))] = 1;
            // Direct planes are the whole image's: not counted from the chunk.
            const auto at = static_cast<int32_t>(static_cast<uint32_t>(layout.tap(t.direct ? q : q - begin, u, v)));
            if (paired) {
              if (rows == 1) add_byte_blocks(at, b[0], blocks);
              else add_byte_blocks(at, b[0], wide_blocks);
              continue;
            }
            entries.push_back(at);
            entries.resize(entries.size() + words - 1);
            int32_t* e = entries.data() + entries.size() - words;
            for (int r = 0; r < rows; ++r) put_weights(weight_words, b[r], e + 1 + r * weight_words);
          }
      put_pairs(blocks, entries);
      put_pairs(wide_blocks, entries);
    }
    p.row_begin.push_back(static_cast<int64_t>(entries.size()));
    QChunk chunk{};
    chunk.plane_begin = static_cast<int32_t>(p.planes.size());
    if (!t.direct)
      for (int q = begin; q < end; ++q)
        for (int i = 0; i < layout.n_planes(); ++i)
          if (used[static_cast<size_t>(q * layout.n_planes() + i)]) p.planes.push_back(layout.make(q, q - begin, i));
    chunk.plane_end = static_cast<int32_t>(p.planes.size());
    p.chunks.push_back(chunk);
  }
  p.weights = Buffer(entries.size() * 4);
  if (!entries.empty()) std::memcpy(p.weights.data(), entries.data(), entries.size() * 4);
}

void pack_dense(PackedPanel& p, const QTiling& t, const Layout& layout, const QWeights& w) {
  const ConvShape& s = p.shape;
  const int out_quads = static_cast<int>(quads(s.out_c)), in_quads = static_cast<int>(quads(s.in_c));
  const int words = p.kernel->weight_words, per_quad = s.kernel_h * s.kernel_w;
  p.weights = Buffer(size_t(out_quads) * in_quads * per_quad * 4 * words * 4);
  std::memset(p.weights.data(), 0, p.weights.size());
  int32_t* to = p.weights.as<int32_t>();
  for (int k = 0; k < t.n_chunks; ++k) {
    const int begin = k * t.chunk_quads, end = std::min(in_quads, begin + t.chunk_quads);
    QChunk chunk{};
    chunk.plane_begin = static_cast<int32_t>(p.planes.size());
    chunk.tap_begin = static_cast<int32_t>(p.taps.size());
    chunk.weight_begin = to - p.weights.as<int32_t>();
    for (int q = begin; q < end; ++q) {
      if (!t.direct)
        for (int i = 0; i < layout.n_planes(); ++i) p.planes.push_back(layout.make(q, q - begin, i));
      for (int u = 0; u < s.kernel_h; ++u)
        for (int v = 0; v < s.kernel_w; ++v)
          p.taps.push_back(static_cast<int32_t>(static_cast<uint32_t>(layout.tap(t.direct ? q : q - begin, u, v))));
    }
    for (int o = 0; o < out_quads; ++o)
      for (int q = begin; q < end; ++q)
        for (int u = 0; u < s.kernel_h; ++u)
          for (int v = 0; v < s.kernel_w; ++v)
            for (int r = 0; r < 4; ++r, to += words) {
              int16_t b[4];
              if (4 * o + r < s.out_c && block_at(s, w, 4 * o + r, q, u, v, b)) put_weights(words, b, to);
            }
    chunk.plane_end = static_cast<int32_t>(p.planes.size());
    chunk.tap_end = static_cast<int32_t>(p.taps.size());
    p.chunks.push_back(chunk);
  }
}

}  // namespace

// Windows of a size that makes sense: planning walks kernel rows times strides. And a row of planes, one per tap, of
// the fewest quads that plan_qconv() takes at once: a panel is at most 256 MiB.
bool qconv_sparse_supports(const ConvShape& s, const QEpilogue&) {
  const double taps = double(s.kernel_h) * s.kernel_w;
  return taps <= 4096 && double(s.kernel_h) * std::min(s.kernel_h, s.stride_h) <= 0x1p14 &&
         taps * (s.conv_w() + 64.0) * std::ceil(double(quads(s.in_c)) / 64) < 0x1p26;
}
bool qconv_dense_supports(const ConvShape& s, const QEpilogue& e) {
  return s.groups == 1 && qconv_sparse_supports(s, e);
}

namespace {

// Products in pairs for a block of kRows outputs; of some outputs, for putting pairs together takes as long as packing.
template <int kRows>
double pairing(const ConvShape& s, const QWeights& w) {
  const int every = std::max(1, s.out_c / 16 / kRows) * kRows;
  int64_t filled = 0, products = 0;
  std::vector<ByteBlock<kRows>> blocks;
  for (int o = 0; o < s.out_c; o += every) {
    const auto [lo, hi] = quads_of(s, o);
    for (int q = lo; q < hi; ++q)
      for (int u = 0; u < s.kernel_h; ++u)
        for (int v = 0; v < s.kernel_w; ++v) {
          int16_t b[kRows][4] = {};
          bool any = false;
          for (int r = 0; r < kRows && o + r < s.out_c; ++r) any = block_at(s, w, o + r, q, u, v, b[r]) || any;
          if (any) add_byte_blocks(0, b[0], blocks), ++filled;
        }
    pair_blocks(blocks);
    products += static_cast<int64_t>(blocks.size());
    blocks.clear();
  }
  return filled ? double(products) / double(filled) : 1.0;
}

}  // namespace

QDensity measure_density(const ConvShape& s, const QEpilogue& e, const QWeights& w) {
  QDensity d;
  d.weights = s.weight_count();
  const int group_in = s.in_c / s.groups;
  const int64_t per_row = int64_t{group_in} * s.kernel_h * s.kernel_w;
  int16_t b[4];
  // Above 2^30 a conversion to int32 could overflow; !(x < y) also finds NaN.
  if (e.residual && !(255.0 * (std::abs(double(e.a)) + std::abs(double(e.b))) < 0x1p30)) d.bounded = false;
  for (int o = 0; o < s.out_c; ++o) {
    double reach = 0;
    for (int64_t k = 0; k < per_row; ++k) {
      const int v = w.at(o * per_row + k);
      d.nnz += v != 0;
      d.wide = d.wide || v < -128 || v > 127;
      reach += 255.0 * std::abs(v);
    }
    if (w.bias) reach += std::abs(double(w.bias[o]));
    if (e.output == QOutput::kU8 && !(reach * double(w.scale[o]) < 0x1p30 && w.scale[o] >= 0)) d.bounded = false;
    // |gelu(v)| <= |v|
    if (e.gelu &&
        !((reach * double(w.scale[o]) + (w.offset ? std::abs(double(w.offset[o])) : 0.0)) * double(e.inverse) < 0x1p30))
      d.bounded = false;
  }
  const int parts = d.wide ? kMostParts : 1;
  for (int o = 0; o < s.out_c; ++o) {
    const auto [lo, hi] = quads_of(s, o);
    for (int q = lo; q < hi; ++q)
      for (int u = 0; u < s.kernel_h; ++u)
        for (int tap = 0; tap < s.kernel_w * parts; ++tap) {
          const int v = tap / parts, part = tap % parts;
          d.blocks += part == 0;
          d.filled += block_at(s, w, o, q, u, v, b, true, part);
          if (o % 4 != 0 || s.groups != 1) continue;
          const auto any = [&](int rows) {
            for (int r = 0; r < rows && o + r < s.out_c; ++r)
              if (block_at(s, w, o + r, q, u, v, b, true, part)) return true;
            return false;
          };
          d.filled_quads += any(4);
          if (o % 16 == 0 && s.in_h * s.in_w == 1) d.filled_rows += any(16);
        }
  }
  d.pairing = pairing<1>(s, w);
  if (s.groups == 1) d.quad_pairing = pairing<4>(s, w);
  return d;
}

void PackedPanel::begin(const QConvKernel& k, const ConvShape& s, const QEpilogue& e, const QWeights& w) {
  kernel = &k;
  shape = s;
  epilogue = e;
  const size_t out = static_cast<size_t>(4 * quads(s.out_c));
  bias.assign(out, 0);
  scale.assign(out, 0.0f);
  offset.assign(out, 0.0f);
  if (e.dynamic) sums.assign(out, 0);
  if (w.offset) std::copy_n(w.offset, s.out_c, offset.begin());
  const int64_t per_row = int64_t{s.in_c / s.groups} * s.kernel_h * s.kernel_w;
  for (int o = 0; o < s.out_c; ++o) {
    int64_t sum = 0;
    for (int64_t k = 0; k < per_row; ++k) sum += w.at(o * per_row + k);
    if (e.dynamic) sums[size_t(o)] = static_cast<int32_t>(static_cast<uint32_t>(sum));
    const int64_t folded = (w.bias ? w.bias[o] : 0) - sum * w.x_zero;
    bias[size_t(o)] = static_cast<int32_t>(static_cast<uint32_t>(folded));
    if (w.scale) scale[size_t(o)] = w.scale[o];
  }
  QConvView& v = view;
  v.stride_h = s.stride_h, v.stride_w = s.stride_w;
  v.pad_top = s.pad_top, v.pad_left = s.pad_left;
  v.x_zero = static_cast<int32_t>(w.x_zero * 0x01010101u);
  v.out_c = s.out_c;
  v.output = static_cast<int32_t>(e.output);
  v.bias = bias.data();
  v.scale = scale.data();
  v.offset = offset.data();
  v.zero = e.zero, v.lo = e.lo, v.hi = e.hi;
  v.residual = e.residual;
  v.a = e.a, v.b = e.b, v.r_zero = e.r_zero;
  v.gelu = e.gelu, v.inverse = e.inverse;
  v.simple = e.output == QOutput::kU8 && !e.residual && !e.gelu;
  v.sum_zero = e.sum_zero, v.sum_lo = e.sum_lo, v.sum_hi = e.sum_hi;
}

std::unique_ptr<PackedQConv> qconv_panel_pack(const QConvKernel& kernel, const ConvShape& s, const QEpilogue& e,
                                              const QWeights& w, const Tile& tile) {
  auto p = std::make_unique<PackedPanel>();
  const QTiling t = plan_qconv(kernel, s, e, measure_density(s, e, w), tile);
  const Layout layout(s, t);
  p->direct = t.direct;
  p->cycles = t.cycles;
  const size_t out = static_cast<size_t>(4 * quads(s.out_c));
  p->begin(kernel, s, e, w);
  if (kernel.family == QConvFamily::kDense) {
    pack_dense(*p, t, layout, w);
  } else {
    pack_sparse(*p, t, layout, w, of_four(kernel.family) ? 4 : 1);
  }
  for (int k = 0; k < t.n_vectors; ++k) {
    const int at = k * kernel.lanes, row = at / t.pitch, col = at % t.pitch;
    // Rows as long as a number of vectors, or one flat run.
    if (t.pitch == t.cols) {
      p->spans.push_back({at, kernel.lanes});
    } else {
      p->spans.push_back({row * t.cols + std::min(col, t.cols), std::clamp(t.cols - col, 0, kernel.lanes)});
    }
  }
  QConvView& v = p->view;
  v.in_plane = int64_t{t.in_h} * t.in_w;
  v.in_h = t.in_h, v.in_w = t.in_w;
  v.pitch = t.pitch;
  v.tile_rows = t.tile_rows, v.n_tiles = t.n_tiles;
  v.n_vectors = t.n_vectors, v.block = t.block;
  v.spans = p->spans.data();
  v.rows = t.rows, v.cols = t.cols;
  v.out_plane = int64_t{t.rows} * t.cols;
  v.planes = p->planes.data();
  if (2 * t.pitch <= kernel.lanes && kernel.lanes % t.pitch == 0 && s.stride_h == 1 && s.stride_w == 1 &&
      t.in_w == t.pitch) {
    for (int i = 0; i < s.kernel_w; ++i) {
      const QPlane plane = layout.make(0, 0, i);
      for (int k = 0; k < kernel.lanes; ++k)
        p->narrow.push_back(k % t.pitch >= plane.begin && k % t.pitch < plane.end ? -1 : 0);
    }
    v.narrow = p->narrow.data();
  }
  v.chunks = p->chunks.data();
  v.n_chunks = t.n_chunks;
  v.taps = p->taps.data();
  v.weights = v.entries = p->weights.as<int32_t>();
  v.row_begin = p->row_begin.data();
  const int64_t panel = t.direct ? 0 : t.chunk_quads * layout.quad_words() + 32;
  v.partial_at = (panel + 15) / 16 * 16;
  const int64_t partial = t.n_chunks > 1 ? int64_t{t.n_vectors} * kernel.lanes * static_cast<int64_t>(out) : 0;
  p->scratch_bytes_per_thread = align_up(static_cast<size_t>(v.partial_at + partial + 16) * 4);
  p->share_dynamic();
  p->packed_bytes =
      p->weights.size() + p->planes.size() * sizeof(QPlane) + p->taps.size() * 4 + p->row_begin.size() * 8 + out * 12;
  char text[120];
  std::snprintf(text, sizeof text, "%d tile%s of %dx%d%s, %d chunk%s, %d vectors", t.n_tiles, t.n_tiles > 1 ? "s" : "",
                t.tile_rows, t.pitch,
                t.direct ? " in place"
                : t.own  ? ", a plane per tap"
                         : "",
                t.n_chunks, t.n_chunks > 1 ? "s" : "", t.block);
  p->note = text;
  return p;
}

void PackedPanel::share_dynamic() {
  if (epilogue.dynamic) scratch_bytes_shared = align_up(bias.size() * 4) + align_up(scale.size() * 4);
}

namespace {

// The view with the zero point and scale of this call; what they change lies in the shared scratch.
QConvView dynamic_view(const PackedPanel& p, const QConvArgs& args, int threads) {
  QConvView v = p.view;
  auto* bias = reinterpret_cast<int32_t*>(static_cast<uint8_t*>(args.scratch) +
                                          p.scratch_bytes_per_thread * static_cast<size_t>(threads));
  auto* scale = reinterpret_cast<float*>(reinterpret_cast<uint8_t*>(bias) + align_up(p.bias.size() * 4));
  for (size_t o = 0; o < p.bias.size(); ++o) {
    const uint32_t sum = o < p.sums.size() ? static_cast<uint32_t>(p.sums[o]) : 0;
    bias[o] = static_cast<int32_t>(static_cast<uint32_t>(p.bias[o]) - args.x_zero * sum);
    scale[o] = args.x_scale * p.scale[o];
  }
  v.x_zero = static_cast<int32_t>(args.x_zero * 0x01010101u);
  v.bias = bias, v.scale = scale;
  return v;
}

}  // namespace

void qconv_panel_run(const PackedQConv& packed, const QConvArgs& args) {
  const auto& p = static_cast<const PackedPanel&>(packed);
  const int threads = args.threads ? args.threads->size() : 1;
  const QConvView v = p.epilogue.dynamic ? dynamic_view(p, args, threads) : p.view;
  const int64_t in_pixels = v.in_plane, out_quads = quads(v.out_c);
  const int64_t x_step = quads(p.shape.in_c) * in_pixels * 4;
  const int64_t y_step = v.output == 0 ? out_quads * v.out_plane * 4 : int64_t{v.out_c} * v.out_plane * 4;
  const int64_t tiles = args.batch * v.n_tiles;
  const bool parallel = threads > 1 && p.cycles * double(args.batch) > kSerialMicroseconds * kQCyclesPerMicrosecond;
  // Split the output channels too while whole tiles would leave threads idle; each part fills its own panel.
  int64_t split = 1;
  if (parallel)
    while (2 * split <= out_quads && split < 8 && tiles * split < 4 * threads && tiles * split % threads != 0)
      split *= 2;
  const auto task = [&](int64_t index, int worker) {
    const int64_t tile = index / split, part = index % split, image = tile / v.n_tiles;
    QConvTask t;
    t.x = args.x + image * x_step;
    t.y = static_cast<uint8_t*>(args.y) + image * y_step;
    t.residual = v.residual ? args.residual + image * y_step : nullptr;
    t.tile = static_cast<int32_t>(tile % v.n_tiles);
    t.quad_begin = static_cast<int32_t>(out_quads * part / split);
    t.quad_end = static_cast<int32_t>(out_quads * (part + 1) / split);
    t.scratch = reinterpret_cast<int32_t*>(static_cast<uint8_t*>(args.scratch) +
                                           worker * static_cast<int64_t>(p.scratch_bytes_per_thread));
    t.direct = p.direct;
    p.kernel->task(v, t);
  };
  if (parallel) {
    args.threads->parallel(tiles * split, task);
  } else {
    for (int64_t i = 0; i < tiles * split; ++i) task(i, 0);
  }
}

}  // namespace secateur
