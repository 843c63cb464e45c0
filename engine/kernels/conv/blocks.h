// Nonzeros in blocks of B output channels: what is loaded of the panel serves B sums. Included by generic.h.
#pragma once

namespace secateur {
namespace {

template <int B, int P, class Offsets>
void block_rows(const ConvView& v, const Block& b, const ConvRow* row, const ConvRow* end, Offsets offsets) {
  for (; row != end; ++row) {
    const int channels = v.out_c - row->out < B ? v.out_c - row->out : B;
    Vec sums[B][P];
    SECATEUR_UNROLL
    for (int m = 0; m < B; ++m) {
      const Vec start = row->first ? Vec::set1(v.bias[row->out + m]) : Vec::zero();
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[m][p] = start;
    }
    if (!row->first) {
      SECATEUR_UNROLL
      for (int m = 0; m < B; ++m) {
        if (m >= channels) continue;
        const float* from = b.partial + (row->out + m) * v.tile_floats;
        SECATEUR_UNROLL
        for (int p = 0; p < P; ++p) sums[m][p] = Vec::load(from + p * kLanes);
      }
    }
    const float* w = v.nonzeros + row->begin * B;
    for (int64_t i = row->begin, stop = i + row->count; i < stop; ++i, w += B) {
      const float* x = b.panel + offsets[i];
      Vec xs[P];
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) xs[p] = Vec::load(x + p * kLanes);
      SECATEUR_UNROLL
      for (int m = 0; m < B; ++m) {
        const Vec wm = Vec::set1(w[m]);
        SECATEUR_UNROLL
        for (int p = 0; p < P; ++p) sums[m][p] = fma(wm, xs[p], sums[m][p]);
      }
    }
    const bool store = row->last && !v.pooled;
    SECATEUR_UNROLL
    for (int m = 0; m < B; ++m)
      if (m < channels) finish<P>(v, b, row->out + m, store, sums[m]);
  }
}

template <int B, class Offsets>
SECATEUR_INLINE void block_block(const ConvView& v, const Block& b, const ConvRow* row, const ConvRow* end, int vectors,
                                 Offsets offsets) {
  constexpr int kMost = conv_block_vectors(B, kWide);
  constexpr auto at = []<int P>(std::integral_constant<int, P>) {
    return block_rows<B, P <= kMost ? P : kMost, Offsets>;
  };
  constexpr SparseFn<Offsets> table[] = {
      at(std::integral_constant<int, 1>()), at(std::integral_constant<int, 2>()), at(std::integral_constant<int, 3>()),
      at(std::integral_constant<int, 4>()), at(std::integral_constant<int, 5>()), at(std::integral_constant<int, 6>()),
      at(std::integral_constant<int, 7>()), at(std::integral_constant<int, 8>()), at(std::integral_constant<int, 9>()),
      at(std::integral_constant<int, 10>())};
  table[vectors - 1](v, b, row, end, offsets);
}

template <int B>
SECATEUR_INLINE void block_task(const ConvView& v, const ConvTask& t) {
  const int row0 = t.tile * v.tile_rows;
  const int rows = v.rows - row0 < v.tile_rows ? v.rows - row0 : v.tile_rows;
  const int flat = rows * v.pitch, vectors = (flat + kLanes - 1) / kLanes;
  Block b;
  b.buffer = t.scratch + v.buffer_at;
  const int64_t start = int64_t{row0} * v.cols;
  b.y = t.y + start;
  b.residual = t.residual ? t.residual + start : nullptr;
  const float* panel = v.in_place ? t.x + start : t.scratch;
  for (int c = 0; c < v.n_chunks; ++c) {
    fill_panel(v, v.chunks[c], t.x, row0, rows, t.scratch);
    const int32_t* part = v.part_rows + int64_t{c} * (v.n_parts + 1);
    const ConvRow* begin = v.out_rows + part[t.part_begin];
    const ConvRow* end = v.out_rows + part[t.part_end];
    for (int at = 0; at < vectors; at += v.block) {
      const int block = vectors - at < v.block ? vectors - at : v.block;
      b.at = at * kLanes;
      b.n = flat - b.at < block * kLanes ? flat - b.at : block * kLanes;
      b.panel = panel + b.at;
      b.partial = t.scratch + v.partial_at + b.at;
      if (v.near) {
        block_block<B>(v, b, begin, end, block, Near{v.near, v.near_unit});
      } else {
        block_block<B>(v, b, begin, end, block, Far{v.far});
      }
    }
    if (!v.pooled) continue;
    for (const ConvRow* row = begin; row != end; ++row)
      for (int out = row->out; row->last && out < row->out + B && out < v.out_c; ++out)
        pool_rows(v, t.scratch + v.partial_at + out * v.tile_floats, t.y + out * v.out_plane + int64_t{row0 / 2} * (v.cols / 2),
                  rows);
  }
}

}  // namespace
}  // namespace secateur
