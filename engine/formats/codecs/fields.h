// Codec `fields`: sign, exponent, three leading mantissa bits by exponent; the rest as they are.
#pragma once

#include <array>

#include "formats/stream.h"

namespace secateur::sct::codecs {

struct Fields {
  static constexpr uint32_t kNumber = 3;
  static constexpr const char* kName = "fields";
  static constexpr bool kWhole = false;

  int shift = 0;  // zero bits at the end of every pattern

  static const char* refuses(DType dtype, bool) {
    return Pattern::of(dtype).is_float() ? nullptr : "field values need a floating type";
  }

  template <class C>
  void header(TensorStream<C>& s, const Kept&) {
    shift = s.trailing(shift, s.type.width - 1);
  }

  template <class C>
  class Values {
   public:
    static constexpr bool kBehind = false, kMixes = false;
    Values(TensorStream<C>& s, int shift)
        : s_(s), shift_(shift), exponent_(size_t{1} << s.type.exponent), lead_(size_t{1} << s.type.exponent) {}

    void code(int64_t i) { s_.set(i, pattern(s_.get(i))); }

   private:
    uint64_t pattern(uint64_t want) {
      C& c = s_.coder();
      const int width = s_.type.width, mantissa = s_.type.mantissa();
      uint64_t x = static_cast<uint64_t>(sign_.code(c, static_cast<int>(want >> (width - 1) & 1)));
      size_t node = 1;
      for (int i = width - 2; i >= mantissa; --i) {
        const int bit = i < shift_ ? 0 : exponent_[node].code(c, static_cast<int>(want >> i & 1));
        node = 2 * node + static_cast<size_t>(bit);
        x = 2 * x + static_cast<uint64_t>(bit);
      }
      auto& lead = lead_[node - (size_t{1} << s_.type.exponent)];
      size_t at = 1;
      int left = mantissa;
      while (left > shift_ && at < 8) {
        --left;
        const int bit = lead[at].code(c, static_cast<int>(want >> left & 1));
        at = 2 * at + static_cast<size_t>(bit);
        x = 2 * x + static_cast<uint64_t>(bit);
      }
      const int direct = std::max(left - shift_, 0);
      x = x << direct | code_raw(c, want >> shift_ & ((uint64_t{1} << direct) - 1), direct);
      return x << std::min(shift_, left);
    }

    TensorStream<C>& s_;
    const int shift_;
    Bit sign_;
    std::vector<Bit> exponent_;
    std::vector<std::array<Bit, 8>> lead_;
  };
  template <class C, class F>
  void values(TensorStream<C>& s, const Kept&, F&& f) const {
    Values<C> v(s, shift);
    f(v);
  }
};

}  // namespace secateur::sct::codecs
