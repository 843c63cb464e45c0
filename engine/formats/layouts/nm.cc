#include "formats/layouts/nm.h"

namespace secateur::sct::layouts {
namespace {

// Kept elements of each group of `group` columns where all groups keep as many, some but not all; else 0.
int64_t kept_of_each(const Seen& t, int64_t group) {
  const View view = View::of(t.dims);
  int64_t kept = -1;
  for (int64_t r = 0; r < view.rows; ++r) {
    for (int64_t q = 0; q < view.size; ++q) {
      for (int64_t g = 0; g < view.cols; g += group) {
        int64_t count = 0;
        for (int64_t k = g; k < g + group; ++k) count += t.at(r * view.row_stride + k * view.col_stride + q) != 0;
        if (kept < 0) kept = count;
        if (count != kept || kept == 0 || kept == group) return 0;
      }
    }
  }
  return kept;
}

}  // namespace

std::optional<Found<Nm>> Nm::find(const Seen& t) {
  if (t.dims.size() < 2) return {};
  for (int64_t group : {4, 8, 16, 32, 2}) {
    if (t.dims[1] % group != 0) continue;
    const int64_t kept = kept_of_each(t, group);
    if (kept > 0) return Found<Nm>{{group, kept}};
  }
  return {};
}

}  // namespace secateur::sct::layouts
