// Entries of a codebook as a binary tree: the root parts negative entries from the others, every other node halves. A
// node is known by its split point 1 .. size - 1 (docs/format.md, 4.2, 4.5).
#pragma once

#include <array>
#include <vector>

#include "formats/mixed.h"

namespace secateur::sct {

template <class C>
class Symbols {
 public:
  Symbols(C& c, const std::vector<uint64_t>& entries, const Pattern& type)
      : c_(c), size_(static_cast<int>(entries.size())), base_(entries.size()) {
    for (uint64_t e : entries) negatives_ += is_negative(e, type);
    for (Bit& b : base_) b.n = kStart;
  }

  // An entry's number.
  int code(int symbol) {
    int lo = 0, hi = size_;
    while (hi - lo > 1) {
      const int mid = split(lo, hi);
      if (base_[static_cast<size_t>(mid)].code(c_, symbol >= mid)) lo = mid;
      else hi = mid;
    }
    return lo;
  }

  // Makes ready for code_near().
  void mix(int64_t rows) {
    own_rows_ = std::min(rows, kRowContexts / size_);
    const int64_t classes[kContexts] = {5, 5, 5, 5, own_rows_};
    for (int j = 0; j < kContexts; ++j) odds_[j].resize(static_cast<size_t>(classes[j] * size_));
    mixers_.assign(static_cast<size_t>(size_), Mixer<kContexts>(kWeight));
  }

  // The same, each digit predicted from what is near.
  int code_near(int symbol, const Nearby& near) {
    const std::array<int, kContexts> context = {classify(near.previous), classify(near.west), classify(near.north),
                                                classify(near.same_place), static_cast<int>(near.row % own_rows_)};
    int lo = 0, hi = size_;
    while (hi - lo > 1) {
      const int mid = split(lo, hi);
      if (digit(symbol >= mid, mid, context)) lo = mid;
      else hi = mid;
    }
    return lo;
  }

 private:
  static constexpr uint32_t kStart = 6;  // the histogram is near flat: do not jump at the first values
  static constexpr int kContexts = 5, kRate = 4;
  static constexpr int64_t kPseudo = 1 << 16, kWeight = 3277;
  static constexpr int64_t kRowContexts = 65536;  // rows x entries that get a context of their own

  int split(int lo, int hi) const {
    return lo == 0 && hi == size_ && negatives_ > 0 && negatives_ < size_ ? negatives_ : (lo + hi) / 2;
  }
  // 0 none, 1..4: negative or not, inner or outer half of its side. `symbol` counts from 1, 0 = none.
  int classify(int symbol) const {
    if (symbol == 0) return 0;
    const int s = symbol - 1;
    if (s < negatives_) return s < negatives_ / 2 ? 1 : 2;
    return s < negatives_ + (size_ - negatives_) / 2 ? 3 : 4;
  }

  int digit(int bit, int node, const std::array<int, kContexts>& context) {
    std::array<int, kContexts> votes;
    std::array<uint32_t, kContexts> expected;
    std::array<Odds*, kContexts> o;
    for (int j = 0; j < kContexts; ++j) {
      o[j] = &odds_[j][static_cast<size_t>(context[j]) * static_cast<size_t>(size_) + static_cast<size_t>(node)];
      votes[j] = o[j]->vote(kPseudo);
    }
    Bit& base = base_[static_cast<size_t>(node)];
    bit = mixers_[static_cast<size_t>(node)].code(c_, bit, stretch(base.probability()), votes, kRate, expected);
    base.update(bit);
    for (int j = 0; j < kContexts; ++j) {
      o[j]->ones.seen += int64_t{bit} << 16;
      o[j]->ones.expected += expected[j];
      o[j]->zeros.seen += int64_t{1 - bit} << 16;
      o[j]->zeros.expected += 65536 - expected[j];
    }
    return bit;
  }

  C& c_;
  int size_, negatives_ = 0;
  std::vector<Bit> base_;
  int64_t own_rows_ = 1;
  std::array<std::vector<Odds>, kContexts> odds_;
  std::vector<Mixer<kContexts>> mixers_;
};

}  // namespace secateur::sct
