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
  // Narrower vectors of the same machine may win on maps of a few pixels; baseline code only where nothing else can.
  for (Isa level : {isa, isa > Isa::kAvx2 ? Isa::kAvx2 : isa, Isa::kPortable, Isa::kRef}) {
    if (level > isa || (level < Isa::kAvx2 && choice.kernel != nullptr)) break;
    for (const ConvKernel& k : kTable) {
      if (k.isa != level || !isa_available(level) || !k.supports(s, e)) continue;
      const bool sparse = k.family == ConvFamily::kSparse;
      if (sparse && !allow_sparse && s.groups == 1) continue;
      const double us = predict_conv_us(k, s, e, nnz);
      if (us < 0) continue;
      double& best = sparse ? choice.sparse_us : choice.dense_us;
      if (best < 0 || us < best) best = us;
      // Ties within the model's error go to what is listed first, the widest: 15 %.
      if (choice.kernel == nullptr || us < choice.predicted_us * (k.isa == choice.kernel->isa ? 1.0 : 0.85)) {
        choice.kernel = &k;
        choice.predicted_us = us;
      }
    }
  }
  char text[160];
  const double density = s.weight_count() ? 100.0 * double(nnz) / double(s.weight_count()) : 0.0;
  if (choice.sparse_us < 0 || choice.dense_us < 0) {
    std::snprintf(text, sizeof text, "density %.3g %%: %.3g us, the only way", density, choice.predicted_us);
  } else {
    std::snprintf(text, sizeof text, "density %.3g %%: sparse %.3g us, dense %.3g us", density, choice.sparse_us,
                  choice.dense_us);
  }
  choice.reason = text;
  return choice;
}

}  // namespace secateur
