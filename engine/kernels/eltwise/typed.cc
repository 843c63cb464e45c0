#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/eltwise/typed.h"

namespace secateur {

bool make_broadcast(const int64_t* a, int rank_a, const int64_t* b, int rank_b, Broadcast& plan, int64_t* out_dims) {
  const int rank = std::max(rank_a, rank_b);
  int64_t sa[kMaxRank], sb[kMaxRank];
  int64_t run_a = 1, run_b = 1;
  for (int i = rank - 1; i >= 0; --i) {
    const int ia = i - (rank - rank_a), ib = i - (rank - rank_b);
    const int64_t da = ia >= 0 ? a[ia] : 1, db = ib >= 0 ? b[ib] : 1;
    if (da != db && da != 1 && db != 1) return false;
    out_dims[i] = da == 1 ? db : da;
    sa[i] = da == 1 ? 0 : run_a;
    sb[i] = db == 1 ? 0 : run_b;
    run_a *= da;
    run_b *= db;
  }
  // Merge neighbours: [.., i, i+1, ..] is one axis when both operands step through it evenly.
  plan.rank = 0;
  for (int i = 0; i < rank; ++i) {
    if (out_dims[i] == 1) continue;
    const int j = plan.rank - 1;
    if (j >= 0 && plan.stride_a[j] == sa[i] * out_dims[i] && plan.stride_b[j] == sb[i] * out_dims[i]) {
      plan.dims[j] *= out_dims[i];
      plan.stride_a[j] = sa[i];
      plan.stride_b[j] = sb[i];
    } else {
      plan.dims[j + 1] = out_dims[i];
      plan.stride_a[j + 1] = sa[i];
      plan.stride_b[j + 1] = sb[i];
      ++plan.rank;
    }
  }
  return true;
}

namespace {

template <BinaryOp op, class T>
inline T apply(T x, T y) {
  if constexpr (op == BinaryOp::kAdd) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(static_cast<std::make_unsigned_t<T>>(x) + static_cast<std::make_unsigned_t<T>>(y));
    else return x + y;
  } else if constexpr (op == BinaryOp::kSub) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(static_cast<std::make_unsigned_t<T>>(x) - static_cast<std::make_unsigned_t<T>>(y));
    else return x - y;
  } else if constexpr (op == BinaryOp::kMul) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(static_cast<std::make_unsigned_t<T>>(x) * static_cast<std::make_unsigned_t<T>>(y));
    else return x * y;
  } else if constexpr (op == BinaryOp::kDiv) {
    if constexpr (std::is_integral_v<T>) {
      if (y == 0) return 0;
      if (y == -1) return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(x));
      return x / y;
    } else {
      return x / y;
    }
  } else if constexpr (op == BinaryOp::kMin) {
    if constexpr (std::is_floating_point_v<T>)
      if (std::isnan(x) || std::isnan(y)) return x + y;
    return y < x ? y : x;
  } else if constexpr (op == BinaryOp::kMax) {
    if constexpr (std::is_floating_point_v<T>)
      if (std::isnan(x) || std::isnan(y)) return x + y;
    return y > x ? y : x;
  } else {
    return static_cast<T>(std::pow(x, y));
  }
}

template <BinaryOp op, class T>
void inner(const T* a, int64_t sa, const T* b, int64_t sb, T* y, int64_t n) {
  if (sa == 1 && sb == 1) {
    for (int64_t i = 0; i < n; ++i) y[i] = apply<op>(a[i], b[i]);
  } else if (sa == 1 && sb == 0) {
    const T v = *b;
    for (int64_t i = 0; i < n; ++i) y[i] = apply<op>(a[i], v);
  } else if (sa == 0 && sb == 1) {
    const T v = *a;
    for (int64_t i = 0; i < n; ++i) y[i] = apply<op>(v, b[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = apply<op>(a[i * sa], b[i * sb]);
  }
}

template <BinaryOp op, class T>
void walk(const Broadcast& p, const T* a, const T* b, T* y) {
  if (p.rank == 0) return inner<op>(a, 0, b, 0, y, 1);
  const int last = p.rank - 1;
  int64_t index[kMaxRank] = {};
  for (int i = 0; i < p.rank; ++i)
    if (p.dims[i] == 0) return;
  for (;;) {
    inner<op>(a, p.stride_a[last], b, p.stride_b[last], y, p.dims[last]);
    y += p.dims[last];
    int axis = last - 1;
    for (; axis >= 0; --axis) {
      a += p.stride_a[axis];
      b += p.stride_b[axis];
      if (++index[axis] < p.dims[axis]) break;
      a -= p.stride_a[axis] * p.dims[axis];
      b -= p.stride_b[axis] * p.dims[axis];
      index[axis] = 0;
    }
    if (axis < 0) return;
  }
}

template <class T>
void binary(const Broadcast& p, const T* a, const T* b, T* y) {
  switch (p.op) {
    case BinaryOp::kAdd:
      return walk<BinaryOp::kAdd>(p, a, b, y);
    case BinaryOp::kSub:
      return walk<BinaryOp::kSub>(p, a, b, y);
    case BinaryOp::kMul:
      return walk<BinaryOp::kMul>(p, a, b, y);
    case BinaryOp::kDiv:
      return walk<BinaryOp::kDiv>(p, a, b, y);
    case BinaryOp::kMin:
      return walk<BinaryOp::kMin>(p, a, b, y);
    case BinaryOp::kMax:
      return walk<BinaryOp::kMax>(p, a, b, y);
    case BinaryOp::kPow:
      return walk<BinaryOp::kPow>(p, a, b, y);
  }
}

}  // namespace

void binary_f64_ref(const Broadcast& p, const double* a, const double* b, double* y) noexcept { binary(p, a, b, y); }
void binary_i64_ref(const Broadcast& p, const int64_t* a, const int64_t* b, int64_t* y) noexcept { binary(p, a, b, y); }
void binary_i32_ref(const Broadcast& p, const int32_t* a, const int32_t* b, int32_t* y) noexcept { binary(p, a, b, y); }

}  // namespace secateur
