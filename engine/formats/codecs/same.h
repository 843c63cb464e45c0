// Codec `same`: the bytes of an earlier tensor, whatever its type and shape.
#pragma once

#include "formats/stream.h"

namespace secateur::sct::codecs {

struct Same {
  static constexpr uint32_t kNumber = 7;
  static constexpr const char* kName = "same";
  static constexpr bool kWhole = true;

  uint64_t back = 1;  // the tensor this many before

  template <class C>
  void code(TensorStream<C>& s) {
    back = s.small(back - 1) + 1;
    const std::span<const uint8_t> bytes = s.earlier(back);
    if (bytes.size() != s.nbytes()) s.damaged("it refers to a tensor of another size");
    if constexpr (!C::kEncoding) std::memcpy(s.data().data(), bytes.data(), bytes.size());
  }
};

}  // namespace secateur::sct::codecs
