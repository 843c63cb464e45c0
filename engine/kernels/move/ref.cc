#include <algorithm>
#include <cstring>

#include "kernels/move/move.h"

namespace secateur {

void simplify(Copy& c) {
  int out = 0;
  for (int i = 0; i < c.rank; ++i) {
    if (c.dims[i] == 1) continue;
    const int j = out - 1;
    if (j >= 0 && c.stride_src[j] == c.stride_src[i] * c.dims[i] && c.stride_dst[j] == c.stride_dst[i] * c.dims[i]) {
      c.dims[j] *= c.dims[i];
      c.stride_src[j] = c.stride_src[i];
      c.stride_dst[j] = c.stride_dst[i];
    } else {
      c.dims[out] = c.dims[i];
      c.stride_src[out] = c.stride_src[i];
      c.stride_dst[out] = c.stride_dst[i];
      ++out;
    }
  }
  c.rank = out;
}

namespace {

template <class T>
void copy(const Copy& c, const T* src, T* dst) {
  src += c.offset_src;
  dst += c.offset_dst;
  for (int i = 0; i < c.rank; ++i)
    if (c.dims[i] == 0) return;
  if (c.rank == 0) {
    *dst = *src;
    return;
  }
  const int last = c.rank - 1;
  const int64_t n = c.dims[last], ss = c.stride_src[last], sd = c.stride_dst[last];
  int64_t index[kMaxRank] = {};
  for (;;) {
    if (ss == 1 && sd == 1) {
      std::memcpy(dst, src, static_cast<size_t>(n) * sizeof(T));
    } else if (sd == 1 && ss == 2) {
      for (int64_t i = 0; i < n; ++i) dst[i] = src[2 * i];
    } else {
      for (int64_t i = 0; i < n; ++i) dst[i * sd] = src[i * ss];
    }
    int axis = last - 1;
    for (; axis >= 0; --axis) {
      src += c.stride_src[axis];
      dst += c.stride_dst[axis];
      if (++index[axis] < c.dims[axis]) break;
      src -= c.stride_src[axis] * c.dims[axis];
      dst -= c.stride_dst[axis] * c.dims[axis];
      index[axis] = 0;
    }
    if (axis < 0) return;
  }
}

template <class T>
void fill(void* dst, int64_t n, const void* value) {
  T v;
  std::memcpy(&v, value, sizeof(T));
  T* d = static_cast<T*>(dst);
  for (int64_t i = 0; i < n; ++i) d[i] = v;
}

}  // namespace

void copy_ref(const Copy& c, const void* src, void* dst) noexcept {
  switch (c.element) {
    case 1:
      return copy(c, static_cast<const uint8_t*>(src), static_cast<uint8_t*>(dst));
    case 2:
      return copy(c, static_cast<const uint16_t*>(src), static_cast<uint16_t*>(dst));
    case 4:
      return copy(c, static_cast<const uint32_t*>(src), static_cast<uint32_t*>(dst));
    default:
      return copy(c, static_cast<const uint64_t*>(src), static_cast<uint64_t*>(dst));
  }
}

void fill_ref(void* dst, int64_t n, const void* value, int element) noexcept {
  switch (element) {
    case 1:
      return fill<uint8_t>(dst, n, value);
    case 2:
      return fill<uint16_t>(dst, n, value);
    case 4:
      return fill<uint32_t>(dst, n, value);
    default:
      return fill<uint64_t>(dst, n, value);
  }
}

void triangle_ref(const Triangle& t, const void* src, void* dst) noexcept {
  const auto* x = static_cast<const uint8_t*>(src);
  auto* y = static_cast<uint8_t*>(dst);
  const auto bytes = [&](int64_t n) { return static_cast<size_t>(n) * static_cast<size_t>(t.element); };
  for (int64_t r = 0; r < t.n * t.rows; ++r, x += bytes(t.cols), y += bytes(t.cols)) {
    const int64_t row = r % t.rows;
    // Kept: [first, last) of the row. k is not larger than a matrix, so row + k + 1 does not overflow.
    const int64_t k = std::clamp<int64_t>(t.k, -t.rows - 1, t.cols + 1);
    const int64_t first = t.upper ? std::clamp<int64_t>(row + k, 0, t.cols) : 0;
    const int64_t last = t.upper ? t.cols : std::clamp<int64_t>(row + k + 1, 0, t.cols);
    std::memset(y, 0, bytes(first));
    std::memcpy(y + bytes(first), x + bytes(first), bytes(last - first));
    std::memset(y + bytes(last), 0, bytes(t.cols - last));
  }
}

}  // namespace secateur
