// Steps that move elements, and what their lowerings share.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "kernels/move/move.h"
#include "plan/lower/handlers.h"

namespace secateur {

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

inline StepInfo named(const char* kernel) {
  StepInfo info;
  info.anywhere = true;
  info.kernel = kernel;
  return info;
}

inline std::vector<int64_t> strides_of(const Dims& dims) {
  std::vector<int64_t> s(dims.size());
  int64_t run = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    s[i] = run;
    run *= dims[i];
  }
  return s;
}

inline int element_size(Lowering& L, const Node& n, int id) {
  const size_t size = dtype_size(L.value(id).dtype);
  if (size == 0) L.unsupported(n, std::string("dtype ") + dtype_name(L.value(id).dtype));
  return static_cast<int>(size);
}

}  // namespace secateur
