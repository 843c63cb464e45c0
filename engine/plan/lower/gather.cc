// Gather and GatherND: rows picked by indices, which are looked at while running.
#include <cstring>

#include "plan/lower/move_steps.h"

namespace secateur {
namespace {

// Every tuple of indices picks a row of what is left behind their axes.
struct GatherNdStep {
  int64_t outer, n_tuples, inner_bytes;
  Dims axes;  // that a tuple's numbers run over
  int x, indices, y;
  void run(const Exec& e) const noexcept {
    const auto* src = static_cast<const uint8_t*>(e.ptr[x]);
    const auto* asked = static_cast<const int64_t*>(e.ptr[indices]);
    auto* dst = static_cast<uint8_t*>(e.ptr[y]);
    int64_t rows = 1, number = 0;
    for (int64_t size : axes) rows *= size;
    for (int64_t o = 0; o < outer; ++o, src += rows * inner_bytes) {
      for (int64_t i = 0; i < n_tuples; ++i, dst += inner_bytes) {
        int64_t row = 0;
        for (int64_t size : axes) {
          const int64_t want = asked[number++];
          int64_t at = want < 0 ? want + size : want;
          if (static_cast<uint64_t>(at) >= static_cast<uint64_t>(size)) [[unlikely]] {
            if (e.faults) e.faults->report({this, want, number - 1, size});
            at = 0;
          }
          row = row * size + at;
        }
        std::memcpy(dst, src + row * inner_bytes, static_cast<size_t>(inner_bytes));
      }
    }
  }
};

}  // namespace

void lower_gather(Lowering& L, const Node& n) {
  const int x = L.in(n, 0), indices = L.in(n, 1);
  const Dims xd = L.dims(x), id = L.dims(indices);
  const auto axis = static_cast<size_t>(normal_axis(L, n, attr_i(n, "axis", 0), L.rank(x)));
  const DType t = L.value(indices).dtype;
  if (t != DType::kInt64 && t != DType::kInt32) L.invalid(n, "indices are not integers");
  if (const auto known = L.ints(indices))
    for (int64_t v : *known)
      if (v < -xd[axis] || v >= xd[axis]) L.invalid(n, "index " + std::to_string(v) + " is outside " + dims_text(xd));
  Dims out(xd.begin(), xd.begin() + static_cast<int64_t>(axis));
  out.insert(out.end(), id.begin(), id.end());
  out.insert(out.end(), xd.begin() + static_cast<int64_t>(axis) + 1, xd.end());
  GatherStep s{1,       xd[axis], static_cast<int64_t>(dtype_size(L.value(x).dtype)), L.value(indices).numel(), t, x,
               indices, -1};
  for (size_t i = 0; i < axis; ++i) s.outer *= xd[i];
  for (size_t i = axis + 1; i < xd.size(); ++i) s.inner_bytes *= xd[i];
  s.y = L.out(n, 0, L.value(x).dtype, out);
  if (xd[axis] == 0 && L.value(s.y).numel() > 0) L.invalid(n, "nothing to gather from");
  L.emit(n, s, {x, indices}, {s.y}, named("gather"));
}

void lower_gather_nd(Lowering& L, const Node& n) {
  const int x = L.in(n, 0), indices = L.in(n, 1);
  const Dims xd = L.dims(x), id = L.dims(indices);
  if (L.value(indices).dtype != DType::kInt64) L.invalid(n, "indices are not int64");
  const int64_t batch = attr_i(n, "batch_dims", 0);
  const auto ranks = static_cast<int64_t>(std::min(xd.size(), id.size()));
  if (batch < 0 || batch >= ranks)
    L.invalid(n, "batch_dims " + std::to_string(batch) + " does not fit " + dims_text(xd) + " and " + dims_text(id));
  const auto b = static_cast<size_t>(batch);
  const int64_t depth = id.back();
  if (depth < 1 || depth > static_cast<int64_t>(xd.size() - b))
    L.invalid(n, "tuples of " + std::to_string(depth) + " indices into " + dims_text(xd));
  GatherNdStep s{1, 1, element_size(L, n, x), {}, x, indices, -1};
  for (size_t i = 0; i < b; ++i) {
    if (xd[i] != id[i]) L.invalid(n, "batches of " + dims_text(xd) + " and " + dims_text(id) + " differ");
    s.outer *= xd[i];
  }
  const size_t behind = b + static_cast<size_t>(depth);
  for (size_t i = b; i + 1 < id.size(); ++i) s.n_tuples *= id[i];
  for (size_t i = behind; i < xd.size(); ++i) s.inner_bytes *= xd[i];
  s.axes.assign(xd.begin() + batch, xd.begin() + static_cast<int64_t>(behind));
  Dims out(id.begin(), id.end() - 1);
  out.insert(out.end(), xd.begin() + static_cast<int64_t>(behind), xd.end());
  s.y = L.out(n, 0, L.value(x).dtype, out);
  if (L.is_empty(s.axes) && L.value(s.y).numel() > 0) L.invalid(n, "nothing to gather from");
  if (const auto known = L.ints(indices))
    for (size_t i = 0; i < known->size(); ++i) {
      const int64_t size = s.axes[i % s.axes.size()], v = (*known)[i];
      if (v < -size || v >= size) L.invalid(n, "index " + std::to_string(v) + " is outside " + dims_text(xd));
    }
  if (L.is_empty(out)) return;
  L.emit(n, s, {x, indices}, {s.y}, named("gather_nd"));
}

}  // namespace secateur
