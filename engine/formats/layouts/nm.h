// Layout `nm`: of each group of `group` columns `kept` are kept.
#pragma once

#include <optional>

#include "formats/seen.h"
#include "formats/view.h"

namespace secateur::sct::layouts {

struct Nm {
  static constexpr uint32_t kNumber = 3;
  static constexpr const char* kName = "nm";
  static constexpr int kVersion = 1;

  int64_t group = 0, kept = 0;

  static std::optional<Found<Nm>> find(const Seen& t);
  bool behind() const { return false; }

  template <class C>
  Kept header(TensorStream<C>& s) {
    group = s.upto64(group);
    kept = s.upto64(kept);
    if (s.dims.size() < 2 || kept >= group || s.dims[1] % group != 0) s.damaged("group does not divide axis 1");
    return {.nnz = s.numel() / group * kept};
  }

  template <class C, class V>
  void body(TensorStream<C>& s, const Kept&, V& value) const {
    const View view = View::of(s.dims);
    std::vector<Bit> where(static_cast<size_t>(group * kept));
    for (int64_t r = 0; r < view.rows; ++r) {
      for (int64_t q = 0; q < view.size; ++q) {
        int64_t seen = 0;
        for (int64_t col = 0; col < view.cols; ++col) {
          const int64_t place = col % group;
          if (place == 0) seen = 0;
          const int64_t i = r * view.row_stride + col * view.col_stride + q;
          if (seen == kept) continue;
          const bool forced = group - place == kept - seen;
          const int here = forced ? 1 : where[static_cast<size_t>(place * kept + seen)].code(s.coder(), s.get(i) != 0);
          if (!here) continue;
          ++seen;
          value.code(i);
        }
        s.watch(0);
      }
    }
  }
};

}  // namespace secateur::sct::layouts
