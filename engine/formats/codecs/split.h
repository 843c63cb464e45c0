// Codec `split`: sign and exponent by rANS, mantissas packed as they are.
#pragma once

#include "formats/behind.h"

namespace secateur::sct::codecs {

struct Split {
  static constexpr uint32_t kNumber = 5;
  static constexpr const char* kName = "split";
  static constexpr bool kWhole = false;

  int shift = 0;  // zero bits at the end of every pattern
  Behind symbols{};

  static const char* refuses(DType dtype, bool behind) {
    return Pattern::of(dtype).is_float() && behind ? nullptr : "split values need a floating type, dense or with gaps";
  }

  template <class C>
  void header(TensorStream<C>& s, const Kept& kept) {
    const int mantissa = s.type.mantissa();
    shift = s.trailing(shift, mantissa);
    symbols.header(s, kept, size_t{2} << s.type.exponent,
                   [&](int64_t, uint64_t x) { return static_cast<size_t>(x >> mantissa); });
    if constexpr (C::kEncoding) pack(s, kept, mantissa - shift);
  }

  template <class C, class F>
  void values(TensorStream<C>& s, const Kept&, F&& f) const {
    Marks<C> v{s};
    f(v);
  }

  size_t read_tail(TensorStream<Decoder>& s, const Kept& kept, std::span<const uint8_t> bytes) const {
    const int mantissa = s.type.mantissa();
    return symbols.read(s, kept, bytes, mantissa - shift,
                        [&](uint32_t symbol, uint64_t bits) { return uint64_t{symbol} << mantissa | bits << shift; });
  }

 private:
  template <class C>
  void pack(TensorStream<C>& s, const Kept& kept, int bits) const {
    if (bits == 0) return;
    uint64_t hold = 0;
    int held = 0;
    for (int64_t i = 0; i < s.numel(); ++i) {
      const uint64_t x = s.get(i);
      if (!kept.has(i, x)) continue;
      hold |= (x >> shift & ((uint64_t{1} << bits) - 1)) << held;
      for (held += bits; held >= 8; held -= 8, hold >>= 8) s.tail.push_back(static_cast<uint8_t>(hold));
    }
    if (held > 0) s.tail.push_back(static_cast<uint8_t>(hold));
  }
};

}  // namespace secateur::sct::codecs
