// Layout `sparse`: whether an element is kept is predicted from its neighbours (docs/format.md, 4.5).
#pragma once

#include "formats/mixed.h"

namespace secateur::sct::layouts {

struct Sparse {
  static constexpr uint32_t kNumber = 1;
  static constexpr const char* kName = "sparse";
  static constexpr int kVersion = 1;

  Order order{};
  int64_t nnz = 0;

  bool behind() const { return false; }

  template <class C>
  Kept header(TensorStream<C>& s) {
    order.code(s);
    nnz = s.count(nnz);
    return {.nnz = nnz, .mixed = true};
  }

  template <class C, class V>
  void body(TensorStream<C>& s, const Kept& kept, V& value) const {
    MixedBody<C, V, true>(s, kept, order, value).run();
  }
};

}  // namespace secateur::sct::layouts
