// Tensors that repeat themselves: an element is predicted by what followed, or preceded, its like before
// (docs/format.md, "Matched elements"). Windowed transforms, tiled rows, masks, tables of whole numbers.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "formats/fields.h"
#include "formats/values.h"

namespace secateur::sct {

inline constexpr int64_t kStrideMax = int64_t{1} << 20;
inline constexpr int64_t kMatchedMax = int64_t{1} << 24;  // elements of the tensor and of its history; ~0.2 us each

// How a tensor's elements are predicted; what the header of the stream says.
struct MatchedPlan {
  int64_t stride = 0;   // elements from one row to the next, 0: no rows
  int shift = 0;        // floating: zero bits at the end of every pattern
  bool smooth = false;  // what nobody told is coded as its distance from a line or curve through its neighbours
};

// Follows one earlier place in steps: forwards, where what came after it should come again, or backwards, where a row
// is mirrored. `length` counts the hits in a row, `flips` remembers whether signs agreed.
struct Pointer {
  int64_t at = -1;
  uint32_t length = 0, flips = 0;
};

template <class C>
class MatchedCoder {
 public:
  // `x` holds `history` known elements, then the tensor's own (read when encoding, written when decoding).
  MatchedCoder(C& c, const Pattern& type, std::vector<uint64_t>& x, int64_t history, const MatchedPlan& plan)
      : c_(c),
        t_(type),
        x_(x),
        history_(history),
        stride_(plan.stride),
        shift_(plan.shift),
        smooth_(plan.smooth),
        sign_(type.is_float() ? uint64_t{1} << (type.width - 1) : 0),
        key_(type.width == 8    ? 4
             : type.width == 16 ? 3
                                : 2),
        fields_(HashedTable(std::clamp<int>(std::bit_width(x.size()) + 5, 12, 22))),
        columns_(static_cast<size_t>(stride_)),
        errors_(smooth_ ? std::max<size_t>(1, static_cast<size_t>(stride_)) : 0),
        won_(x.size(), kLiteral) {
    const int bits = std::clamp<int>(std::bit_width(x.size()), 4, 22);
    seen_shift_ = 64 - bits;
    for (auto& table : seen_) table.assign(size_t{1} << bits, -1);
  }

  void run() {
    const auto n = static_cast<int64_t>(x_.size());
    for (i_ = 0; i_ < n; ++i_) {
      predict();
      if (i_ >= history_) element();
      learn();
      if constexpr (!C::kEncoding) {
        if ((i_ & 1023) == 0 && c_.exhausted()) throw FormatError("truncated: a tensor's stream ends early");
      }
    }
  }

 private:
  static constexpr int kCurves = 6;  // a point, a line, a bend, by 1 and by the stride
  static constexpr int kPredictors = 8,
                       kPointers = 4;  // forward and mirror by 1, forward and mirror by the stride, then offsets
  static constexpr int kTries = 3;
  static constexpr uint32_t kLong = 15;
  static constexpr uint8_t kLiteral = kPredictors;
  static constexpr uint32_t kWorthTrying = 2048;  // of 65536

  uint64_t magnitude(int64_t i) const { return x_[static_cast<size_t>(i)] & ~sign_; }
  uint64_t negative(int64_t i) const { return (x_[static_cast<size_t>(i)] & sign_) != 0; }
  Pointer& pointer(int j) {
    if (j < 2) return row_[j];
    return columns_[static_cast<size_t>(i_ % stride_)][static_cast<size_t>(j - 2)];
  }
  bool has(int64_t back) const { return back <= i_ && back > 0; }

  // Where predictor j looks (-1: nowhere) and what it says.
  void predict() {
    const bool rows = stride_ > 0;
    for (int j = 0; j < kPredictors; ++j) from_[j] = -1;
    from_[0] = row_[0].at;
    from_[1] = row_[1].at;
    if (rows) {
      from_[2] = pointer(2).at;
      from_[3] = pointer(3).at;
      if (has(stride_)) from_[4] = i_ - stride_;
      if (has(stride_ + 1)) from_[5] = i_ - stride_ - 1;
    }
    if (i_ > 0) from_[6] = i_ - 1;
    if (rows && has(stride_ - 1)) from_[7] = i_ - stride_ + 1;
    for (int j = 0; j < kPredictors; ++j)
      if (from_[j] >= 0) says_[j] = magnitude(from_[j]);
    if (sign_ == 0) arithmetic();
    for (int j = 0; j < kPredictors; ++j)
      length_[j] = j < 2 ? row_[j].length : j < kPointers ? (rows ? pointer(j).length : 0) : run_[j];
  }

