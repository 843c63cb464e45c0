// Layout `dense`: every element, in C order or, mixed, in that of formats/view.h.
#pragma once

#include "formats/mixed.h"

namespace secateur::sct::layouts {

struct Dense {
  static constexpr uint32_t kNumber = 0;
  static constexpr const char* kName = "dense";
  static constexpr int kVersion = 1;

  bool mixed = false;
  Order order{};

  bool behind() const { return !mixed; }

  template <class C>
  Kept header(TensorStream<C>& s) {
    if (mixed) order.code(s);
    return {.nnz = s.numel(), .zeros = true, .mixed = mixed, .behind = behind()};
  }

  template <class C, class V>
  void body(TensorStream<C>& s, const Kept& kept, V& value) const {
    if constexpr (V::kBehind) return;
    if (mixed) return MixedBody<C, V, false>(s, kept, order, value).run();
    for (int64_t i = 0; i < s.numel(); ++i) {
      value.code(i);
      s.watch(i);
    }
  }
};

}  // namespace secateur::sct::layouts
