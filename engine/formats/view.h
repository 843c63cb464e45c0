// A tensor as rows x columns x positions, and the order in which mixed models visit it (docs/format.md, 4.4, 4.5).
#pragma once

#include "formats/stream.h"

namespace secateur::sct {

// Position = place in a convolution kernel or in a flattened map.
struct View {
  int64_t rows = 1, cols = 1, size = 1, width = 1;
  int64_t row_stride = 0, col_stride = 0, stride = 1;

  static View of(const std::vector<int64_t>& dims, int64_t period, bool split_rows) {
    int64_t rest = 1;
    for (size_t i = 2; i < dims.size(); ++i) rest *= dims[i];
    if (dims.size() >= 3) return {dims[0], dims[1], rest, dims.back(), dims[1] * rest, rest, 1};
    if (dims.size() == 2 && !split_rows) return {dims[0], dims[1] / period, period, root(period), dims[1], period, 1};
    if (dims.size() == 2) return {dims[1], dims[0] / period, period, root(period), 1, period * dims[1], dims[1]};
    const int64_t n = dims.empty() ? 1 : dims[0];
    return {1, n / period, period, root(period), n, period, 1};
  }
  static View of(const std::vector<int64_t>& dims) { return of(dims, 1, false); }

  static int64_t root(int64_t n) {  // side of a square map, else n
    int64_t s = 1;
    while (s * s < n) ++s;
    return s * s == n ? s : n;
  }
};

inline constexpr int64_t kMixedMax = int64_t{1} << 20;  // elements: mixing costs ~0.1 us each

struct Order {
  bool columns_first = false;
  bool split_rows = false;  // rank 2: the period cuts axis 0, not axis 1
  int64_t period = 1;

  template <class C>
  void code(TensorStream<C>& s) {
    if (s.numel() > kMixedMax) s.damaged("a mixed model on a tensor this large");
    C& c = s.coder();
    columns_first = c.bit(columns_first, 16384);
    if (s.dims.size() > 2 || !c.bit(period > 1, 16384)) {
      period = 1;
      split_rows = false;
      return;
    }
    if (s.dims.size() == 2) split_rows = c.bit(split_rows, 16384);
    const int64_t side = 2 + c.bits(static_cast<uint32_t>(View::root(period) - 2), 3);
    period = side * side;
    if (s.dims.empty() || s.dims[split_rows ? 0 : s.dims.size() - 1] % period != 0)
      s.damaged("period does not divide the axis");
  }
};

}  // namespace secateur::sct