  // Whole numbers: the last two predictors go on as the row, or the plane, did.
  void arithmetic() {
    if (i_ >= 2) says_[6] += magnitude(i_ - 1) - magnitude(i_ - 2);
    if (from_[5] >= 0 && stride_ > 1) {
      from_[7] = i_ - 1;
      says_[7] = magnitude(i_ - 1) + magnitude(i_ - stride_) - magnitude(i_ - stride_ - 1);
    }
    says_[6] &= t_.mask();
    says_[7] &= t_.mask();
  }

  void element() {
    uint64_t& x = x_[static_cast<size_t>(i_)];
    const uint64_t want = C::kEncoding ? x & ~sign_ : 0;
    uint64_t value = 0;
    int winner = kLiteral;
    unsigned tried = 0;
    for (int k = 0; k < kTries; ++k) {
      int best = -1;
      uint32_t most = kWorthTrying;
      for (int j = 0; j < kPredictors; ++j) {
        if (from_[j] < 0 || tried >> j & 1) continue;
        const uint32_t p = trust_[j][length_[j]].probability();
        if (p > most) most = p, best = j;
      }
      if (best < 0) break;
      unsigned agree = 0;
      for (int j = 0; j < kPredictors; ++j)
        agree |= static_cast<unsigned>(from_[j] >= 0 && says_[j] == says_[best]) << j;
      if (try_one(k, best, agree, want == says_[best])) {
        winner = best;
        value = says_[best];
        break;
      }
      tried |= agree;
    }
    const bool told = winner != kLiteral;
    if (!told && smooth_) value = curve(x);
    if (!told && !smooth_) value = sign_ ? real(want) : whole(want);
    if (sign_ && (told || !smooth_))
      value |= static_cast<uint64_t>(sign(winner, value, static_cast<int>((x & sign_) != 0))) << (t_.width - 1);
    if constexpr (!C::kEncoding) x = value;
    won_[static_cast<size_t>(i_)] = static_cast<uint8_t>(winner);
    recent_ = (recent_ << 4 | static_cast<uint64_t>(winner)) & 0xffff;
  }

  uint64_t won(int64_t back) const { return back > 0 && back <= i_ ? won_[static_cast<size_t>(i_ - back)] : kLiteral; }
  // Up to 3: none, 0, 1-7, more hits.
  uint64_t shape(int j) const { return from_[j] < 0 ? 0 : length_[j] == 0 ? 1 : length_[j] < 8 ? 2 : 3; }

  int try_one(int k, int j, unsigned agree, int hit) {
    uint64_t shapes = 0;
    for (int p = 0; p < kPointers; ++p) shapes = shapes << 2 | shape(p);
    const std::array<uint64_t, kMaxContexts> names = {hash(1, k, j, length_[j]),
                                                      hash(2, k, agree),
                                                      hash(3, k, agree, length_[j], won(1)),
                                                      hash(4, k, recent_, agree),
                                                      hash(5, k, j, won(stride_), won(stride_ - 1)),
                                                      hash(6, k, j, shapes)};
    return fields_.code(c_, hit, names, 6, k);
  }

  int sign(int winner, uint64_t value, int bit) {
    std::array<uint64_t, kMaxContexts> names;
    const uint64_t zero = value == 0;
    for (int j = 0; j < 6; ++j) {
      const auto name = static_cast<uint64_t>(20 + j);
      if (from_[j] < 0 || says_[j] != value) {
        names[j] = hash(name, 9, zero, winner);
      } else {
        names[j] = hash(name, negative(from_[j]), j < kPointers ? pointer(j).flips & 7 : 0, zero, winner == j);
      }
    }
    names[6] = hash(26, i_ > 0 ? negative(i_ - 1) : 2, i_ > 1 ? negative(i_ - 2) : 2, zero);
    names[7] =
        hash(27, has(stride_) ? negative(i_ - stride_) : 2, has(2 * stride_) ? negative(i_ - 2 * stride_) : 2, zero);
    return fields_.code(c_, bit, names, 8, 3);
  }

  // A floating magnitude no predictor knew: exponent and three digits from its neighbours', the rest as it is.
  uint64_t real(uint64_t want) {
    const int mantissa = t_.width - 1 - t_.exponent, stop = std::max(mantissa - 3, shift_);
    const uint64_t west = i_ > 0 ? magnitude(i_ - 1) >> mantissa : 0,
                   north = has(stride_) ? magnitude(i_ - stride_) >> mantissa : 0;
    uint64_t node = 1;
    for (int b = t_.width - 2; b >= stop; --b) {
      const std::array<uint64_t, kMaxContexts> names = {hash(40, node), hash(41, node, west), hash(42, node, north),
                                                        hash(43, node, west, north)};
      node = 2 * node + static_cast<uint64_t>(fields_.code(c_, static_cast<int>(want >> b & 1), names, 4, 3));
    }
    const uint64_t top = node & (((uint64_t{1} << (t_.width - 1 - stop)) - 1));
    const int direct = stop - shift_;
    return (top << direct | code_raw(c_, want >> shift_ & ((uint64_t{1} << direct) - 1), direct)) << shift_;
  }

