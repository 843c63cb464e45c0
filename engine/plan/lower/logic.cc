// Equal, Greater, ..., And, Or, Not, Where; ArgMax, ArgMin, TopK.
#include <algorithm>
#include <cmath>

#include "kernels/logic/logic.h"
#include "kernels/order/order.h"
#include "plan/lower/handlers.h"

namespace secateur {
namespace {

struct CompareStep {
  Walk w;
  Relation op;
  DType dtype;
  int a, b, y;
  template <class T>
  void as(const Exec& e) const {
    compare_ref(w, op, static_cast<const T*>(e.ptr[a]), static_cast<const T*>(e.ptr[b]), static_cast<bool*>(e.ptr[y]));
  }
  void run(const Exec& e) const noexcept {
    switch (dtype) {
      case DType::kFloat:
        return as<float>(e);
      case DType::kDouble:
        return as<double>(e);
      case DType::kInt64:
        return as<int64_t>(e);
      case DType::kInt32:
        return as<int32_t>(e);
      case DType::kInt16:
        return as<int16_t>(e);
      case DType::kInt8:
        return as<int8_t>(e);
      case DType::kUInt64:
        return as<uint64_t>(e);
      case DType::kUInt32:
        return as<uint32_t>(e);
      case DType::kUInt16:
        return as<uint16_t>(e);
      default:
        return as<uint8_t>(e);  // uint8, bool
    }
  }
};

struct NotStep {
  int64_t n;
  int x, y;
  void run(const Exec& e) const noexcept {
    const auto* a = static_cast<const uint8_t*>(e.ptr[x]);
    auto* b = static_cast<uint8_t*>(e.ptr[y]);
    for (int64_t i = 0; i < n; ++i) b[i] = a[i] == 0;
  }
};

struct IsNanStep {
  int64_t n;
  bool wide;  // float64
  int x, y;
  void run(const Exec& e) const noexcept {
    auto* out = static_cast<bool*>(e.ptr[y]);
    const auto* a = static_cast<const float*>(e.ptr[x]);
    const auto* b = static_cast<const double*>(e.ptr[x]);
    for (int64_t i = 0; i < n; ++i) out[i] = wide ? std::isnan(b[i]) : std::isnan(a[i]);
  }
};

struct WhereStep {
  Walk w;
  size_t element;
  int c, a, b, y;
  template <class T>
  void as(const Exec& e) const {
    where_ref(w, static_cast<const uint8_t*>(e.ptr[c]), static_cast<const T*>(e.ptr[a]),
              static_cast<const T*>(e.ptr[b]), static_cast<T*>(e.ptr[y]));
  }
  void run(const Exec& e) const noexcept {
    switch (element) {
      case 8:
        return as<uint64_t>(e);
      case 4:
        return as<uint32_t>(e);
      case 2:
        return as<uint16_t>(e);
      default:
        return as<uint8_t>(e);
    }
  }
};

struct ArgStep {
  ArgArgs args;
  int x, y;
  void run(const Exec& e) const noexcept {
    ArgArgs now = args;
    now.x = e.f32(x);
    now.y = static_cast<int64_t*>(e.ptr[y]);
    arg_ref(now);
  }
};

struct TopKStep {
  TopKArgs args;
  int x, values, indices, scratch;
  void run(const Exec& e) const noexcept {
    TopKArgs now = args;
    now.x = e.f32(x);
    now.values = values < 0 ? nullptr : e.f32_out(values);
    now.indices = indices < 0 ? nullptr : static_cast<int64_t*>(e.ptr[indices]);
    now.scratch = static_cast<int64_t*>(e.ptr[scratch]);
    top_k_ref(now);
  }
};

StepInfo named(const char* kernel) {
  StepInfo info;
  info.kernel = kernel;
  return info;
}

// The common shape of the operands, and how to walk each.
Dims spread(Lowering& L, const Node& n, const std::vector<int>& ids, Walk& w) {
  size_t rank = 0;
  for (int id : ids) rank = std::max(rank, L.dims(id).size());
  Dims out(rank, 1);
  for (int id : ids) {
    const Dims& d = L.dims(id);
    for (size_t i = 0; i < d.size(); ++i) {
      int64_t& o = out[rank - d.size() + i];
      if (d[i] != o && d[i] != 1 && o != 1) L.invalid(n, "shapes do not broadcast: " + dims_text(d));
      if (d[i] != 1) o = d[i];
    }
  }
  w.rank = static_cast<int>(rank);
  for (size_t k = 0; k < ids.size(); ++k) {
    const Dims& d = L.dims(ids[k]);
    int64_t run = 1;
    for (size_t i = d.size(); i-- > 0; run *= d[i]) w.stride[k][rank - d.size() + i] = d[i] == 1 ? 0 : run;
  }
  std::copy(out.begin(), out.end(), w.dims);
  return out;
}

void outer_axis_inner(const Dims& d, int64_t axis, int64_t& outer, int64_t& size, int64_t& inner) {
  outer = size = inner = 1;
  for (size_t i = 0; i < d.size(); ++i)
    (static_cast<int64_t>(i) < axis ? outer : static_cast<int64_t>(i) == axis ? size : inner) *= d[i];
}

}  // namespace

void lower_compare(Lowering& L, const Node& n) {
  static const std::pair<const char*, Relation> table[] = {{"Equal", Relation::kEqual},
                                                           {"Greater", Relation::kGreater},
                                                           {"GreaterOrEqual", Relation::kGreaterOrEqual},
                                                           {"Less", Relation::kLess},
                                                           {"LessOrEqual", Relation::kLessOrEqual},
                                                           {"And", Relation::kAnd},
                                                           {"Or", Relation::kOr},
                                                           {"Xor", Relation::kXor}};
  const int a = L.in(n, 0), b = L.in(n, 1);
  CompareStep s{{}, Relation::kEqual, L.value(a).dtype, a, b, -1};
  for (const auto& [name, op] : table)
    if (n.op == name) s.op = op;
  if (s.dtype != L.value(b).dtype)
    L.unsupported(n,
                  std::string("operands have dtypes ") + dtype_name(s.dtype) + " and " + dtype_name(L.value(b).dtype));
  if (dtype_size(s.dtype) == 0 || s.dtype == DType::kFloat16 || s.dtype == DType::kBFloat16)
    L.unsupported(n, std::string("dtype ") + dtype_name(s.dtype) + ", supported: float32, float64, integers, bool");
  if (s.op >= Relation::kAnd && s.dtype != DType::kBool) L.invalid(n, "operands are not bool");
  const Dims out = spread(L, n, {a, b}, s.w);
  s.y = L.out(n, 0, DType::kBool, out);
  L.emit(n, s, {a, b}, {s.y}, named("compare_ref"));
}

void lower_not(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  if (L.value(x).dtype != DType::kBool) L.invalid(n, "the operand is not bool");
  const int y = L.out(n, 0, DType::kBool, L.dims(x));
  L.emit(n, NotStep{L.value(x).numel(), x, y}, {x}, {y}, named("not_ref"));
}

void lower_is_nan(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  const DType t = L.value(x).dtype;
  if (t != DType::kFloat && t != DType::kDouble)
    L.unsupported(n, std::string("dtype ") + dtype_name(t) + ", supported: float32, float64");
  const int y = L.out(n, 0, DType::kBool, L.dims(x));
  L.emit(n, IsNanStep{L.value(x).numel(), t == DType::kDouble, x, y}, {x}, {y}, named("is_nan_ref"));
}

void lower_where(Lowering& L, const Node& n) {
  const int c = L.in(n, 0), a = L.in(n, 1), b = L.in(n, 2);
  if (L.value(c).dtype != DType::kBool) L.invalid(n, "the condition is not bool");
  if (L.value(a).dtype != L.value(b).dtype) L.invalid(n, "the two choices have different dtypes");
  WhereStep s{{}, dtype_size(L.value(a).dtype), c, a, b, -1};
  if (s.element == 0) L.unsupported(n, std::string("dtype ") + dtype_name(L.value(a).dtype));
  const Dims out = spread(L, n, {c, a, b}, s.w);
  s.y = L.out(n, 0, L.value(a).dtype, out);
  L.emit(n, s, {c, a, b}, {s.y}, named("where_ref"));
}

void lower_arg(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0);
  const Dims xd = L.dims(x);
  const int64_t axis = normal_axis(L, n, attr_i(n, "axis", 0), L.rank(x));
  ArgStep s{{}, x, -1};
  outer_axis_inner(xd, axis, s.args.outer, s.args.axis, s.args.inner);
  s.args.smallest = n.op == "ArgMin";
  s.args.last = attr_i(n, "select_last_index", 0) != 0;
  Dims out = xd;
  out[static_cast<size_t>(axis)] = 1;
  if (attr_i(n, "keepdims", 1) == 0) out.erase(out.begin() + axis);
  s.y = L.out(n, 0, DType::kInt64, out);
  if (s.args.axis == 0 && L.value(s.y).numel() > 0) L.invalid(n, "an axis without elements");
  L.emit(n, s, {x}, {s.y}, named("arg_ref"));
}

void lower_top_k(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0);
  const auto ks = L.need_ints(n, 1);
  const Dims xd = L.dims(x);
  const int64_t axis = normal_axis(L, n, attr_i(n, "axis", -1), L.rank(x));
  TopKStep s{{}, x, -1, -1, -1};
  outer_axis_inner(xd, axis, s.args.outer, s.args.axis, s.args.inner);
  if (ks.size() != 1 || ks[0] < 0 || ks[0] > s.args.axis)
    L.invalid(n, "k does not fit an axis of " + std::to_string(s.args.axis));
  s.args.k = ks[0];
  s.args.largest = attr_i(n, "largest", 1) != 0;
  Dims out = xd;
  out[static_cast<size_t>(axis)] = s.args.k;
  s.values = L.out(n, 0, DType::kFloat, out);
  s.indices = L.out(n, 1, DType::kInt64, out);
  s.scratch = L.scratch(static_cast<size_t>(s.args.axis) * 8);
  L.emit(n, s, {x, s.scratch}, {s.values, s.indices, s.scratch}, named("top_k_ref"));
}

}  // namespace secateur
