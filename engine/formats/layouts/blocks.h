// Layout `blocks`: what is kept fills whole blocks of a weight's 2-D view (docs/format.md, 4.3). The positions of
// blocks are coded before any value, each block as likely as the share of those left, so that all of them cost log2
// C(blocks, kept) bits; then come the values of the kept blocks' elements, zeros among them included, in C order.
#pragma once

#include <algorithm>
#include <optional>

#include "formats/seen.h"
#include "formats/stream.h"

namespace secateur::sct::layouts {

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

struct Blocks {
  static constexpr uint32_t kNumber = 4;
  static constexpr const char* kName = "blocks";
  static constexpr int kVersion = 3;

  BlockShape shape;

  static std::optional<Found<Blocks>> find(const Seen& t);
  bool behind() const { return true; }

  template <class C>
  Kept header(TensorStream<C>& s) {
    C& c = s.coder();
    shape.rows = s.upto64(shape.rows);
    shape.cols = s.upto64(shape.cols);
    if (s.dims.size() < 2) s.damaged("blocks need two axes");
    shape.channels_last = s.dims.size() > 2 && c.bit(shape.channels_last, 32768);
    const BlockView view(s.dims, shape);
    const auto any = [&](int64_t row, int64_t col) {
      bool found = false;
      view.each(row, col, [&](int64_t i) { found = found || s.get(i) != 0; });
      return found;
    };
    int64_t todo = view.down() * view.across(), left = 0;
    if constexpr (C::kEncoding)
      for (int64_t row = 0; row < view.down(); ++row)
        for (int64_t col = 0; col < view.across(); ++col) left += any(row, col);
    left = static_cast<int64_t>(s.below(static_cast<uint64_t>(left), static_cast<uint64_t>(todo)));
    if (left > todo) s.damaged("more kept blocks than there are");
    Kept kept{.zeros = true, .behind = true};
    kept.inside.assign(static_cast<size_t>(s.numel()), 0);
    for (int64_t row = 0; row < view.down(); ++row)
      for (int64_t col = 0; col < view.across(); ++col, --todo) {
        s.watch(col);
        const auto share = static_cast<uint32_t>(std::clamp<int64_t>((left << 16) / todo, 1, 65535));
        const bool here = left > 0 && (left == todo || c.bit(C::kEncoding && any(row, col), share));
        if (!here) continue;
        --left;
        view.each(row, col, [&](int64_t i) { kept.inside[static_cast<size_t>(i)] = 1, ++kept.nnz; });
      }
    return kept;
  }

  template <class C, class V>
  void body(TensorStream<C>& s, const Kept& kept, V& value) const {
    for (int64_t i = 0; i < s.numel(); ++i) {
      if (kept.inside[static_cast<size_t>(i)]) value.code(i);
      s.watch(i);
    }
  }
};

}  // namespace secateur::sct::layouts
