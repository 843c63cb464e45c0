// What was put away comes back bit for bit, to the same address; what would not pay stays.
#include "graph/away.h"

#include <cstdio>
#include <cstring>
#include <random>

using namespace secateur;

namespace {

int failures = 0;

void check(bool ok, const char* what) {
  if (ok) return;
  std::printf("FAILED: %s\n", what);
  ++failures;
}

Tensor tensor(int64_t n, double density, uint64_t seed) {
  std::mt19937_64 rng(seed);
  Tensor t;
  t.dims = {n};
  t.data.assign(static_cast<size_t>(n) * 4, 0);
  for (int64_t i = 0; i < n; ++i) {
    if (static_cast<double>(rng() % 1000) >= 1000 * density) continue;
    const auto bits = static_cast<uint32_t>(rng());  // any pattern: NaN, denormal, -0
    std::memcpy(t.data.data() + 4 * i, &bits, 4);
  }
  return t;
}

}  // namespace

int main() {
  const int64_t least = static_cast<int64_t>(Away::kLeast) / 4;
  uint64_t seed = 0;
  for (int64_t n : {least, least + 1, least + 63, least + 1024, 3 * least + 17})
    for (double density : {0.0, 0.001, 0.1, 0.49}) {
      Tensor t = tensor(n, density, ++seed);
      const Tensor before = t;
      const uint8_t* address = t.data.data();
      Away away;
#if defined(__linux__)
      check(away.put(t), "a sparse tensor is taken");
      check(!away.empty(), "and kept");
#else
      away.put(t);
#endif
      away.bring_back();
      check(away.empty(), "nothing is left");
      check(t.data == before.data && t.data.data() == address, "it comes back as it was");
    }
  Away away;
  Tensor small = tensor(least - 1, 0.1, 1), full = tensor(least, 0.9, 2), integers = tensor(least, 0.1, 3);
  integers.dtype = DType::kInt32;
  check(!away.put(small) && !away.put(full) && !away.put(integers) && away.empty(),
        "small, dense and other tensors stay");
  std::printf("away: %d failures\n", failures);
  return failures != 0;
}
