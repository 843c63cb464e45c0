// Operators that move elements: Transpose, Slice, Concat, Split, Expand, Trilu; Pad is in pad.cc, Gather in gather.cc.
#include <algorithm>
#include <cstring>

#include "plan/lower/move_steps.h"

namespace secateur {

void lower_transpose(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  const Dims xd = L.dims(x);
  const auto rank = xd.size();
  Dims reversed(rank);
  for (size_t i = 0; i < rank; ++i) reversed[i] = static_cast<int64_t>(rank - 1 - i);
  const auto perm = attr_is(n, "perm", reversed);
  std::vector<bool> seen(rank, false);
  if (perm.size() != rank) L.invalid(n, "perm does not have " + std::to_string(rank) + " values");
  for (int64_t p : perm) {
    if (p < 0 || p >= static_cast<int64_t>(rank) || seen[static_cast<size_t>(p)])
      L.invalid(n, "perm is not a permutation");
    seen[static_cast<size_t>(p)] = true;
  }
  Dims out(rank);
  Copy c;
  c.element = element_size(L, n, x);
  c.rank = static_cast<int>(rank);
  if (rank > kMaxRank) L.unsupported(n, "rank " + std::to_string(rank) + ", supported: up to 8");
  const auto ss = strides_of(xd);
  for (size_t i = 0; i < rank; ++i) {
    out[i] = xd[static_cast<size_t>(perm[i])];
    c.dims[i] = out[i];
    c.stride_src[i] = ss[static_cast<size_t>(perm[i])];
  }
  const auto sd = strides_of(out);
  std::copy(sd.begin(), sd.end(), c.stride_dst);
  simplify(c);
  // Moving axes of size 1 only changes the shape.
  if (c.rank == 0 || (c.rank == 1 && c.stride_src[0] == 1)) return L.alias(n, 0, x, out);
  const int y = L.out(n, 0, L.value(x).dtype, out);
  L.emit(n, CopyStep{c, x, y}, {x}, {y}, named("copy"));
}

void lower_slice(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  const Dims xd = L.dims(x);
  const int rank = L.rank(x);
  const std::vector<int64_t> starts = L.need_ints(n, 1), ends = L.need_ints(n, 2);
  std::vector<int64_t> axes, steps;
  if (L.has(n, 3)) axes = L.need_ints(n, 3);
  if (L.has(n, 4)) steps = L.need_ints(n, 4);
  if (axes.empty())
    for (size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  if (steps.empty()) steps.assign(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    L.invalid(n, "starts, ends, axes and steps have different lengths");
  Copy c;
  c.element = element_size(L, n, x);
  c.rank = rank;
  const auto ss = strides_of(xd);
  Dims out = xd;
  for (int i = 0; i < rank; ++i) c.stride_src[i] = ss[static_cast<size_t>(i)];
  std::vector<bool> seen(static_cast<size_t>(rank), false);
  bool whole = true;
  for (size_t k = 0; k < starts.size(); ++k) {
    const auto a = static_cast<size_t>(normal_axis(L, n, axes[k], rank));
    if (seen[a]) L.invalid(n, "an axis is named twice");
    seen[a] = true;
    const int64_t d = xd[a], step = steps[k];
    if (step == 0 || step == INT64_MIN) L.invalid(n, "a step of " + std::to_string(step));
    int64_t start = starts[k], end = ends[k];
    if (start < 0) start = start < -d ? (step > 0 ? 0 : -1) : start + d;
    if (end < 0) end = end < -d ? -1 : end + d;
    int64_t count;
    if (step > 0) {
      start = std::clamp<int64_t>(start, 0, d), end = std::clamp<int64_t>(end, 0, d);
      count = end > start ? (end - start - 1) / step + 1 : 0;
    } else {
      start = std::clamp<int64_t>(start, -1, d - 1), end = std::clamp<int64_t>(end, -1, d - 1);
      count = start > end ? (start - end - 1) / -step + 1 : 0;
    }
    out[a] = count;
    whole = whole && count == d && step > 0 && (step == 1 || d <= 1);
    if (count > 0) c.offset_src += start * ss[a];
    // One element needs no stride, and a step may be anything (INT64_MAX) then.
    c.stride_src[a] = count > 1 ? ss[a] * step : 0;
  }
  if (whole) return L.alias(n, 0, x, xd);
  const auto sd = strides_of(out);
  for (int i = 0; i < rank; ++i) {
    c.dims[i] = out[static_cast<size_t>(i)];
    c.stride_dst[i] = sd[static_cast<size_t>(i)];
  }
  simplify(c);
  const int y = L.out(n, 0, L.value(x).dtype, out);
  L.emit(n, CopyStep{c, x, y}, {x}, {y}, named("copy"));
}

void lower_concat(Lowering& L, const Node& n) {
  if (n.inputs.empty()) L.invalid(n, "no inputs");
  const int first = L.in(n, 0);
  const int rank = L.rank(first);
  const int64_t axis = normal_axis(L, n, attr_i(n, "axis", 0), rank);
  Dims out = L.dims(first);
  out[static_cast<size_t>(axis)] = 0;
  for (size_t k = 0; k < n.inputs.size(); ++k) {
    const int x = L.in(n, k);
    if (L.value(x).dtype != L.value(first).dtype) L.invalid(n, "inputs have different dtypes");
    if (L.rank(x) != rank) L.invalid(n, "inputs have different ranks");
    for (int i = 0; i < rank; ++i) {
      const auto u = static_cast<size_t>(i);
      if (i == axis) out[u] += L.dims(x)[u];
      else if (L.dims(x)[u] != out[u])
        L.invalid(n, "shapes " + dims_text(L.dims(first)) + " and " + dims_text(L.dims(x)) + " do not concatenate");
    }
  }
  const int y = L.out(n, 0, L.value(first).dtype, out);
  const auto sd = strides_of(out);
  AssembleStep s{};
  s.y = y;
  s.element = element_size(L, n, first);
  std::vector<int> reads;
  int64_t at = 0;
  for (size_t k = 0; k < n.inputs.size(); ++k) {
    const int x = L.in(n, k);
    const Dims& xd = L.dims(x);
    Copy c;
    c.element = s.element;
    c.rank = rank;
    const auto ss = strides_of(xd);
    for (int i = 0; i < rank; ++i) {
      const auto u = static_cast<size_t>(i);
      c.dims[i] = xd[u], c.stride_src[i] = ss[u], c.stride_dst[i] = sd[u];
    }
    c.offset_dst = at * sd[static_cast<size_t>(axis)];
    at += xd[static_cast<size_t>(axis)];
    simplify(c);
    s.copies.push_back(c);
    s.xs.push_back(x);
    reads.push_back(x);
  }
  L.emit(n, std::move(s), reads, {y}, named("concat"));
}

void lower_split(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  const Dims xd = L.dims(x);
  const int rank = L.rank(x);
  const auto axis = static_cast<size_t>(normal_axis(L, n, attr_i(n, "axis", 0), rank));
  std::vector<int64_t> parts = L.has(n, 1) ? L.need_ints(n, 1) : attr_is(n, "split");
  if (parts.empty()) {
    const auto count = static_cast<int64_t>(n.outputs.size());
    if (count == 0) L.invalid(n, "no outputs");
    const int64_t size = (xd[axis] + count - 1) / count;
    for (int64_t i = 0; i < count; ++i) parts.push_back(std::clamp<int64_t>(xd[axis] - i * size, 0, size));
  }
  if (parts.size() != n.outputs.size())
    L.invalid(n, "the split has " + std::to_string(parts.size()) + " parts for " + std::to_string(n.outputs.size()) +
                     " outputs");
  const auto ss = strides_of(xd);
  int64_t at = 0;
  for (size_t k = 0; k < parts.size(); ++k) {
    if (parts[k] < 0 || parts[k] > xd[axis] - at) L.invalid(n, "the split does not fit " + dims_text(xd));
    Dims out = xd;
    out[axis] = parts[k];
    const auto sd = strides_of(out);
    Copy c;
    c.element = element_size(L, n, x);
    c.rank = rank;
    for (size_t i = 0; i < xd.size(); ++i) c.dims[i] = out[i], c.stride_src[i] = ss[i], c.stride_dst[i] = sd[i];
    c.offset_src = at * ss[axis];
    at += parts[k];
    simplify(c);
    const int y = L.out(n, k, L.value(x).dtype, out);
    L.emit(n, CopyStep{c, x, y}, {x}, {y}, named("copy"));
  }
  if (at != xd[axis]) L.invalid(n, "the split does not cover " + dims_text(xd));
}

void lower_expand(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  const Dims xd = L.dims(x), want = L.need_ints(n, 1);
  const size_t rank = std::max(xd.size(), want.size());
  if (rank > kMaxRank) L.unsupported(n, "rank " + std::to_string(rank) + ", supported: up to 8");
  Dims out(rank);
  Copy c;
  c.element = element_size(L, n, x);
  c.rank = static_cast<int>(rank);
  const auto ss = strides_of(xd);
  for (size_t i = 0; i < rank; ++i) {
    const auto ix = static_cast<int64_t>(i) - static_cast<int64_t>(rank - xd.size());
    const auto iw = static_cast<int64_t>(i) - static_cast<int64_t>(rank - want.size());
    const int64_t a = ix >= 0 ? xd[static_cast<size_t>(ix)] : 1, b = iw >= 0 ? want[static_cast<size_t>(iw)] : 1;
    if (b < 0 || (a != b && a != 1 && b != 1))
      L.invalid(n, "cannot expand " + dims_text(xd) + " to " + dims_text(want));
    out[i] = a == 1 ? b : a;
    c.stride_src[i] = a == 1 ? 0 : ss[static_cast<size_t>(ix)];
  }
  if (out == xd) return L.alias(n, 0, x, out);
  const int y = L.out(n, 0, L.value(x).dtype, out);
  const auto sd = strides_of(out);
  for (size_t i = 0; i < rank; ++i) c.dims[i] = out[i], c.stride_dst[i] = sd[i];
  simplify(c);
  L.emit(n, CopyStep{c, x, y}, {x}, {y}, named("copy"));
}

void lower_tile(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  const Dims xd = L.dims(x), repeats = L.need_ints(n, 1);
  if (repeats.size() != xd.size()) L.invalid(n, std::to_string(repeats.size()) + " repeats for " + dims_text(xd));
  // Every axis twice: which copy, and where in it.
  if (2 * xd.size() > kMaxRank) L.unsupported(n, "rank " + std::to_string(xd.size()) + ", supported: up to 4");
  Dims out(xd.size());
  for (size_t i = 0; i < xd.size(); ++i) {
    if (repeats[i] < 0 || repeats[i] > (int64_t{1} << 31) || xd[i] > (int64_t{1} << 31))
      L.invalid(n, "repeats " + dims_text(repeats));
    out[i] = xd[i] * repeats[i];
  }
  if (out == xd) return L.alias(n, 0, x, xd);
  const int y = L.out(n, 0, L.value(x).dtype, out);
  const auto ss = strides_of(xd), sd = strides_of(out);
  Copy c;
  c.element = element_size(L, n, x);
  c.rank = static_cast<int>(2 * xd.size());
  for (size_t i = 0; i < xd.size(); ++i) {
    c.dims[2 * i] = repeats[i], c.stride_src[2 * i] = 0, c.stride_dst[2 * i] = xd[i] * sd[i];
    c.dims[2 * i + 1] = xd[i], c.stride_src[2 * i + 1] = ss[i], c.stride_dst[2 * i + 1] = sd[i];
  }
  simplify(c);
  L.emit(n, CopyStep{c, x, y}, {x}, {y}, named("copy"));
}

void lower_trilu(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  const Dims xd = L.dims(x);
  if (xd.size() < 2) L.invalid(n, "input " + dims_text(xd) + " is no matrix");
  Triangle t;
  t.element = element_size(L, n, x);
  t.upper = attr_i(n, "upper", 1) != 0;
  if (L.has(n, 1)) {
    const auto k = L.need_ints(n, 1);
    if (k.size() != 1) L.invalid(n, "k is not one number");
    t.k = k[0];
  }
  t.rows = xd[xd.size() - 2], t.cols = xd.back(), t.n = 1;
  for (size_t i = 0; i + 2 < xd.size(); ++i) t.n *= xd[i];
  const int y = L.out(n, 0, L.value(x).dtype, xd);
  L.emit(n, TriangleStep{t, x, y}, {x}, {y}, named("triangle_ref"));
}

}  // namespace secateur
