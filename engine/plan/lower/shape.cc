// Operators that only rename or compute shapes: Constant, Shape, Reshape, Flatten, Squeeze, Unsqueeze, Identity, Range.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "plan/lower/handlers.h"

namespace secateur {

int64_t normal_axis(const Lowering& L, const Node& n, int64_t axis, int rank) {
  if (axis < -rank || axis >= rank)
    L.invalid(n, "axis " + std::to_string(axis) + " does not exist in rank " + std::to_string(rank));
  return axis < 0 ? axis + rank : axis;
}

void lower_constant(Lowering& L, const Node& n) {
  if (const Attribute* a = find_attr(n, "value")) {
    const auto* t = std::get_if<std::shared_ptr<Tensor>>(&a->value);
    if (!t || !*t) L.invalid(n, "attribute 'value' is not a tensor");
    L.constant(n, 0, (*t)->dtype, (*t)->dims, (*t)->data.data());
    return;
  }
  if (has_attr(n, "value_float")) {
    const float v = attr_f(n, "value_float", 0);
    L.constant(n, 0, DType::kFloat, {}, &v);
    return;
  }
  if (has_attr(n, "value_int")) {
    const int64_t v = attr_i(n, "value_int", 0);
    L.constant(n, 0, DType::kInt64, {}, &v);
    return;
  }
  if (const Attribute* a = find_attr(n, "value_floats")) {
    if (const auto* v = std::get_if<std::vector<float>>(&a->value)) {
      L.constant(n, 0, DType::kFloat, {static_cast<int64_t>(v->size())}, v->data());
      return;
    }
  }
  if (has_attr(n, "value_ints")) {
    const auto v = attr_is(n, "value_ints");
    L.constant(n, 0, DType::kInt64, {static_cast<int64_t>(v.size())}, v.data());
    return;
  }
  L.unsupported(n, "a constant that is not a tensor, float or integer");
}

void lower_constant_of_shape(Lowering& L, const Node& n) {
  const auto dims = L.need_ints(n, 0);
  DType dtype = DType::kFloat;
  uint8_t value[8] = {};
  if (const Attribute* a = find_attr(n, "value")) {
    const auto* t = std::get_if<std::shared_ptr<Tensor>>(&a->value);
    if (!t || !*t || (*t)->numel() != 1) L.invalid(n, "attribute 'value' is not a tensor of one element");
    dtype = (*t)->dtype;
    std::memcpy(value, (*t)->data.data(), (*t)->data.size());
  }
  const int id = L.out(n, 0, dtype, dims);
  auto* out = static_cast<uint8_t*>(L.pointers()[id]);
  const size_t size = dtype_size(dtype);
  if (!out) L.unsupported(n, "the shape is not constant");
  for (int64_t i = 0; i < L.value(id).numel(); ++i) std::memcpy(out + static_cast<size_t>(i) * size, value, size);
}

void lower_shape(Lowering& L, const Node& n) {
  const Dims& dims = L.dims(L.in(n, 0));
  const auto rank = static_cast<int64_t>(dims.size());
  int64_t start = attr_i(n, "start", 0), end = attr_i(n, "end", rank);
  if (start < 0) start += rank;
  if (end < 0) end += rank;
  start = std::clamp<int64_t>(start, 0, rank);
  end = std::clamp<int64_t>(end, start, rank);
  const Dims part(dims.begin() + start, dims.begin() + end);
  L.constant(n, 0, DType::kInt64, {end - start}, part.data());
}

void lower_size(Lowering& L, const Node& n) {
  const int64_t count = L.value(L.in(n, 0)).numel();
  L.constant(n, 0, DType::kInt64, {}, &count);
}

void lower_identity(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  if (n.op == "Dropout") {
    if (const int mode = L.in_or(n, 2); mode >= 0) {
      const Value& v = L.value(mode);
      if (!v.constant || v.dtype != DType::kBool || v.numel() != 1 || v.constant[0])
        L.unsupported(n, "training_mode must be constant false");
    }
    if (n.outputs.size() > 1 && !n.outputs[1].empty()) L.unsupported(n, "the mask output");
  }
  L.alias(n, 0, x, L.dims(x));
}

void lower_reshape(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  Dims shape = L.need_ints(n, 1);
  const bool allow_zero = attr_i(n, "allowzero", 0) != 0;
  // What a 0 copies stays out of both counts, so that an axis without elements leaves -1 its meaning.
  int64_t known = 1, rest = 1;
  int wildcard = -1;
  for (size_t i = 0; i < L.dims(x).size(); ++i)
    if (allow_zero || i >= shape.size() || shape[i] != 0) rest *= L.dims(x)[i];
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == -1) {
      if (wildcard >= 0) L.invalid(n, "the shape has two -1");
      wildcard = static_cast<int>(i);
      continue;
    }
    if (shape[i] == 0 && !allow_zero) {
      if (i >= L.dims(x).size()) L.invalid(n, "0 in the shape copies an axis that does not exist");
      shape[i] = L.dims(x)[i];
      continue;
    }
    if (shape[i] < 0) L.invalid(n, "shape " + dims_text(shape) + " has a negative dimension");
    if (shape[i] != 0 && known > (int64_t{1} << 40) / shape[i])
      L.invalid(n, "shape " + dims_text(shape) + " is too large");
    known *= shape[i];
  }
  if (wildcard >= 0) {
    if (known == 0 || rest % known) L.invalid(n, "cannot view " + dims_text(L.dims(x)) + " as " + dims_text(shape));
    shape[static_cast<size_t>(wildcard)] = rest / known;
  }
  L.alias(n, 0, x, shape);
}

