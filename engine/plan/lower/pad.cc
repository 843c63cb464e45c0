// Pad: one copy into a filled output, or gathers where the edge repeats what is there.
#include <algorithm>
#include <cstring>

#include "plan/lower/move_steps.h"

namespace secateur {
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
