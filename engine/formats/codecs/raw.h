// Codec `raw`: the elements' bytes, behind the arithmetic stream.
#pragma once

#include "formats/stream.h"

namespace secateur::sct::codecs {

struct Raw {
  static constexpr uint32_t kNumber = 0;
  static constexpr const char* kName = "raw";
  static constexpr bool kWhole = true;

  template <class C>
  void code(TensorStream<C>& s) {
    if constexpr (C::kEncoding) s.tail.assign(s.data().begin(), s.data().end());
  }

  size_t read_tail(TensorStream<Decoder>& s, const Kept&, std::span<const uint8_t> bytes) const {
    const std::span<uint8_t> data = s.data();
    if (data.size() > bytes.size()) throw FormatError("truncated: raw elements end early");
    std::memcpy(data.data(), bytes.data(), data.size());
    return data.size();
  }
};

}  // namespace secateur::sct::codecs
