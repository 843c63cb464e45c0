// Codec `grid`: whole numbers times a scale.
#pragma once

#include <cmath>

#include "formats/codecs/ints.h"
#include "formats/study.h"

namespace secateur::sct::codecs {

struct Grid {
  static constexpr uint32_t kNumber = 2;
  static constexpr const char* kName = "grid";
  static constexpr bool kWhole = false;

  uint32_t scale = 0;

  static const char* refuses(DType dtype, bool) {
    return dtype == DType::kFloat ? nullptr : "grid values need float32";
  }
  static int64_t index(uint64_t pattern, uint32_t scale) {
    const double v = std::bit_cast<float>(static_cast<uint32_t>(pattern));
    return std::llround(v / std::bit_cast<float>(scale));
  }

  template <class C>
  void header(TensorStream<C>& s, const Kept&) {
    scale = s.scale(scale);
  }

  template <class C>
  struct Values {
    static constexpr bool kBehind = false, kMixes = false;
    TensorStream<C>& s;
    const uint32_t scale;
    const bool zeros;
    Whole model{};

    void code(int64_t i) {
      const int64_t q = model.code(s.coder(), C::kEncoding ? index(s.get(i), scale) : 0, zeros);
      if (q > kGridMax || q < -kGridMax) s.damaged("grid value out of range");
      s.set(i, scaled(q, scale));
    }
  };
  template <class C, class F>
  void values(TensorStream<C>& s, const Kept& kept, F&& f) const {
    Values<C> v{s, scale, kept.zeros};
    f(v);
  }
};

}  // namespace secateur::sct::codecs