  // A whole number no predictor knew: byte by byte from the top, from the same bytes of its neighbours.
  uint64_t whole(uint64_t want) {
    uint64_t prefix = 0;
    for (int b = t_.width - 8; b >= 0; b -= 8) {
      const uint64_t known = prefix << 8;
      const auto part = [&](int64_t back) -> uint64_t {  // its byte, and whether those above it are this element's
        if (!has(back)) return 1000;
        const uint64_t v = magnitude(i_ - back) >> b;
        return (v & 255) | (v >> 8 == prefix ? 256 : 0);
      };
      const uint64_t w = part(1), ww = part(2), n = part(stride_), nw = part(stride_ + 1);
      const auto at = static_cast<uint64_t>(b);
      const std::array<uint64_t, kMaxContexts> base = {
          hash(60, at),       hash(61, at, prefix), hash(62, at, w),        hash(63, at, n),
          hash(64, at, w, n), hash(65, at, w, ww),  hash(66, at, n, nw, w), hash(67, at, w, ww, part(3))};
      uint64_t node = 1;
      for (int k = 7; k >= 0; --k) {
        std::array<uint64_t, kMaxContexts> names;
        for (int j = 0; j < kMaxContexts; ++j) names[j] = hash(base[j], node);
        node = 2 * node +
               static_cast<uint64_t>(fields_.code(c_, static_cast<int>(want >> (b + k) & 1), names, kMaxContexts, 3));
      }
      prefix = known | (node & 255);
    }
    return prefix;
  }

  // ---- smooth tensors ----------------------------------------------------------------------------------------------
  // Where curve j through earlier elements, in the row or in the column, goes on.
  uint64_t go_on(int j) const {
    const int64_t s = j % 2 == 0 ? 1 : stride_;
    const int points = j / 2 + 1;
    if (s == 0 || i_ < points * s) return 0;
    const auto at = [&](int64_t k) { return x_[static_cast<size_t>(i_ - k * s)]; };
    if (points == 1) return at(1);
    if (t_.width == 32 && sign_) {
      for (int k = 1; k <= points; ++k)
        if (!plain(at(k))) return at(1);
      const auto f = [&](int64_t k) { return std::bit_cast<float>(static_cast<uint32_t>(at(k))); };
      const auto told = std::bit_cast<uint32_t>(points == 2 ? line(f(1), f(2)) : bend(f(1), f(2), f(3)));
      return plain(told) ? told : at(1);
    }
    const uint64_t sum = points == 2 ? 2 * at(1) - at(2) : 3 * (at(1) - at(2)) + at(3);
    return sum & t_.mask();
  }
  // Zero, or a number whose sums and differences are zero or normal: the same in every rounding of tiny numbers.
  static bool plain(uint64_t x) {
    const uint64_t exponent = x >> 23 & 255;
    return (x << 1 & 0xffffffff) == 0 || (exponent >= 32 && exponent < 255);
  }
  // Each operation rounds to float32 on its own.
  static float line(float a, float b) {
    volatile float step = a - b;
    return a + step;
  }
  static float bend(float a, float b, float c) {
    volatile float first = a - b, second = b - c;
    volatile float change = first - second;
    volatile float step = first + change;
    return a + step;
  }

  // The distance from the curve that was best in this column: its length in bits, its sign, its digits.
  uint64_t curve(uint64_t x) {
    auto& errors = errors_[stride_ > 0 ? static_cast<size_t>(i_ % stride_) : 0];
    std::array<uint64_t, kCurves> guess;
    int best = 0;
    for (int j = 0; j < kCurves; ++j) {
      guess[j] = ordered(go_on(j));
      if (errors[j] < errors[best]) best = j;
    }
    const uint64_t own = C::kEncoding ? ordered(x) : 0;
    const int length = width_of(own, guess[best]);
    const uint64_t level = errors[best] / 4;
    int e = 0;
    for (; e < t_.width; ++e) {
      const std::array<uint64_t, kMaxContexts> names = {hash(80, e, level), hash(81, e, best, errors[best]),
                                                        hash(82, e, last_length_), hash(83, e)};
      if (!fields_.code(c_, e < length, names, 4, 3)) break;
    }
    uint64_t value = guess[best];
    if (e > 0) {
      const std::array<uint64_t, kMaxContexts> names = {hash(84, e, best), hash(85, last_sign_, best)};
      last_sign_ = fields_.code(c_, own < guess[best], names, 2, 3);
      const uint64_t size = last_sign_ ? guess[best] - own : own - guess[best];
      const uint64_t top = uint64_t{1} << (e - 1);
      const uint64_t distance = top | code_raw(c_, size & (top - 1), e - 1);
      value = (last_sign_ ? value - distance : value + distance) & t_.mask();
    }
    last_length_ = static_cast<uint64_t>(e);
    for (int j = 0; j < kCurves; ++j) {
      errors[j] = (3 * errors[j] + 4 * static_cast<uint32_t>(width_of(value, guess[j]))) / 4;
    }
    return unordered(value);
  }
  static int width_of(uint64_t a, uint64_t b) { return std::bit_width(a < b ? b - a : a - b); }
  // Patterns in numeric order, and back.
  uint64_t ordered(uint64_t x) const { return to_key(x, t_, 0); }
  uint64_t unordered(uint64_t k) const {
    const uint64_t top = uint64_t{1} << (t_.width - 1);
    if (!t_.is_signed) return k;
    if (!t_.is_float()) return k ^ top;
    return k & top ? k ^ top : ~k & t_.mask();
  }