void lower_flatten(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  const int rank = L.rank(x);
  int64_t axis = attr_i(n, "axis", 1);
  if (axis < -rank || axis > rank) L.invalid(n, "axis " + std::to_string(axis) + " does not exist");
  if (axis < 0) axis += rank;
  int64_t a = 1, b = 1;
  for (int i = 0; i < rank; ++i) (i < axis ? a : b) *= L.dims(x)[static_cast<size_t>(i)];
  if (const int64_t spatial = n.post.spatial; spatial != 0 && (rank < 2 || b != L.dims(x)[1] * spatial))
    L.unsupported(n, "this Reshape of " + dims_text(L.dims(x)) + " mixes images");
  L.alias(n, 0, x, {a, b});
}

namespace {

std::vector<int64_t> axes_of(Lowering& L, const Node& n, bool& given) {
  given = true;
  if (L.has(n, 1)) return L.need_ints(n, 1);
  if (has_attr(n, "axes")) return attr_is(n, "axes");
  given = false;
  return {};
}

}  // namespace

void lower_squeeze(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  const Dims& dims = L.dims(x);
  bool given;
  const auto axes = axes_of(L, n, given);
  std::vector<bool> drop(dims.size(), false);
  if (!given) {
    for (size_t i = 0; i < dims.size(); ++i) drop[i] = dims[i] == 1;
  } else {
    for (int64_t a : axes) drop[static_cast<size_t>(normal_axis(L, n, a, L.rank(x)))] = true;
  }
  Dims out;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (!drop[i]) out.push_back(dims[i]);
    else if (dims[i] != 1) L.invalid(n, "axis " + std::to_string(i) + " of " + dims_text(dims) + " is not 1");
  }
  L.alias(n, 0, x, out);
}

void lower_unsqueeze(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  bool given;
  const auto axes = axes_of(L, n, given);
  if (!given) L.invalid(n, "axes are missing");
  const int rank = L.rank(x) + static_cast<int>(axes.size());
  if (rank > 8) L.unsupported(n, "rank " + std::to_string(rank) + ", supported: up to 8");
  std::vector<bool> added(static_cast<size_t>(rank), false);
  for (int64_t a : axes) {
    const auto i = static_cast<size_t>(normal_axis(L, n, a, rank));
    if (added[i]) L.invalid(n, "an axis is named twice");
    added[i] = true;
  }
  Dims out;
  size_t next = 0;
  const Dims dims = L.dims(x);
  for (size_t i = 0; i < static_cast<size_t>(rank); ++i) out.push_back(added[i] ? 1 : dims[next++]);
  L.alias(n, 0, x, out);
}

void lower_range(Lowering& L, const Node& n) {
  const DType t = L.value(L.in(n, 0)).dtype;
  const auto start = L.numbers(L.in(n, 0)), limit = L.numbers(L.in(n, 1)), delta = L.numbers(L.in(n, 2));
  if (!start || !limit || !delta || start->size() != 1 || limit->size() != 1 || delta->size() != 1)
    L.unsupported(n, "start, limit and delta must be constant scalars");
  if ((*delta)[0] == 0) L.invalid(n, "delta is zero");
  const double count = std::max(0.0, std::ceil(((*limit)[0] - (*start)[0]) / (*delta)[0]));
  L.check_size(n, {}, count);
  if (!(count < 1e8)) L.unsupported(n, "a range of " + std::to_string(count) + " values");
  const auto m = static_cast<size_t>(count);
  if (t == DType::kFloat) {
    std::vector<float> v(m);
    for (size_t i = 0; i < m; ++i) v[i] = static_cast<float>((*start)[0] + static_cast<double>(i) * (*delta)[0]);
    L.constant(n, 0, t, {static_cast<int64_t>(m)}, v.data());
    return;
  }
  if (t != DType::kInt64 && t != DType::kInt32) L.unsupported(n, "dtype, supported: float32, int32, int64");
  if (L.value(L.in(n, 2)).dtype != t || L.value(L.in(n, 1)).dtype != t)
    L.invalid(n, "start, limit and delta have different dtypes");
  std::vector<int64_t> v(m);
  std::vector<int32_t> w(m);
  const auto first = static_cast<uint64_t>((*L.ints(L.in(n, 0)))[0]),
             step = static_cast<uint64_t>((*L.ints(L.in(n, 2)))[0]);
  for (size_t i = 0; i < m; ++i) {
    v[i] = static_cast<int64_t>(first + i * step);
    w[i] = static_cast<int32_t>(v[i]);
  }
  L.constant(n, 0, t, {static_cast<int64_t>(m)}, t == DType::kInt64 ? static_cast<const void*>(v.data()) : w.data());
}

}  // namespace secateur
