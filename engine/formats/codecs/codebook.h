// Codec `codebook`: each value by its entry's number; the entries are formats/entries.h, their numbers
// formats/symbols.h.
#pragma once

#include "formats/behind.h"
#include "formats/entries.h"
#include "formats/symbols.h"

namespace secateur::sct::codecs {

struct Codebook : Entries {
  static constexpr uint32_t kNumber = 1;
  static constexpr const char* kName = "codebook";
  static constexpr bool kWhole = false;

  std::vector<int32_t> index;  // encoder: entry of each element, -1 where it is a zero left out
  bool fast = false;           // numbers by rANS
  Behind symbols{};

  static const char* refuses(DType, bool) { return nullptr; }

  template <class C>
  void header(TensorStream<C>& s, const Kept& kept) {
    Entries::header(s, kept);
    if (kept.behind) fast = s.coder().bit(fast, 32768);
    if (fast)
      symbols.header(s, kept, entries.size(),
                     [&](int64_t i, uint64_t) { return static_cast<size_t>(index[static_cast<size_t>(i)]); });
  }

  template <class C>
  struct Values {
    static constexpr bool kBehind = false, kMixes = true;
    TensorStream<C>& s;
    const Codebook& book;
    Symbols<C> numbers{s.coder(), book.entries, s.type};

    void mix(int64_t rows) { numbers.mix(rows); }
    void code(int64_t i) { put(i, numbers.code(number(i))); }
    // Returns the symbol: 1 + its number.
    int32_t code_near(int64_t i, const Nearby& near) {
      const int k = numbers.code_near(number(i), near);
      put(i, k);
      return k + 1;
    }

    int number(int64_t i) const { return C::kEncoding ? book.index[static_cast<size_t>(i)] : 0; }
    void put(int64_t i, int k) { s.set(i, book.entries[static_cast<size_t>(k)]); }
  };
  template <class C, class F>
  void values(TensorStream<C>& s, const Kept&, F&& f) const {
    if (fast) {
      Marks<C> v{s};
      f(v);
    } else {
      Values<C> v{s, *this};
      f(v);
    }
  }

  size_t read_tail(TensorStream<Decoder>& s, const Kept& kept, std::span<const uint8_t> bytes) const {
    if (!fast) return 0;
    return symbols.read(s, kept, bytes, 0, [&](uint32_t symbol, uint64_t) { return entries[symbol]; });
  }
};

}  // namespace secateur::sct::codecs
