#include "formats/layouts/blocks.h"

#include <numeric>
#include <set>

#include "formats/tensor.h"

namespace secateur::sct::layouts {
namespace {

constexpr int64_t kSample = 1 << 16;  // elements looked at: a few milliseconds for all shapes
constexpr int64_t kSampleCols = kSample / kMostBlockSide;
constexpr int64_t kSides[] = {1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64};

// Zeros and ones, rows x cols.
struct Bitmap {
  int64_t rows = 0, cols = 0;
  std::vector<uint8_t> at;
};

// A corner of the view, about kSample elements.
Bitmap view_of(const std::vector<int64_t>& dims, const std::vector<uint8_t>& nonzero, bool channels_last) {
  const int64_t cols = static_cast<int64_t>(nonzero.size()) / dims[0], size = cols / dims[1];
  Bitmap b;
  b.cols = std::min(cols, kSampleCols);
  b.rows = std::min(dims[0], kSample / b.cols);
  b.at.reserve(static_cast<size_t>(b.rows * b.cols));
  for (int64_t row = 0; row < b.rows; ++row)
    for (int64_t col = 0; col < b.cols; ++col) {
      const int64_t place = channels_last ? col % dims[1] * size + col / dims[1] : col;
      b.at.push_back(nonzero[static_cast<size_t>(row * cols + place)]);
    }
  return b;
}

// 1 where any of `rows` x `cols` is.
Bitmap reduced(const Bitmap& b, int64_t rows, int64_t cols) {
  Bitmap r{(b.rows + rows - 1) / rows, (b.cols + cols - 1) / cols, {}};
  r.at.assign(static_cast<size_t>(r.rows * r.cols), 0);
  const uint8_t* from = b.at.data();
  for (int64_t i = 0; i < b.rows; ++i) {
    uint8_t* to = r.at.data() + i / rows * r.cols;
    for (int64_t j = 0; j < b.cols; j += cols, ++to)
      for (int64_t k = j; k < std::min(b.cols, j + cols); ++k) *to |= *from++;
  }
  return r;
}

// Elements of the kept blocks, the last ones of an axis counted as they are.
int64_t elements(const Bitmap& kept, const Bitmap& all, int64_t rows, int64_t cols) {
  int64_t n = 0;
  for (int64_t i = 0; i < kept.rows; ++i)
    for (int64_t j = 0; j < kept.cols; ++j)
      if (kept.at[static_cast<size_t>(i * kept.cols + j)])
        n += std::min(rows, all.rows - i * rows) * std::min(cols, all.cols - j * cols);
  return n;
}

int64_t ones(const Bitmap& b) { return std::accumulate(b.at.begin(), b.at.end(), int64_t{0}); }

// The shape with the fewest bits and these, 0 where single elements would do with fewer; `nonzero`: a byte each, values
// at `value_bits`.
std::pair<BlockShape, double> likely_shape(const std::vector<int64_t>& dims, const std::vector<uint8_t>& nonzero,
                                           double value_bits) {
  std::pair<BlockShape, double> best;
  std::set<int64_t> widths(std::begin(kSides), std::end(kSides));
  const int64_t size = static_cast<int64_t>(nonzero.size()) / dims[0] / dims[1];
  for (int64_t side : {size, dims[1]})  // whole kernels, all channels of a place
    if (side <= kMostBlockSide) widths.insert(side);
  double least = 0;
  for (bool last : {false, true}) {
    if (last && (dims.size() < 3 || size == 1 || dims[1] == 1)) continue;
    const Bitmap all = view_of(dims, nonzero, last);
    const int64_t nnz = ones(all);
    const double scale = static_cast<double>(nonzero.size()) / static_cast<double>(all.at.size());
    for (int64_t cols : widths) {
      const Bitmap strips = reduced(all, 1, cols);
      for (int64_t rows : kSides) {
        if (rows > dims[0] || cols > all.cols) continue;
        const Bitmap kept = reduced(strips, rows, 1);
        // Which blocks, which elements inside are zero, the others' values.
        const double bits =
            scale * (log2_choose(kept.rows * kept.cols, ones(kept)) +
                     log2_choose(elements(kept, all, rows, cols), nnz) + static_cast<double>(nnz) * value_bits);
        if (least != 0 && bits >= least) continue;
        least = bits;
        best = {{rows, cols, last}, rows * cols == 1 ? 0 : bits};
      }
    }
  }
  return best;
}

// Does a block hold zeros beside other elements?
bool some_are_mixed(const std::vector<int64_t>& dims, const BlockShape& shape, const std::vector<uint8_t>& nonzero) {
  const BlockView view(dims, shape);
  for (int64_t row = 0; row < view.down(); ++row)
    for (int64_t col = 0; col < view.across(); ++col) {
      bool some = false, all = true;
      view.each(row, col, [&](int64_t i) { (nonzero[static_cast<size_t>(i)] ? some = true : all = false); });
      if (some && !all) return true;
    }
  return false;
}

}  // namespace

std::optional<Found<Blocks>> Blocks::find(const Seen& t) {
  const Values& v = t.values;
  if (t.dims.size() < 2 || v.nnz == 0) return {};
  std::vector<uint8_t> nonzero(static_cast<size_t>(v.n));
  for (size_t i = 0; i < nonzero.size(); ++i) nonzero[i] = t.at(static_cast<int64_t>(i)) != 0;
  const double value_bits = (t.ideal_bits - log2_choose(v.n, v.nnz)) / static_cast<double>(v.nnz);
  const auto [shape, bits] = likely_shape(t.dims, nonzero, value_bits);
  if (bits == 0) return {};
  return Found<Blocks>{{shape}, some_are_mixed(t.dims, shape, nonzero), bits};
}

}  // namespace secateur::sct::layouts
