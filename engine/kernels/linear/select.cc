// The table of linear kernels, their predicted cost and the choice between them.
#include <algorithm>
#include <cstdio>

#include "kernels/linear/rows.h"

namespace secateur {
namespace {

constexpr LinearKernel kTable[] = {
#define SECATEUR_LINEAR(isa, family, name, lanes, registers, pack, run) \
  {#name, Isa::isa, LinearFamily::family, lanes, registers, pack, run},
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

double predict_linear_us(const LinearKernel&, const LinearShape&, int64_t rows, int64_t nnz) {
  return 0.1 + double(rows) * double(nnz) / 1e3;
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
