// Operators that move elements: Transpose, Slice, Concat, Split, Expand, Trilu, Gather, Pad.
#include <algorithm>
#include <cstring>

#include "kernels/move/move.h"
#include "plan/lower/handlers.h"

namespace secateur {
namespace {

struct CopyStep {
  Copy c;
  int x, y;
  void run(const Exec& e) const noexcept { copy_ref(c, e.ptr[x], e.ptr[y]); }
};

// Several copies into one output (Concat) after an optional fill (Pad).
struct AssembleStep {
  std::vector<Copy> copies;
  std::vector<int> xs;
  int y;
  bool fill;
  int64_t n;
  int element;
  uint8_t value[8];
  void run(const Exec& e) const noexcept {
    if (fill) fill_ref(e.ptr[y], n, value, element);
    for (size_t i = 0; i < copies.size(); ++i) copy_ref(copies[i], e.ptr[xs[i]], e.ptr[y]);
  }
};

struct TriangleStep {
  Triangle t;
  int x, y;
  void run(const Exec& e) const noexcept { triangle_ref(t, e.ptr[x], e.ptr[y]); }
};

struct GatherStep {
  int64_t outer, axis, inner_bytes, n_indices;
  DType index_type;
  int x, indices, y;
  void run(const Exec& e) const noexcept {
    const auto* src = static_cast<const uint8_t*>(e.ptr[x]);
    auto* dst = static_cast<uint8_t*>(e.ptr[y]);
    for (int64_t o = 0; o < outer; ++o) {
      for (int64_t i = 0; i < n_indices; ++i, dst += inner_bytes) {
        int64_t at = index_type == DType::kInt64 ? static_cast<const int64_t*>(e.ptr[indices])[i]
                                                 : static_cast<const int32_t*>(e.ptr[indices])[i];
        const int64_t asked = at;
        if (at < 0) at += axis;
        if (static_cast<uint64_t>(at) >= static_cast<uint64_t>(axis)) [[unlikely]] {
          if (e.faults) e.faults->report({this, asked, i, axis});
          at = 0;
        }
        std::memcpy(dst, src + (o * axis + at) * inner_bytes, static_cast<size_t>(inner_bytes));
      }
    }
  }
};

StepInfo named(const char* kernel) {
  StepInfo info;
  info.kernel = kernel;
  return info;
}

std::vector<int64_t> strides_of(const Dims& dims) {
  std::vector<int64_t> s(dims.size());
  int64_t run = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    s[i] = run;
    run *= dims[i];
  }
  return s;
}

int element_size(Lowering& L, const Node& n, int id) {
  const size_t size = dtype_size(L.value(id).dtype);
  if (size == 0) L.unsupported(n, std::string("dtype ") + dtype_name(L.value(id).dtype));
  return static_cast<int>(size);
}

}  // namespace

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

namespace {

// Pad that repeats what is there: along each axis a gather of the source's rows.
void pad_by_index(Lowering& L, const Node& n, int x, const std::string& mode, const std::vector<int64_t>& begin,
                  const Dims& out) {
  Dims now = L.dims(x);
  if (L.is_empty(out)) {
    L.out(n, 0, L.value(x).dtype, out);
    return;
  }
  if (L.is_empty(now)) L.invalid(n, "input " + dims_text(now) + " has nothing to repeat");
  L.check_size(n, out);
  std::vector<size_t> todo;
  for (size_t a = now.size(); a-- > 0;)
    if (out[a] != now[a] || begin[a] != 0) todo.push_back(a);
  for (size_t a : todo) {
    if (out[a] > (int64_t{1} << 24)) L.unsupported(n, "an axis of " + std::to_string(out[a]));
    const int64_t size = now[a], period = std::max<int64_t>(1, 2 * (size - 1));
    std::vector<int64_t> from(static_cast<size_t>(out[a]));
    for (int64_t j = 0; j < out[a]; ++j) {
      int64_t at = j - begin[a];
      if (mode == "edge") at = std::clamp<int64_t>(at, 0, size - 1);
      else if (mode == "wrap") at = (at % size + size) % size;
      else if (at = (at % period + period) % period; at >= size) at = period - at;
      from[static_cast<size_t>(j)] = at;
    }
    const Node anonymous;
    const int indices = L.constant(anonymous, 0, DType::kInt64, {out[a]}, from.data());
    GatherStep s{1, size, static_cast<int64_t>(dtype_size(L.value(x).dtype)), out[a], DType::kInt64, x, indices, -1};
    for (size_t i = 0; i < a; ++i) s.outer *= now[i];
    for (size_t i = a + 1; i < now.size(); ++i) s.inner_bytes *= now[i];
    now[a] = out[a];
    s.y = a == todo.back() ? L.out(n, 0, L.value(x).dtype, now) : L.temp(L.value(x).dtype, now);
    L.emit(n, s, {x, indices}, {s.y}, named("gather"));
    x = s.y;
  }
}

}  // namespace

