// Codec `ints`: whole numbers.
#pragma once

#include "formats/stream.h"

namespace secateur::sct::codecs {

// Zero?, sign, magnitude. 64-bit magnitudes above 2^62 - 2 are not representable (the raw codec holds them).
struct Whole {
  Bit zero, sign;
  Uint magnitude;

  template <class C>
  int64_t code(C& c, int64_t v, bool may_be_zero) {
    if (may_be_zero && zero.code(c, v == 0)) return 0;
    const int negative = sign.code(c, v < 0);
    const auto size = static_cast<int64_t>(magnitude.code(c, static_cast<uint64_t>(v < 0 ? -(v + 1) : v - 1)));
    return negative ? -size - 1 : size + 1;
  }
};

struct Ints {
  static constexpr uint32_t kNumber = 4;
  static constexpr const char* kName = "ints";
  static constexpr bool kWhole = false;

  static const char* refuses(DType dtype, bool) {
    return Pattern::of(dtype).is_float() ? "integer values need an integer type" : nullptr;
  }

  template <class C>
  void header(TensorStream<C>&, const Kept&) {}

  template <class C>
  struct Values {
    static constexpr bool kBehind = false, kMixes = false;
    TensorStream<C>& s;
    const bool zeros;
    Whole model{};

    void code(int64_t i) {
      const int64_t v = model.code(s.coder(), number(s.get(i)), zeros);
      s.set(i, static_cast<uint64_t>(v) & s.type.mask());
    }
    int64_t number(uint64_t x) const {
      const int pad = 64 - s.type.width;
      return s.type.is_signed ? static_cast<int64_t>(x << pad) >> pad : static_cast<int64_t>(x);
    }
  };
  template <class C, class F>
  void values(TensorStream<C>& s, const Kept& kept, F&& f) const {
    Values<C> v{s, kept.zeros};
    f(v);
  }
};

}  // namespace secateur::sct::codecs