  void learn() {
    const uint64_t value = magnitude(i_);
    for (int j = 0; j < kPredictors; ++j) {
      if (from_[j] < 0) continue;
      const bool hit = says_[j] == value;
      if (i_ >= history_) trust_[j][length_[j]].update(hit);
      if (j >= kPointers) run_[j] = hit ? std::min(run_[j] + 1, kLong) : 0;
    }
    follow(row_[0], row_[1], seen_[0], 1);
    if (stride_ > 0) {
      auto& column = columns_[static_cast<size_t>(i_ % stride_)];
      follow(column[0], column[1], seen_[1], stride_);
    }
  }

  // Moves both pointers of one step; where one lost its way, looks for an earlier place like the last `key_` elements.
  void follow(Pointer& forward, Pointer& mirror, std::vector<int32_t>& table, int64_t step) {
    move(forward, step);
    move(mirror, -step);
    const int64_t reach = (key_ - 1) * step;
    if (i_ < reach) return;
    uint64_t ahead = 1, back = 1;
    for (int64_t k = 0; k < key_; ++k) {
      ahead = hash(ahead, magnitude(i_ - reach + k * step));
      back = hash(back, magnitude(i_ - k * step));
    }
    int32_t& own = table[ahead >> seen_shift_];
    if (forward.length == 0 && own >= 0 && alike(own, -step, step))
      forward = {own + step, 0, flips(own, own - step, step)};
    const int64_t seen = table[back >> seen_shift_];  // read before `own`, which may be the same slot, is written
    if (mirror.length == 0 && seen >= reach + step && alike(seen - reach, step, step)) {
      mirror = {seen - reach - step, 0, flips(seen - reach, seen - reach + step, step)};
    }
    own = static_cast<int32_t>(i_);
  }
  // Are the last `key_` elements those at `at`, at + by, ...?
  bool alike(int64_t at, int64_t by, int64_t step) const {
    for (int64_t k = 0; k < key_; ++k)
      if (magnitude(at + k * by) != magnitude(i_ - k * step)) return false;
    return true;
  }
  // Did the signs of the last two elements differ from those at `now` and `before`?
  uint32_t flips(int64_t now, int64_t before, int64_t step) const {
    return static_cast<uint32_t>((negative(i_) ^ negative(now)) | (negative(i_ - step) ^ negative(before)) << 1);
  }
  void move(Pointer& p, int64_t step) {
    if (p.at < 0) return;
    if (magnitude(p.at) == magnitude(i_)) {
      p.length = std::min(p.length + 1, kLong);
      p.flips = (p.flips << 1 | static_cast<uint32_t>(negative(p.at) ^ negative(i_))) & 7;
    } else {
      p.length = 0;
      p.flips = (p.flips << 1) & 7;
    }
    p.at += step;
    if (p.at < 0) p = {};
  }

  C& c_;
  Pattern t_;
  std::vector<uint64_t>& x_;
  int64_t history_, stride_, i_ = 0;
  int shift_;
  bool smooth_;
  uint64_t sign_;
  int64_t key_;  // elements that must agree before a pointer is set
  int seen_shift_ = 0;
  Fields<HashedTable> fields_;
  Pointer row_[2];
  std::vector<std::array<Pointer, 2>> columns_;
  std::vector<int32_t>
      seen_[2];  // where `key_` magnitudes were last seen, by 1 and by the stride: the place of the last
  Bit trust_[kPredictors][kLong + 1];
  uint32_t run_[kPredictors] = {}, length_[kPredictors] = {};
  int64_t from_[kPredictors];
  uint64_t says_[kPredictors] = {};
  std::vector<std::array<uint32_t, kCurves>> errors_;  // of each curve, in each column
  std::vector<uint8_t> won_;
  uint64_t recent_ = 0, last_length_ = 0;
  int last_sign_ = 0;
};

}  // namespace secateur::sct
