// The entries of a codebook, ascending: signs apart, each side from its largest magnitude in steps down
// (docs/format.md, 4.2).
#pragma once

#include "formats/codecs/grid.h"
#include "formats/stream.h"
#include "formats/study.h"

namespace secateur::sct {

inline constexpr int64_t kMixedCodebookMax = 256;

struct Entries {
  std::vector<uint64_t> entries;  // patterns, ascending keys
  bool on_grid = false;           // they are whole numbers times the scale
  uint32_t scale = 0;
  int shift = 0;  // zero bits at the end of every pattern

  template <class C>
  void header(TensorStream<C>& s, const Kept& kept) {
    const uint64_t size = s.small(C::kEncoding ? entries.size() - 1 : 0) + 1;
    if (size > static_cast<uint64_t>(kCodebookMax) || size > static_cast<uint64_t>(kept.nnz))
      s.damaged("codebook too large");
    if (kept.mixed && size > static_cast<uint64_t>(kMixedCodebookMax)) s.damaged("codebook too large to mix");
    entries.resize(size);
    if (s.dtype == DType::kFloat) on_grid = s.coder().bit(on_grid, 32768);
    if (on_grid) {
      scale = s.scale(scale);
      shift = 0;
    } else {
      shift = s.trailing(shift, s.type.width - 1);
    }
    // Ascending order: negative entries from the largest magnitude, then the others from the smallest.
    uint64_t negatives = 0;
    if constexpr (C::kEncoding) {
      for (uint64_t e : entries) negatives += is_negative(e, s.type);
    }
    if (s.type.is_signed)
      negatives = static_cast<uint64_t>(s.uniform(static_cast<int>(negatives), static_cast<int>(size) + 1));
    magnitudes(s, {0, negatives, true});
    magnitudes(s, {negatives, size, false});
  }

 private:
  static constexpr uint64_t kRiceMax = 24;

  // Entries first .. last - 1, of one sign.
  struct Side {
    uint64_t first, last;
    bool negative;
    uint64_t size() const { return last - first; }
    uint64_t at(uint64_t i) const { return negative ? first + i : last - 1 - i; }  // i-th largest magnitude
  };

  template <class C>
  void magnitudes(TensorStream<C>& s, const Side& side) {
    if (side.size() == 0) return;
    const int width = on_grid ? 17 : s.type.width - shift - (s.type.is_signed ? 1 : 0);
    uint64_t now = largest(s, C::kEncoding ? magnitude(s.type, side.at(0)) : 0, width);
    int rice = 0;
    if (side.size() > 1) rice = s.uniform(C::kEncoding ? best_rice(s.type, side, width) : 0, width);
    for (uint64_t i = 0; i < side.size(); ++i) {
      if (i > 0) {
        const uint64_t down = step(s, C::kEncoding ? now - magnitude(s.type, side.at(i)) - 1 : 0, rice, width);
        if (down >= now) s.damaged("codebook entry out of range");
        now -= down + 1;
      }
      entries[side.at(i)] = from_magnitude(s.type, now, side.negative);
    }
  }

  template <class C>
  uint64_t largest(TensorStream<C>& s, uint64_t value, int width) {
    if (on_grid || !s.type.is_float()) return s.below(value, width > 0 ? uint64_t{1} << (width - 1) : 0);
    // The exponent counts from the one of numbers in 0.5 .. 1.
    const int mantissa = std::max(s.type.mantissa() - shift, 0), exponent = width - mantissa;
    const int64_t middle = ((int64_t{1} << (s.type.exponent - 1)) - 2) >> (s.type.exponent - exponent);
    const int64_t e = middle - unzigzag(s.small(zigzag(middle - static_cast<int64_t>(value >> mantissa))));
    if (e < 0 || e >> exponent != 0) s.damaged("codebook entry out of range");
    return static_cast<uint64_t>(e) << mantissa |
           code_raw(s.coder(), value & ((uint64_t{1} << mantissa) - 1), mantissa);
  }

  // Rice coded, at full width where that is shorter.
  template <class C>
  static uint64_t step(TensorStream<C>& s, uint64_t value, int rice, int width) {
    C& c = s.coder();
    uint64_t high = 0;
    while (high < kRiceMax && c.bit(high < value >> rice, 32768)) ++high;
    if (high == kRiceMax) return code_raw(c, value, width);
    return high << rice | code_raw(c, value & ((uint64_t{1} << rice) - 1), rice);
  }

  int best_rice(const Pattern& type, const Side& side, int width) const {
    int rice = 0;
    uint64_t best = ~uint64_t{0};
    for (int k = 0; k < width; ++k) {
      uint64_t cost = 0;
      for (uint64_t i = 1; i < side.size(); ++i) {
        const uint64_t high = (magnitude(type, side.at(i - 1)) - magnitude(type, side.at(i)) - 1) >> k;
        cost += std::min<uint64_t>(high + 1, kRiceMax) + static_cast<uint64_t>(high >= kRiceMax ? width : k);
      }
      if (cost < best) best = cost, rice = k;
    }
    return rice;
  }

  // Whole numbers: -1 - v for negative v, so that magnitudes fit; floats: the pattern without sign; grids: |q|.
  uint64_t magnitude(const Pattern& type, uint64_t i) const {
    const uint64_t e = entries[i];
    if (on_grid) return static_cast<uint64_t>(std::llabs(codecs::Grid::index(e, scale)));
    const uint64_t body = type.is_signed ? type.mask() >> 1 : type.mask();
    const uint64_t x = type.is_float() || !is_negative(e, type) ? e : ~e;
    return (x & body) >> shift;
  }
  uint64_t from_magnitude(const Pattern& type, uint64_t m, bool negative) const {
    if (on_grid) return scaled(negative ? -static_cast<int64_t>(m) : static_cast<int64_t>(m), scale);
    const uint64_t x = m << shift;
    if (!negative) return x;
    return type.is_float() ? x | (type.mask() ^ type.mask() >> 1) : ~(x | ((uint64_t{1} << shift) - 1)) & type.mask();
  }
};

}  // namespace secateur::sct
