// The table of conv kernels, their predicted cost and the choice between them.
#include <algorithm>
#include <bit>

#include "kernels/conv/depthwise_view.h"
#include "kernels/conv/rows.h"
#include "kernels/conv/tiling.h"

namespace secateur {
namespace {

constexpr ConvKernel kTable[] = {
#define SECATEUR_CONV(level, family, name, lanes, registers, block, supports, pack, run, task) \
  {#name, level::kIsa, ConvFamily::family, lanes, registers, block, supports, pack, run, level::task},
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

double predict_conv_us(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e, const ConvDensity& d) {
  if (kernel.family == ConvFamily::kReference) return double(s.weight_count()) * s.conv_h() * s.conv_w() / 1e3;
  if (kernel.family == ConvFamily::kDepthwise) return conv_depthwise_cycles(kernel, s, e) / kCyclesPerMicrosecond;
  return plan_conv(kernel, s, e, d.blocks(kernel.block)).tiling.cycles / kCyclesPerMicrosecond;
}

std::vector<ConvCandidate> conv_candidates(Isa isa, const ConvShape& s, const Epilogue& e, const ConvDensity& d,
                                           bool allow_sparse, int tilings) {
  return offers(isa, conv_kernels(), [&](const ConvKernel& k, std::vector<ConvCandidate>& ways) {
    const bool whole = k.family == ConvFamily::kReference || k.family == ConvFamily::kDepthwise,
               dense = k.family == ConvFamily::kDense || whole;
    if (!k.supports(s, e) || (!dense && !allow_sparse && s.groups == 1)) return;
    if (whole) return ways.push_back({&k, {}, predict_conv_us(k, s, e, d)});
    for (const ConvPlanned& p : conv_tilings(k, s, e, d.blocks(k.block), tilings))
      ways.push_back({&k, tile_of(p), p.tiling.cycles / kCyclesPerMicrosecond});
  });
}

std::string conv_reason(const std::vector<ConvCandidate>& ways, const ConvDensity& d) {
  return reason<ConvKernel, ConvFamily>(ways, density_text(d.nnz, d.weights),
                                        {{ConvFamily::kSparse, "sparse"},
                                         {ConvFamily::kBlock, "blocks"},
                                         {ConvFamily::kDense, "dense"},
                                         {ConvFamily::kDepthwise, "depthwise"}});
}

ConvDensity measure_density(const ConvShape& s, const float* weights) {
  ConvDensity d;
  d.weights = s.weight_count();
  const int64_t taps = d.weights / s.out_c;
  std::vector<uint8_t> rows(static_cast<size_t>(taps));  // of eight channels, a bit for each
  for (int first = 0; first < s.out_c; first += 8) {
    std::fill(rows.begin(), rows.end(), uint8_t{0});
    for (int o = first; o < std::min(s.out_c, first + 8); ++o)
      for (int64_t i = 0; i < taps; ++i)
        rows[static_cast<size_t>(i)] |= static_cast<uint8_t>((weights[o * taps + i] != 0) << (o - first));
    for (const unsigned bits : rows) {
      const unsigned pairs = (bits | bits >> 1) & 0x55, fours = (pairs | pairs >> 2) & 0x11;
      d.nnz += std::popcount(bits);
      d.pairs += std::popcount(pairs);
      d.fours += std::popcount(fours);
      d.eights += bits != 0;
    }
  }
  return d;
}

}  // namespace secateur
