// The table of conv kernels, their predicted cost and the choice between them.
#include <algorithm>
#include <cstdio>

#include "kernels/conv/rows.h"
#include "kernels/conv/tiling.h"

namespace secateur {
namespace {

constexpr ConvKernel kTable[] = {
#define SECATEUR_CONV(isa, family, name, lanes, registers, supports, pack, run, task) \
  {#name, Isa::isa, ConvFamily::family, lanes, registers, supports, pack, run, task},
#include "kernels/conv/kernels.inc"
#undef SECATEUR_CONV
};

}  // namespace

int conv_out_h(const ConvShape& s, const Epilogue& e) { return e.pool == Pool2x2::kNone ? s.conv_h() : s.conv_h() / 2; }
int conv_out_w(const ConvShape& s, const Epilogue& e) { return e.pool == Pool2x2::kNone ? s.conv_w() : s.conv_w() / 2; }

std::span<const ConvKernel> conv_kernels() { return kTable; }

const ConvKernel* find_conv_kernel(Isa isa, ConvFamily family) {
  for (const ConvKernel& k : kTable)
    if (k.isa == isa && k.family == family) return &k;
  return nullptr;
}

double predict_conv_us(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e, int64_t nnz) {
  if (kernel.family == ConvFamily::kReference) return double(s.weight_count()) * s.conv_h() * s.conv_w() / 1e3;
  return plan_conv(kernel, s, e, nnz).tiling.cycles / kCyclesPerMicrosecond;
}

ConvChoice choose_conv(Isa isa, const ConvShape& s, const Epilogue& e, int64_t nnz, bool allow_sparse) {
  ConvChoice choice;
  choice.sparse_us = choice.dense_us = -1;
  for (; ; isa = Isa(int(isa) - 1)) {
    for (const ConvKernel& k : kTable) {
      if (k.isa != isa || !k.supports(s, e)) continue;
      if (k.family == ConvFamily::kSparse && !allow_sparse) continue;
      const double us = predict_conv_us(k, s, e, nnz);
      (k.family == ConvFamily::kSparse ? choice.sparse_us : choice.dense_us) = us;
      if (choice.kernel == nullptr || us < choice.predicted_us) {
        choice.kernel = &k;
        choice.predicted_us = us;
      }
    }
    if (choice.kernel != nullptr || isa == Isa::kRef) break;
  }
  char text[160];
  std::snprintf(text, sizeof text, "density %.3g %%: sparse %.3g us, dense %.3g us", 100.0 * double(nnz) / double(s.weight_count()),
                choice.sparse_us, choice.dense_us);
  choice.reason = text;
  return choice;
}

}  // namespace secateur
