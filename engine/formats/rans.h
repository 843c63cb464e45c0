// Symbols at memory speed: four interleaved rANS states (docs/format.md, 4.2, "split").
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"

namespace secateur::sct {

inline constexpr int kRansBits = 14;  // frequencies add up to 2^14
inline constexpr uint32_t kRansTotal = 1u << kRansBits;
inline constexpr int kRansStates = 4;
inline constexpr uint32_t kRansLow = 1u << 16;  // a state lives in [2^16, 2^32)

// Whole frequencies proportional to the counts, at least 1 where something was counted, 2^14 in sum.
inline std::vector<uint32_t> rans_frequencies(const std::vector<uint64_t>& counts) {
  uint64_t total = 0;
  for (uint64_t c : counts) total += c;
  std::vector<uint32_t> f(counts.size());
  uint32_t sum = 0;
  size_t largest = 0;
  for (size_t s = 0; s < counts.size(); ++s) {
    if (counts[s] == 0) continue;
    // Counts stay below 2^40 and the total above them, so 14 more bits cannot overflow.
    f[s] = static_cast<uint32_t>(std::max<uint64_t>(1, (counts[s] << kRansBits) / total));
    sum += f[s];
    if (counts[s] > counts[largest]) largest = s;
  }
  if (sum < kRansTotal) f[largest] += kRansTotal - sum;
  while (sum > kRansTotal) {
    size_t widest = 0;
    for (size_t s = 0; s < f.size(); ++s)
      if (f[s] > f[widest]) widest = s;
    const uint32_t less = std::min(sum - kRansTotal, f[widest] / 2);
    f[widest] -= less;
    sum -= less;
  }
  return f;
}

// Adds `symbol`s backwards; finish() gives the bytes a RansReader takes forwards.
class RansWriter {
 public:
  explicit RansWriter(const std::vector<uint32_t>& frequencies) : f_(frequencies), from_(frequencies.size()) {
    uint32_t at = 0;
    for (size_t s = 0; s < f_.size(); ++s) from_[s] = at, at += f_[s];
    x_.fill(kRansLow);
  }
  // Element `i` of the list, from the last to the first.
  void put(uint64_t i, size_t symbol) {
    uint32_t& x = x_[i % kRansStates];
    const uint32_t f = f_[symbol];
    if (x >= uint64_t{f} << (32 - kRansBits)) {
      words_.push_back(static_cast<uint16_t>(x));
      x >>= 16;
    }
    x = (x / f << kRansBits) + x % f + from_[symbol];
  }
  std::vector<uint8_t> finish() const {
    std::vector<uint8_t> out;
    out.reserve(4 * kRansStates + 2 * words_.size());
    for (uint32_t x : x_)
      for (int i = 0; i < 4; ++i) out.push_back(static_cast<uint8_t>(x >> (8 * i)));
    for (size_t i = words_.size(); i-- > 0;) {
      out.push_back(static_cast<uint8_t>(words_[i]));
      out.push_back(static_cast<uint8_t>(words_[i] >> 8));
    }
    return out;
  }

 private:
  const std::vector<uint32_t>& f_;
  std::vector<uint32_t> from_;
  std::array<uint32_t, kRansStates> x_;
  std::vector<uint16_t> words_;
};

class RansReader {
 public:
  // Frequencies must add up to 2^14.
  RansReader(const std::vector<uint32_t>& frequencies, std::span<const uint8_t> bytes) : bytes_(bytes) {
    if (bytes.size() < 4 * kRansStates) throw FormatError("truncated: split values end early");
    slots_.resize(kRansTotal);
    uint32_t at = 0;
    for (size_t s = 0; s < frequencies.size(); ++s) {
      for (uint32_t i = 0; i < frequencies[s]; ++i) {
        slots_[at + i] = {static_cast<uint16_t>(s), static_cast<uint16_t>(i), frequencies[s]};
      }
      at += frequencies[s];
    }
    for (size_t j = 0; j < kRansStates; ++j) {
      for (size_t i = 0; i < 4; ++i) x_[j] |= uint32_t{bytes[4 * j + i]} << (8 * i);
    }
    at_ = 4 * kRansStates;
  }
  uint32_t get(uint64_t i) {
    uint32_t& x = x_[i % kRansStates];
    const Slot& s = slots_[x & (kRansTotal - 1)];
    x = s.frequency * (x >> kRansBits) + s.offset;
    if (x < kRansLow) {
      if (at_ + 2 > bytes_.size()) throw FormatError("truncated: split values end early");
      x = x << 16 | bytes_[at_] | uint32_t{bytes_[at_ + 1]} << 8;
      at_ += 2;
    }
    return s.symbol;
  }
  // All bytes used, all states where the writer began?
  bool clean() const {
    for (uint32_t x : x_)
      if (x != kRansLow) return false;
    return at_ == bytes_.size();
  }

 private:
  struct Slot {
    uint16_t symbol, offset;
    uint32_t frequency;
  };
  std::span<const uint8_t> bytes_;
  std::vector<Slot> slots_;
  std::array<uint32_t, kRansStates> x_{};
  size_t at_ = 0;
};

}  // namespace secateur::sct
