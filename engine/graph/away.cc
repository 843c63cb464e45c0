#include "graph/away.h"

#include <algorithm>
#include <bit>
#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace secateur {

bool Away::put(Tensor& t) {
#if defined(__linux__)
  const size_t n = t.data.size() / 4;
  if (t.dtype != DType::kFloat || t.data.size() < kLeast) return false;
  const auto word = [&](size_t i) {
    uint32_t w;
    std::memcpy(&w, t.data.data() + 4 * i, 4);
    return w;
  };
  size_t nnz = 0;
  for (size_t i = 0; i < n; ++i) nnz += word(i) << 1 != 0;
  if (nnz > n / 2) return false;
  Taken taken{&t, std::vector<uint64_t>((n + 63) / 64, 0), {}};
  taken.values.reserve(nnz);
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto data = reinterpret_cast<uintptr_t>(t.data.data());
  uintptr_t gone = (data + page - 1) / page * page;
  constexpr size_t kBlock = kLeast / 4;  // pages go as they are taken, so that a large tensor is never here twice
  for (size_t first = 0; first < n; first += kBlock) {
    const size_t last = std::min(n, first + kBlock);
    for (size_t i = first; i < last; ++i) {
      const uint32_t w = word(i);
      if (w << 1 == 0) continue;
      taken.mask[i / 64] |= uint64_t{1} << (i % 64);
      taken.values.push_back(w);
    }
    const uintptr_t end = (data + 4 * last) / page * page;
    if (gone < end) madvise(reinterpret_cast<void*>(gone), end - gone, MADV_DONTNEED);
    gone = std::max(gone, end);
  }
  taken_.push_back(std::move(taken));
  return true;
#else
  (void)t;
  return false;
#endif
}

void Away::bring_back() {
  for (const Taken& taken : taken_) {
    uint8_t* data = taken.tensor->data.data();
    const uint32_t* value = taken.values.data();
    std::memset(data, 0, taken.tensor->data.size());
    for (size_t k = 0; k < taken.mask.size(); ++k)
      for (uint64_t left = taken.mask[k]; left != 0; left &= left - 1)
        std::memcpy(data + 4 * (64 * k + static_cast<size_t>(std::countr_zero(left))), value++, 4);
  }
  taken_.clear();
}

}  // namespace secateur
