// The table of int8 convolution kernels, their predicted cost and the choice between them.
#include <cstdio>

#include "kernels/qconv/rows.h"
#include "kernels/qconv/tiling.h"

namespace secateur {
namespace {

constexpr QConvKernel kTable[] = {
#define SECATEUR_QCONV(isa, family, name, lanes, max_block, weight_words, supports, pack, run, task) \
  {#name, Isa::isa, QConvFamily::family, lanes, max_block, weight_words, supports, pack, run, task},
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
  return plan_qconv(kernel, s, e, d).cycles / kQCyclesPerMicrosecond;
}

QConvChoice choose_qconv(Isa isa, const ConvShape& s, const QEpilogue& e, const QDensity& d, bool allow_sparse) {
  QConvChoice c;
  const bool far = !qconv_sparse_supports(s);
  if (isa == Isa::kRef || !d.bounded || far) {
    c.kernel = find_qconv_kernel(Isa::kRef, QConvFamily::kReference);
    c.predicted_us = predict_qconv_us(*c.kernel, s, e, d);
    c.reason = !d.bounded ? "a scale is so large that sums may leave int32: the reference"
               : far      ? "a window of so many values: the reference"
                          : "the reference";
    return c;
  }
  // An ISA without kernels of its own uses those of the one below.
  Isa level = isa;
  while (level > Isa::kPortable && !find_qconv_kernel(level, QConvFamily::kSparse)) level = static_cast<Isa>(static_cast<int>(level) - 1);
  const QConvKernel* sparse = find_qconv_kernel(level, QConvFamily::kSparse);
  const QConvKernel* dense = find_qconv_kernel(level, QConvFamily::kDense);
  const bool can_dense = dense->supports(s);
  if (can_dense) c.dense_us = predict_qconv_us(*dense, s, e, d);
  if (allow_sparse || !can_dense) c.sparse_us = predict_qconv_us(*sparse, s, e, d);
  const bool take_sparse = c.dense_us < 0 || (c.sparse_us >= 0 && c.sparse_us < c.dense_us);
  c.kernel = take_sparse ? sparse : dense;
  c.predicted_us = take_sparse ? c.sparse_us : c.dense_us;
  char text[200];
  const int n = std::snprintf(text, sizeof text, "density %.3g %%, 1x4 blocks %.3g %% of all, %.3g %% filled: ", 100 * d.density(),
                              d.blocks ? 100.0 * double(d.filled) / double(d.blocks) : 0.0, 100 * d.fill());
  if (c.dense_us < 0 || c.sparse_us < 0) {
    std::snprintf(text + n, sizeof text - static_cast<size_t>(n), "%.3g us, the only way", c.predicted_us);
  } else {
    std::snprintf(text + n, sizeof text - static_cast<size_t>(n), "1x4 %.3g us, dense %.3g us", c.sparse_us, c.dense_us);
  }
  c.reason = text;
  return c;
}

}  // namespace secateur
