// Adaptive models over the coder: probabilities, counters, whole numbers (docs/format.md, "Models").
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "formats/coder.h"

namespace secateur::sct {

// The logistic scale: log odds in steps of 1/256, probabilities in steps of 1/65536.
inline constexpr int kLogitMax = 2847;  // squash(2847) = 65535

class LogisticTables {
 public:
  LogisticTables() {
    // e^(-2^j / 256) in 32-bit fixed point; their products give every e^(-x/256) by integers alone.
    static constexpr uint64_t kPowers[12] = {4278222805, 4261543595, 4228380000, 4162825044, 4034748382, 3790295335,
                                             3344923893, 2605029347, 1580030169, 581260615,  78665070,   1440801};
    for (int x = 0; x <= kLogitMax; ++x) {
      uint64_t e = uint64_t{1} << 32;
      for (int j = 0; j < 12; ++j) {
        if (x >> j & 1) e = (e * kPowers[j] + (uint64_t{1} << 31)) >> 32;
      }
      const uint64_t sum = (uint64_t{1} << 32) + e;
      const auto small = static_cast<uint32_t>(((e << 16) + sum / 2) / sum);
      squash_[kLogitMax - x] = std::max<uint32_t>(small, 1);
      squash_[kLogitMax + x] = 65536 - squash_[kLogitMax - x];
    }
    uint32_t from = 0;
    for (int x = -kLogitMax; x <= kLogitMax; ++x) {
      const uint32_t to = squash_[x + kLogitMax];
      for (; from <= to; ++from) stretch_[from] = static_cast<int16_t>(x);
    }
    for (; from < 65536; ++from) stretch_[from] = kLogitMax;
  }
  uint32_t squash(int64_t x) const {
    return squash_[static_cast<size_t>(std::clamp<int64_t>(x, -kLogitMax, kLogitMax) + kLogitMax)];
  }
  int stretch(uint32_t p) const { return stretch_[p]; }

 private:
  std::array<uint32_t, 2 * kLogitMax + 1> squash_;
  std::array<int16_t, 65536> stretch_;
};

// Filled when the program is loaded (0.1 ms): a table made at its first use asks at every use whether it is there, and
// these are read several times for each bit.
inline const LogisticTables kLogistic;

// 1..65535 -> log odds; log odds -> 1..65535.
inline int stretch(uint32_t p) { return kLogistic.stretch(p); }
inline uint32_t squash(int64_t x) { return kLogistic.squash(x); }

// The probability of a 1 in one context: moves by 1 / (n + 1.5) towards each bit seen, never slower than 1 / 256.5.
struct Bit {
  uint32_t p = 1u << 21;  // of 2^22
  uint32_t n = 0;

  uint32_t probability() const { return std::clamp<uint32_t>(p >> 6, 1, 65535); }
  void update(int bit) {
    const int64_t rate = 131072 / (2 * n + 3);
    p = static_cast<uint32_t>(p + ((((int64_t{bit} << 22) - p) * rate) >> 16));
    if (n < 255) ++n;
  }
  template <class C>
  int code(C& c, int bit) {
    bit = c.bit(bit, probability());
    update(bit);
    return bit;
  }
};

// Whole numbers 0 .. 2^62: Elias gamma with adaptive exponent and leading mantissa bits.
struct Uint {
  std::array<Bit, 63> more{};
  std::array<std::array<Bit, 8>, 63> lead{};

  template <class C>
  uint64_t code(C& c, uint64_t value = 0) {
    int e = 0;
    const int target = C::kEncoding ? std::bit_width(value + 1) - 1 : 0;
    while (e < 62 && more[e].code(c, e < target)) ++e;
    uint64_t x = 1;
    int node = 1, left = e;
    for (int i = 0; i < 3 && left > 0; ++i) {
      --left;
      const int b = lead[e][node].code(c, static_cast<int>((value + 1) >> left & 1));
      node = 2 * node + b;
      x = 2 * x + b;
    }
    while (left > 0) {
      const int take = std::min(left, 16);
      left -= take;
      x = x << take | c.bits(static_cast<uint32_t>((value + 1) >> left & 0xffff), take);
    }
    return x - 1;
  }
};

}  // namespace secateur::sct
