// The table of int8 convolution kernels, their predicted cost and the choice between them.
#include <cstdio>

#include "kernels/qconv/rows.h"
#include "kernels/qconv/tiling.h"

namespace secateur {
namespace {

constexpr QConvKernel kTable[] = {
#define SECATEUR_QCONV(level, family, name, lanes, max_block, weight_words, supports, pack, run, task) \
  {#name, level::kIsa, QConvFamily::family, lanes, max_block, weight_words, supports, pack, run, level::task},
#include "kernels/qconv/kernels.inc"
#undef SECATEUR_QCONV
};

}  // namespace

std::span<const QConvKernel> qconv_kernels() { return kTable; }

const QConvKernel* find_qconv_kernel(Isa isa, QConvFamily family) {
  for (const QConvKernel& k : kTable)
    if (k.isa == isa && k.family == family) return &k;
  return nullptr;
}

double predict_qconv_us(const QConvKernel& kernel, const ConvShape& s, const QEpilogue& e, const QDensity& d) {
  if (kernel.family == QConvFamily::kReference) return double(s.weight_count()) * s.conv_h() * s.conv_w() / 1e3;
  if (kernel.family == QConvFamily::kDepthwise)
    return qconv_depthwise_cycles(kernel, s, d.wide) / kQCyclesPerMicrosecond;
  if (kernel.family == QConvFamily::kRow) return qconv_row_cycles(kernel, s, d) / kQCyclesPerMicrosecond;
  return plan_qconv(kernel, s, e, d).cycles / kQCyclesPerMicrosecond;
}

std::vector<QConvCandidate> qconv_candidates(Isa isa, const ConvShape& s, const QEpilogue& e, const QDensity& d,
                                             bool allow_sparse, int tilings) {
  if (!d.bounded || !qconv_sparse_supports(s, e)) isa = Isa::kRef;
  const bool can_dense = qconv_dense_supports(s, e);
  return offers(isa, qconv_kernels(), [&](const QConvKernel& k, std::vector<QConvCandidate>& ways) {
    const bool sparse = k.family == QConvFamily::kSparse || in_pairs(k.family) || of_four(k.family);
    // The dense kernel has no room for a weight of several bytes; 4x4 blocks are as dense as it.
    const bool dense = k.family == QConvFamily::kDense;
    if (!k.supports(s, e) || (dense && d.wide && k.weight_words == 1)) return;
    if (sparse && !allow_sparse && can_dense && !(d.wide && of_four(k.family))) return;
    if (k.family == QConvFamily::kReference || k.family == QConvFamily::kDepthwise || k.family == QConvFamily::kRow)
      return ways.push_back({&k, {}, predict_qconv_us(k, s, e, d)});
    for (const QTiling& t : qconv_tilings(k, s, e, d, tilings))
      ways.push_back({&k, tile_of(t), t.cycles / kQCyclesPerMicrosecond});
  });
}

std::string qconv_reason(const std::vector<QConvCandidate>& ways, const ConvShape& s, const QDensity& d) {
  if (!d.bounded) return "a scale is so large that sums may leave int32: the reference";
  if (!qconv_sparse_supports(s, {})) return "a window of so many values: the reference";
  char text[120];
  std::snprintf(text, sizeof text, "density %.3g %%, 1x4 blocks %.3g %% of all, %.3g %% filled", 100 * d.density(),
                d.blocks ? 100.0 * double(d.filled) / double(d.blocks) : 0.0, 100 * d.fill());
  return reason<QConvKernel, QConvFamily>(ways, text,
                                          {{QConvFamily::kSparse, "1x4"},
                                           {QConvFamily::kPairs, "1x4 pairs"},
                                           {QConvFamily::kQuads, "4x4"},
                                           {QConvFamily::kQuadPairs, "4x4 pairs"},
                                           {QConvFamily::kDense, "dense"},
                                           {QConvFamily::kDepthwise, "depthwise"},
                                           {QConvFamily::kRow, "16x4 row"}});
}

}  // namespace secateur
