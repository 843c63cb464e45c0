// Small tensors: survivors and values predicted from many contexts at once (docs/format.md, "Mixed models").
//
// The model is multiplicative. A context keeps what it saw against what was expected there; ln(seen / expected), shrunk
// towards 0 by a pseudo-count, is its vote, and the votes are added to the log odds of the base rate with weights that
// learn by gradient. With few observations a context says nothing, so hundreds of survivors already gain.
#pragma once

#include <array>
#include <vector>

#include "formats/models.h"

namespace secateur::sct {

inline int log_ratio(int64_t a, int64_t b) {  // 256 ln(a / b), a and b positive, below 2^46
  return stretch(static_cast<uint32_t>(std::clamp<int64_t>((a << 16) / (a + b), 1, 65535)));
}

// Ones seen and expected in one context, in 1/65536.
struct Rate {
  int64_t seen = 0, expected = 0;
  int vote(int64_t pseudo) const { return log_ratio(seen + pseudo, expected + pseudo); }
};

// Ones and zeros seen and expected: for bits near even odds.
struct Odds {
  Rate ones, zeros;
  int vote(int64_t pseudo) const { return ones.vote(pseudo) - zeros.vote(pseudo); }
};

// Adds the votes of N contexts to a base; learns the weights.
template <int N>
struct Mixer {
  std::array<int64_t, N> weight;  // 1/65536
  explicit Mixer(int64_t start) { weight.fill(start); }

  // Codes `bit`; `expected[j]` becomes the probability the model gives without context j.
  template <class C>
  int code(C& c, int bit, int base, const std::array<int, N>& votes, int rate, std::array<uint32_t, N>& expected) {
    int64_t dot = 0;
    for (int j = 0; j < N; ++j) dot += weight[j] * votes[j];
    const int64_t x = std::clamp<int64_t>(base + (dot >> 16), -kLogitMax, kLogitMax);
    const uint32_t p = squash(x);
    bit = c.bit(bit, p);
    const int64_t error = (int64_t{bit} << 16) - p;
    for (int j = 0; j < N; ++j) {
      expected[j] = squash(x - ((weight[j] * votes[j]) >> 16));
      weight[j] += (votes[j] * error * rate) >> 14;
      weight[j] = std::clamp<int64_t>(weight[j], -kWeightMax, kWeightMax);
    }
    return bit;
  }
  static constexpr int64_t kWeightMax = 4 << 16;
};

}  // namespace secateur::sct
