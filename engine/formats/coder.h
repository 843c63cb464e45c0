// The binary arithmetic coder of .sct (docs/format.md, "Coder"). Integers only, so every machine writes the same bytes.
//
// A stream is written without its length and without padding: the decoder knows, when the last symbol is read, how many
// bytes the encoder needed, because both keep the same (low, range). Whatever follows a stream may be any bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace secateur::sct {

inline constexpr int kWindow = 56;  // bits of low and range
inline constexpr uint64_t kTop = uint64_t{1} << kWindow;
inline constexpr uint64_t kBottom = uint64_t{1} << (kWindow - 8);  // range stays in [kBottom, kTop]
inline constexpr uint64_t kMask = kTop - 1;

// The fewest bytes n <= 7 such that some n-byte prefix lies in [low, low + range) with every continuation.
inline int flush_bytes(uint64_t low, uint64_t range) {
  for (int n = 0; n < 7; ++n) {
    const uint64_t unit = uint64_t{1} << (kWindow - 8 * n);
    const uint64_t v = (low + unit - 1) / unit * unit;
    if (v + unit <= low + range) return n;
  }
  return 7;
}

class Encoder {
 public:
  static constexpr bool kEncoding = true;

  // Codes `bit`, whose probability of being 1 is p / 65536, 1 <= p <= 65535. Returns the bit.
  int bit(int bit, uint32_t p) {
    const uint64_t ones = (range_ >> 16) * p;
    if (bit) {
      range_ = ones;
    } else {
      add(ones);
      range_ -= ones;
    }
    normalize();
    return bit;
  }

  // Codes the low `count` (0..16) bits of `value`, all values equally likely. Returns them.
  uint32_t bits(uint32_t value, int count) {
    range_ >>= count;
    value &= (uint32_t{1} << count) - 1;
    add(range_ * value);
    normalize();
    return value;
  }

  // Ends the stream; the encoder must not be used afterwards.
  std::vector<uint8_t> finish() {
    const int n = flush_bytes(low_, range_);
    const uint64_t unit = uint64_t{1} << (kWindow - 8 * n);
    uint64_t v = n == 0 ? low_ : (low_ + unit - 1) / unit * unit;
    if (v >= kTop) carry(), v &= kMask;
    for (int i = 0; i < n; ++i) out_.push_back(static_cast<uint8_t>(v >> (kWindow - 8 * (i + 1))));
    return std::move(out_);
  }

 private:
  void carry() {
    for (size_t i = out_.size(); i-- > 0;) {
      if (++out_[i] != 0) break;
    }
  }
  void add(uint64_t x) {
    low_ += x;
    if (low_ >= kTop) carry(), low_ &= kMask;
  }
  void normalize() {
    while (range_ < kBottom) {
      out_.push_back(static_cast<uint8_t>(low_ >> (kWindow - 8)));
      low_ = (low_ << 8) & kMask;
      range_ <<= 8;
    }
  }

  uint64_t low_ = 0;
  uint64_t range_ = kTop;
  std::vector<uint8_t> out_;
};

class Decoder {
 public:
  static constexpr bool kEncoding = false;

  // Reads from the start of `bytes`; beyond its end come zeros (checked by consumed()).
  explicit Decoder(std::span<const uint8_t> bytes) : bytes_(bytes) {
    for (int i = 0; i < 7; ++i) code_ = code_ << 8 | next();
  }

  int bit(int, uint32_t p) {
    const uint64_t ones = (range_ >> 16) * p;
    const int bit = code_ < ones;
    if (bit) {
      range_ = ones;
    } else {
      code_ -= ones;
      low_ = (low_ + ones) & kMask;
      range_ -= ones;
    }
    normalize();
    return bit;
  }

  uint32_t bits(uint32_t, int count) {
    range_ >>= count;
    uint64_t value = code_ / range_;
    const uint64_t last = (uint64_t{1} << count) - 1;
    if (value > last) value = last;  // only a damaged stream points into the remainder
    code_ -= value * range_;
    if (code_ >= range_) code_ = range_ - 1;
    low_ = (low_ + value * range_) & kMask;
    normalize();
    return static_cast<uint32_t>(value);
  }

  // Bytes the encoder wrote for what was read so far. More than bytes.size() means: truncated.
  size_t consumed() const { return shifted_ + static_cast<size_t>(flush_bytes(low_, range_)); }
  bool exhausted() const { return shifted_ > bytes_.size(); }

 private:
  uint64_t next() { return at_ < bytes_.size() ? bytes_[at_++] : 0; }
  void normalize() {
    while (range_ < kBottom) {
      code_ = code_ << 8 | next();
      low_ = (low_ << 8) & kMask;
      range_ <<= 8;
      ++shifted_;
    }
  }

  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
  size_t shifted_ = 0;
  uint64_t low_ = 0;
  uint64_t range_ = kTop;
  uint64_t code_ = 0;
};

}  // namespace secateur::sct
