// Comparisons, logic and selection with NumPy broadcasting, for any element type; plain loops.
//   compare: y[i] = a[i] op b[i], y bool      logical: the same of bool operands      where: y[i] = c[i] ? a[i] : b[i]
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/eltwise/typed.h"

namespace secateur {

enum class Relation : int32_t { kEqual, kGreater, kGreaterOrEqual, kLess, kLessOrEqual, kAnd, kOr, kXor };

// y is contiguous [dims]; stride[o] walks operand o in elements, 0 repeats.
struct Walk {
  int rank = 0;
  int64_t dims[kMaxRank] = {};
  int64_t stride[3][kMaxRank] = {};
};

// f(offset of operand 0, 1, 2) for every index in dims, in order.
template <class F>
void walk(const Walk& w, F f) {
  int64_t index[kMaxRank] = {}, at[3] = {0, 0, 0}, total = 1;
  for (int i = 0; i < w.rank; ++i) total *= w.dims[i];
  for (int64_t k = 0; k < total; ++k) {
    f(at[0], at[1], at[2]);
    for (int i = w.rank - 1; i >= 0; --i) {
      for (int o = 0; o < 3; ++o) at[o] += w.stride[o][i];
      if (++index[i] < w.dims[i]) break;
      for (int o = 0; o < 3; ++o) at[o] -= w.stride[o][i] * w.dims[i];
      index[i] = 0;
    }
  }
}

template <class T>
void compare_ref(const Walk& w, Relation op, const T* a, const T* b, bool* y) {
  const auto each = [&](auto f) { walk(w, [&](int64_t i, int64_t j, int64_t) { *y++ = f(a[i], b[j]); }); };
  switch (op) {
    case Relation::kEqual:
      return each([](T p, T q) { return p == q; });
    case Relation::kGreater:
      return each([](T p, T q) { return p > q; });
    case Relation::kGreaterOrEqual:
      return each([](T p, T q) { return p >= q; });
    case Relation::kLess:
      return each([](T p, T q) { return p < q; });
    case Relation::kLessOrEqual:
      return each([](T p, T q) { return p <= q; });
    case Relation::kAnd:
      return each([](T p, T q) { return p != T(0) && q != T(0); });
    case Relation::kOr:
      return each([](T p, T q) { return p != T(0) || q != T(0); });
    case Relation::kXor:
      return each([](T p, T q) { return (p != T(0)) != (q != T(0)); });
  }
}

// Elements of T's size, whatever they mean. Operands: condition (a caller's bytes: not zero is true), a, b.
template <class T>
void where_ref(const Walk& w, const uint8_t* c, const T* a, const T* b, T* y) {
  walk(w, [&](int64_t i, int64_t j, int64_t k) { *y++ = c[i] != 0 ? a[j] : b[k]; });
}

}  // namespace secateur
