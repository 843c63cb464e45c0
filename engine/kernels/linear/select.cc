// The table of linear kernels, their predicted cost and the choice between them.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "kernels/linear/rows.h"

namespace secateur {
namespace {

constexpr LinearKernel kTable[] = {
#define SECATEUR_LINEAR(isa, family, name, lanes, registers, pack, run, task, many_task) \
  {#name, Isa::isa, LinearFamily::family, lanes, registers, pack, run, task, many_task},
#include "kernels/linear/kernels.inc"
#undef SECATEUR_LINEAR
};

}  // namespace

std::span<const LinearKernel> linear_kernels() { return kTable; }

const LinearKernel* find_linear_kernel(Isa isa, LinearFamily family) {
  for (const LinearKernel& k : kTable)
    if (k.isa == isa && k.family == family) return &k;
  return nullptr;
}

// Cycles measured on a Zen 4 core; one figure of 3.5 GHz for all machines, ratios are what counts.
double predict_linear_us(const LinearKernel& kernel, const LinearShape& s, int64_t rows, int64_t nnz) {
  const double l2 = double(cpu().l2_bytes), width = kernel.vector_lanes / 16.0, fma = kernel.vector_lanes >= 8 ? 1.0 : 2.2;
  double cycles = 0;
  if (kernel.family == LinearFamily::kReference) return 0.05 + double(rows) * s.in * s.out / 1e3;
  if (kernel.family == LinearFamily::kSparse) {
    if (rows < 6) {
      cycles = rows * (1.3 * double(nnz) + 2.5 * s.out + 30);
      cycles = std::max(cycles, nnz * 6.0 > 0.8 * l2 ? nnz * 6.0 / 6.0 : 0.0);
    } else {
      const double tile = 4.0 * kernel.vector_lanes, tiles = std::ceil(rows / tile);
      const double vectors = std::ceil(rows / double(kernel.vector_lanes));
      const double load = s.in * tile * 4 < 0.8 * double(cpu().l1d_bytes) ? 1.13 : s.in * tile * 4 < 0.3 * l2 ? 1.8 : 2.3;
      cycles = double(nnz) * std::max(vectors * load * width * fma, 1.7 * tiles) + tiles * 25.0 * s.out +
               double(rows) * (s.in * 0.7 + s.out * 1.5);
    }
  } else {
    const double weight_bytes = 4.0 * s.in * s.out;
    const double rate = weight_bytes > 16e6 ? 4.0 : weight_bytes > 0.8 * l2 ? 6.5 : weight_bytes > 24e3 ? 28.0 : 60.0;
    const double blocks = std::ceil(rows / 6.0), padded = std::ceil(double(s.out) / kernel.vector_lanes);
    cycles = std::max(double(rows) * s.in * padded * width * 1.08 * fma, weight_bytes / rate * blocks) +
             blocks * padded * 6 + 20;
  }
  return cycles / 3500.0;
}

LinearChoice choose_linear(Isa isa, const LinearShape& s, int64_t rows, int64_t nnz, bool allow_sparse) {
  LinearChoice choice;
  choice.sparse_us = choice.dense_us = -1;
  for (;; isa = Isa(int(isa) - 1)) {
    for (const LinearKernel& k : kTable) {
      if (k.isa != isa || (k.family == LinearFamily::kSparse && !allow_sparse)) continue;
      const double us = predict_linear_us(k, s, rows, nnz);
      (k.family == LinearFamily::kSparse ? choice.sparse_us : choice.dense_us) = us;
      if (choice.kernel == nullptr || us < choice.predicted_us) {
        choice.kernel = &k;
        choice.predicted_us = us;
      }
    }
    if (choice.kernel != nullptr || isa == Isa::kRef) break;
  }
  char text[160];
  std::snprintf(text, sizeof text, "density %.3g %%: sparse %.3g us, dense %.3g us",
                100.0 * double(nnz) / (double(s.in) * s.out), choice.sparse_us, choice.dense_us);
  choice.reason = text;
  return choice;
}

}  // namespace secateur
