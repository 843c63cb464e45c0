// What a value is: bit patterns, their order, and the three ways to write a list of them.
#pragma once

#include <bit>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "formats/models.h"
#include "graph/graph.h"

namespace secateur::sct {

// The bit layout of a dtype. Patterns are the element's little-endian bytes as an unsigned number.
struct Pattern {
  int width = 32;    // bits
  int exponent = 8;  // floating types: exponent bits; 0 = whole number
  bool is_signed = true;

  static Pattern of(DType t) {
    switch (t) {
      case DType::kFloat:
        return {32, 8, true};
      case DType::kDouble:
        return {64, 11, true};
      case DType::kFloat16:
        return {16, 5, true};
      case DType::kBFloat16:
        return {16, 8, true};
      case DType::kInt8:
        return {8, 0, true};
      case DType::kInt16:
        return {16, 0, true};
      case DType::kInt32:
        return {32, 0, true};
      case DType::kInt64:
        return {64, 0, true};
      case DType::kUInt8:
      case DType::kBool:
        return {8, 0, false};
      case DType::kUInt16:
        return {16, 0, false};
      case DType::kUInt32:
        return {32, 0, false};
      case DType::kUInt64:
        return {64, 0, false};
      default:
        return {0, 0, false};
    }
  }
  bool is_float() const { return exponent > 0; }
  int mantissa() const { return width - 1 - exponent; }  // bits, of floating types
  uint64_t mask() const { return width == 64 ? ~uint64_t{0} : (uint64_t{1} << width) - 1; }
};

// A monotone map of the top `width - shift` bits of patterns to 0, 1, 2, ...: numeric order (-0 before +0), NaNs
// outside.
inline uint64_t to_key(uint64_t pattern, const Pattern& t, int shift) {
  const uint64_t top = uint64_t{1} << (t.width - 1 - shift);
  const uint64_t x = pattern >> shift;
  if (!t.is_signed) return x;
  if (!t.is_float()) return x ^ top;
  return x & top ? ~x & (2 * top - 1) : x | top;
}
inline bool is_negative(uint64_t pattern, const Pattern& t) { return t.is_signed && pattern >> (t.width - 1) & 1; }

inline uint64_t zigzag(int64_t v) { return static_cast<uint64_t>(v) << 1 ^ static_cast<uint64_t>(v >> 63); }
inline int64_t unzigzag(uint64_t u) { return static_cast<int64_t>(u >> 1) ^ -static_cast<int64_t>(u & 1); }

// float32(q * scale): one IEEE multiplication, the only non-integer step of the format.
inline uint32_t scaled(int64_t q, uint32_t scale_pattern) {
  const float v = static_cast<float>(q) * std::bit_cast<float>(scale_pattern);
  return std::bit_cast<uint32_t>(v);
}

// `width` bits, most significant first.
template <class C>
uint64_t code_raw(C& c, uint64_t value, int width) {
  uint64_t x = 0;
  while (width > 0) {
    const int take = width < 16 ? width : 16;
    width -= take;
    x = x << take | c.bits(static_cast<uint32_t>(value >> width & 0xffff), take);
  }
  return x;
}

}  // namespace secateur::sct
