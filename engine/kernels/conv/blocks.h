// Nonzeros in blocks of B output channels: what is loaded of the panel serves B sums. Included by generic.cc.
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
      if (row->last && m < channels) expect_residual<P>(v, b, row->out + m);
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
    return block_rows < B, P <= kMost ? P : kMost, Offsets > ;
  };
  constexpr SparseFn<Offsets> table[] = {at(std::integral_constant<int, 1>()), at(std::integral_constant<int, 2>()),
                                         at(std::integral_constant<int, 3>()), at(std::integral_constant<int, 4>()),
                                         at(std::integral_constant<int, 5>()), at(std::integral_constant<int, 6>()),
                                         at(std::integral_constant<int, 7>()), at(std::integral_constant<int, 8>()),
                                         at(std::integral_constant<int, 9>()), at(std::integral_constant<int, 10>())};
  table[vectors - 1](v, b, row, end, offsets);
}

template <int B>
SECATEUR_INLINE void block_task(const ConvView& v, const ConvTask& t) {
  over_blocks(
      v, t, 1,
      [&](const Block& b, const ConvRow* begin, const ConvRow* end, int block) {
        if (v.near) {
          block_block<B>(v, b, begin, end, block, Near{v.near, v.near_unit});
        } else {
          block_block<B>(v, b, begin, end, block, Far{v.far});
        }
      },
      [&](const ConvRow* begin, const ConvRow* end, int row0, int rows) {
        if (!v.pooled) return;
        for (const ConvRow* row = begin; row != end; ++row)
          for (int out = row->out; row->last && out < row->out + B && out < v.out_c; ++out)
            pool_rows(v, t.scratch + v.partial_at + out * v.tile_floats,
                      t.y + out * v.out_plane + int64_t{row0 / 2} * (v.cols / 2), rows);
      });
}

}  // namespace
}  // namespace secateur
