// The table of conv kernels, their predicted cost and the choice between them.

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

std::vector<ConvCandidate> conv_candidates(Isa isa, const ConvShape& s, const Epilogue& e, int64_t nnz, bool allow_sparse,
                                           int tilings) {
  return offers(isa, conv_kernels(), [&](const ConvKernel& k, std::vector<ConvCandidate>& ways) {
    if (!k.supports(s, e) || (k.family == ConvFamily::kSparse && !allow_sparse && s.groups == 1)) return;
    if (k.family == ConvFamily::kReference) return ways.push_back({&k, {}, predict_conv_us(k, s, e, nnz)});
    for (const ConvPlanned& p : conv_tilings(k, s, e, nnz, tilings))
      ways.push_back({&k, tile_of(p), p.tiling.cycles / kCyclesPerMicrosecond});
  });
}

std::string conv_reason(const std::vector<ConvCandidate>& ways, const ConvShape& s, int64_t nnz) {
  return reason<ConvKernel, ConvFamily>(ways, density_text(nnz, s.weight_count()),
                                        {{ConvFamily::kSparse, "sparse"}, {ConvFamily::kDense, "dense"}});
}

}  // namespace secateur