void lower_pad(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  const Dims xd = L.dims(x);
  const int rank = L.rank(x);
  const std::string mode = attr_s(n, "mode", "constant");
  if (mode != "constant" && mode != "edge" && mode != "reflect" && mode != "wrap")
    L.invalid(n, "mode '" + mode + "' is not known");
  const auto given = L.need_ints(n, 1);
  std::vector<int64_t> axes;
  if (L.has(n, 3)) axes = L.need_ints(n, 3);
  else
    for (int i = 0; i < rank; ++i) axes.push_back(i);
  if (given.size() != 2 * axes.size())
    L.invalid(n, "pads has " + std::to_string(given.size()) + " values, expected " + std::to_string(2 * axes.size()));
  AssembleStep s{};
  s.element = element_size(L, n, x);
  if (const int v = L.has(n, 2) ? L.in(n, 2) : -1; v >= 0) {
    if (!L.value(v).constant || L.value(v).numel() != 1 || L.value(v).dtype != L.value(x).dtype)
      L.unsupported(n, "the value must be a constant scalar of the input's dtype");
    std::memcpy(s.value, L.value(v).constant, static_cast<size_t>(s.element));
  }
  std::vector<int64_t> begin(xd.size(), 0), end(xd.size(), 0);
  constexpr int64_t kMax = int64_t{1} << 31;
  for (size_t k = 0; k < axes.size(); ++k) {
    const auto a = static_cast<size_t>(normal_axis(L, n, axes[k], rank));
    if (given[k] > kMax || given[k] < -kMax || given[k + axes.size()] > kMax || given[k + axes.size()] < -kMax)
      L.invalid(n, "a padding is out of range");
    begin[a] = given[k];
    end[a] = given[k + axes.size()];
  }
  Dims out = xd;
  Copy c;
  c.element = s.element;
  c.rank = rank;
  const auto ss = strides_of(xd);
  bool grows = false, same = true;
  for (size_t i = 0; i < xd.size(); ++i) {
    out[i] = xd[i] + begin[i] + end[i];
    if (out[i] < 0) L.invalid(n, "padding removes more than there is");
    grows = grows || begin[i] > 0 || end[i] > 0;
    same = same && begin[i] == 0 && end[i] == 0;
  }
  if (same) return L.alias(n, 0, x, xd);
  if (mode != "constant") return pad_by_index(L, n, x, mode, begin, out);
  s.y = L.out(n, 0, L.value(x).dtype, out);
  const auto sd = strides_of(out);
  for (size_t i = 0; i < xd.size(); ++i) {
    // Negative padding crops.
    const int64_t crop_begin = std::max<int64_t>(0, -begin[i]), crop_end = std::max<int64_t>(0, -end[i]);
    c.dims[i] = std::max<int64_t>(0, xd[i] - crop_begin - crop_end);
    c.stride_src[i] = ss[i];
    c.stride_dst[i] = sd[i];
    c.offset_src += crop_begin * ss[i];
    c.offset_dst += std::max<int64_t>(0, begin[i]) * sd[i];
  }
  simplify(c);
  s.fill = grows;
  s.n = L.value(s.y).numel();
  bool any = true;
  for (int i = 0; i < c.rank; ++i) any = any && c.dims[i] > 0;
  if (any) {
    s.copies.push_back(c);
    s.xs.push_back(x);
  }
  const int y = s.y;
  L.emit(n, std::move(s), {x}, {y}, named("pad"));
}

}  // namespace secateur
