// The body of small tensors: contexts around an element say whether it is kept, and its entry of a codebook
// (docs/format.md, 4.5).
#pragma once

#include <array>
#include <vector>

#include "formats/mixing.h"
#include "formats/view.h"

namespace secateur::sct {

// Symbols of the elements around one: 0 where there is none, it is empty or comes later, else 1 + entry of the
// codebook.
struct Around {
  int32_t west = 0, north = 0, northwest = 0, northeast = 0, above = 0, above2 = 0;
};

// Whether an element is kept, from eight contexts and the share of those left.
class Places {
 public:
  explicit Places(const View& v)
      : v_(v), row_(v.rows), place_(v.cols * v.size), col_(v.cols), position_(v.size), around_(16), before_(4) {}

  void start_kernel() { kernel_ = {}; }
  void end_line() {
    recent_.seen -= recent_.seen >> kRecentShift;
    recent_.expected -= recent_.expected >> kRecentShift;
  }

  // `left` of the next `todo` elements are kept, 0 < left < todo.
  template <class C>
  int code(C& c, int here, int64_t r, int64_t k, int64_t q, const Around& n, int64_t left, int64_t todo) {
    Rate* rates[kContexts] = {&row_[r],
                              &place_[k * v_.size + q],
                              &col_[k],
                              &position_[q],
                              &around_[(n.west != 0) | (n.northwest != 0) << 1 | (v_.size > 1 && n.north != 0) << 2 |
                                       (n.northeast != 0) << 3],
                              &before_[(n.above != 0) | (n.above2 != 0) << 1],
                              &kernel_,
                              &recent_};
    std::array<int, kContexts> votes;
    std::array<uint32_t, kContexts> expected;
    for (int j = 0; j < kContexts; ++j) votes[j] = rates[j]->vote(kPseudo[j]);
    const auto base = static_cast<uint32_t>(std::clamp<int64_t>((left << 16) / todo, 1, 65535));
    here = mixer_.code(c, here, stretch(base), votes, kRate, expected);
    for (int j = 0; j < kContexts; ++j) {
      rates[j]->seen += int64_t{here} << 16;
      rates[j]->expected += expected[j];
    }
    return here;
  }

 private:
  static constexpr int kContexts = 8;
  static constexpr int64_t kPseudo[kContexts] = {131072, 98304, 98304, 655360, 65536, 655360, 196608, 65536};
  static constexpr int kRecentShift = 3, kRate = 5;
  static constexpr int64_t kWeight = 21845;

  const View& v_;
  std::vector<Rate> row_, place_, col_, position_, around_, before_;
  Rate kernel_, recent_;
  Mixer<kContexts> mixer_{kWeight};
};

// What a codec of entries predicts one from: see codecs/codebook.h.
struct Nearby {
  int32_t previous, west, north, same_place;  // symbols
  int64_t row;
};

// V: values of a codec; kSparse: not all elements are kept.
template <class C, class V, bool kSparse>
class MixedBody {
 public:
  MixedBody(TensorStream<C>& s, const Kept& kept, const Order& order, V& value)
      : s_(s),
        value_(value),
        v_(View::of(s.dims, order.period, order.split_rows)),
        columns_first_(order.columns_first),
        places_(v_),
        symbol_(static_cast<size_t>(s.numel())),
        last_in_place_(static_cast<size_t>(v_.cols * v_.size)),
        left_(kept.nnz),
        todo_(s.numel()) {
    if constexpr (V::kMixes) value.mix(v_.rows);
  }

  void run() {
    const int64_t outer = columns_first_ ? v_.cols : v_.rows, inner = columns_first_ ? v_.rows : v_.cols;
    for (int64_t a = 0; a < outer; ++a) {
      for (int64_t b = 0; b < inner; ++b) {
        if (columns_first_) kernel(b, a);
        else kernel(a, b);
        if ((b & 63) == 0) s_.watch(0);
      }
      places_.end_line();
    }
  }

 private:
  // The positions of one row and column.
  void kernel(int64_t r, int64_t k) {
    places_.start_kernel();
    for (int64_t q = 0; q < v_.size; ++q, --todo_) {
      const int64_t i = r * v_.row_stride + k * v_.col_stride + q * v_.stride;
      const Around near = around(i, r, k, q);
      if constexpr (kSparse) {
        if (left_ == 0) continue;
        if (left_ < todo_ && !places_.code(s_.coder(), s_.get(i) != 0, r, k, q, near, left_, todo_)) continue;
      }
      --left_;
      int32_t& last = last_in_place_[static_cast<size_t>(k * v_.size + q)];
      int32_t now = 1;
      if constexpr (V::kMixes) now = value_.code_near(i, {previous_, near.west, near.north, last, r});
      else value_.code(i);
      symbol_[static_cast<size_t>(i)] = last = previous_ = now;
    }
  }

  Around around(int64_t i, int64_t r, int64_t k, int64_t q) const {
    Around n;
    const auto at = [&](int64_t back) { return symbol_[static_cast<size_t>(i - back)]; };
    if (r > 0) n.above = at(v_.row_stride);
    if (r > 1) n.above2 = at(2 * v_.row_stride);
    if (v_.size > 1) {
      const int64_t x = q % v_.width, y = q / v_.width;
      if (x > 0) n.west = at(v_.stride);
      if (y > 0) n.north = at(v_.width * v_.stride);
      if (x > 0 && y > 0) n.northwest = at((v_.width + 1) * v_.stride);
      if (y > 0 && x + 1 < v_.width) n.northeast = at((v_.width - 1) * v_.stride);
    } else {
      if (k > 0) n.west = at(v_.col_stride);
      if (k > 1) n.northwest = at(2 * v_.col_stride);
      n.north = n.above;
    }
    return n;
  }

  TensorStream<C>& s_;
  V& value_;
  const View v_;
  const bool columns_first_;
  Places places_;
  std::vector<int32_t> symbol_;         // of each element
  std::vector<int32_t> last_in_place_;  // of the nearest kept element before in this place
  int64_t left_, todo_;                 // kept elements and elements from here on
  int32_t previous_ = 0;
};

}  // namespace secateur::sct
