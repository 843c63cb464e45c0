// Layout `gaps`: before each kept element the number of zeros skipped.
#pragma once

#include <memory>
#include <optional>

#include "formats/seen.h"
#include "formats/stream.h"

namespace secateur::sct::layouts {

struct Gaps {
  static constexpr uint32_t kNumber = 2;
  static constexpr const char* kName = "gaps";
  static constexpr int kVersion = 1;

  int64_t nnz = 0;

  static std::optional<Found<Gaps>> find(const Seen& t) { return Found<Gaps>{{t.values.nnz}}; }
  bool behind() const { return true; }

  template <class C>
  Kept header(TensorStream<C>& s) {
    nnz = s.count(nnz);
    return {.nnz = nnz, .behind = true};
  }

  template <class C, class V>
  void body(TensorStream<C>& s, const Kept& kept, V& value) const {
    auto model = std::make_unique<Uint>();
    int64_t at = 0;
    for (int64_t k = 0; k < kept.nnz; ++k) {
      int64_t gap = 0;
      if constexpr (C::kEncoding) {
        while (s.get(at + gap) == 0) ++gap;
      }
      const int64_t room = s.numel() - at - (kept.nnz - k);  // the largest gap possible
      if (room > 0) gap = static_cast<int64_t>(model->code(s.coder(), static_cast<uint64_t>(gap)));
      if (gap > room) s.damaged("a gap leaves the tensor");
      at += gap;
      value.code(at++);
      s.watch(k);
    }
  }
};

}  // namespace secateur::sct::layouts
