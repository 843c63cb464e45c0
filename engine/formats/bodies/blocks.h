// Layout `blocks`: what is kept fills whole blocks of a weight's 2-D view (docs/format.md, 4.3). The positions of
// blocks are coded before any value, each block as likely as the share of those left, so that all of them cost log2
// C(blocks, kept) bits; then come the values of the kept blocks' elements, zeros among them included, in C order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace secateur::sct {

// Blocks of rows x cols elements, or smaller ones at the end of an axis. The view's rows are axis 0, its columns all
// other axes, in the order of memory or (channels_last) with axis 1 as the innermost.
struct BlockShape {
  int64_t rows = 1, cols = 1;
  bool channels_last = false;
};
inline constexpr int64_t kMostBlockSide = 64;

class BlockView {
 public:
  // dims: of two axes or more, none of them empty.
  BlockView(const std::vector<int64_t>& dims, const BlockShape& shape)
      : shape_(shape), rows_(dims[0]), channels_(dims[1]) {
    for (size_t a = 2; a < dims.size(); ++a) size_ *= dims[a];
    cols_ = channels_ * size_;
  }
  int64_t down() const { return (rows_ + shape_.rows - 1) / shape_.rows; }
  int64_t across() const { return (cols_ + shape_.cols - 1) / shape_.cols; }
  // Calls f(element) for each of a block.
  template <class F>
  void each(int64_t row, int64_t col, F&& f) const {
    const int64_t last_row = std::min(rows_, (row + 1) * shape_.rows),
                  last_col = std::min(cols_, (col + 1) * shape_.cols);
    for (int64_t r = row * shape_.rows; r < last_row; ++r)
      for (int64_t c = col * shape_.cols; c < last_col; ++c) f(r * cols_ + place(c));
  }

 private:
  int64_t place(int64_t col) const { return shape_.channels_last ? col % channels_ * size_ + col / channels_ : col; }

  BlockShape shape_;
  int64_t rows_ = 1, cols_ = 1, channels_ = 1, size_ = 1;
};

// Both directions, T a TensorCoder. `p.inside` gets a 1 for each element of a kept block, `p.nnz` their number.
template <class T, class Plan>
void code_block_positions(T& t, Plan& p) {
  auto& c = t.coder();
  p.blocks.rows = static_cast<int64_t>(c.bits(static_cast<uint32_t>(p.blocks.rows - 1), 6)) + 1;
  p.blocks.cols = static_cast<int64_t>(c.bits(static_cast<uint32_t>(p.blocks.cols - 1), 6)) + 1;
  if (t.dims().size() < 2) T::damaged("blocks need two axes");
  p.blocks.channels_last = t.dims().size() > 2 && c.bit(p.blocks.channels_last, 32768);
  const BlockView view(t.dims(), p.blocks);
  const auto any = [&](int64_t row, int64_t col) {
    bool found = false;
    view.each(row, col, [&](int64_t i) { found = found || t.get(i) != 0; });
    return found;
  };
  int64_t todo = view.down() * view.across(), left = 0;
  if constexpr (T::kEnc)
    for (int64_t row = 0; row < view.down(); ++row)
      for (int64_t col = 0; col < view.across(); ++col) left += any(row, col);
  left = static_cast<int64_t>(t.below(static_cast<uint64_t>(left), static_cast<uint64_t>(todo)));
  if (left > todo) T::damaged("more kept blocks than there are");
  p.inside.assign(static_cast<size_t>(t.numel()), 0);
  p.nnz = 0;
  for (int64_t row = 0; row < view.down(); ++row)
    for (int64_t col = 0; col < view.across(); ++col, --todo) {
      t.watch(col);
      const auto share = static_cast<uint32_t>(std::clamp<int64_t>((left << 16) / todo, 1, 65535));
      const bool here = left > 0 && (left == todo || c.bit(T::kEnc && any(row, col), share));
      if (!here) continue;
      --left;
      view.each(row, col, [&](int64_t i) { p.inside[static_cast<size_t>(i)] = 1, ++p.nnz; });
    }
}

// A shape worth trying, and what its positions, zeros and values would take, these at `value_bits` each.
struct LikelyBlocks {
  BlockShape shape;
  double bits = 0;
};
// The shape with the fewest bits; none (bits = 0) where single elements would do with fewer. `nonzero`: a byte each.
LikelyBlocks likely_blocks(const std::vector<int64_t>& dims, const std::vector<uint8_t>& nonzero, double value_bits);

}  // namespace secateur::sct
