// The conv kernels, once for all ISAs: compiled for every level of kernels/table.h. panel.h explains
// the layout.
#include <type_traits>

#include "kernels/conv/panel.h"
#include "kernels/conv/rows.h"
#include "simd/vec_here.h"

namespace secateur {
namespace {

constexpr int kLanes = Vec::kLanes;
constexpr bool kWide = Vec::kRegisters == 32;
constexpr int kMaxBlock = kWide ? 24 : 12;      // sums of the sparse kernel
constexpr int kMaxPooledBlock = kWide ? 7 : 3;  // four sums each
constexpr int kMaxRows = kWide ? kDenseRows : kDenseRowsSmall;
constexpr int kMaxVectors = kWide ? kDenseVectors : kDenseVectorsSmall;

// Independent chains of sums per vector, so that short blocks are not bound by the latency of an addition (4 cycles,
// two a cycle: 8 chains; half as many zmm a cycle on Zen 4).
constexpr int chains(int block) { return block == 1 ? 8 : block == 2 ? 4 : block <= 4 ? 2 : 1; }

SECATEUR_INLINE Vec activate(Vec x, const ConvView& v) {
  if (v.slope != 1.0f) x = max(x, Vec::zero()) + min(x, Vec::zero()) * Vec::set1(v.slope);
  return min(Vec::set1(v.hi), max(Vec::set1(v.lo), x));  // this order lets NaN through
}

}  // namespace
}  // namespace secateur

// In this order: each builds on those before it.
#include "kernels/conv/fill.h"
#include "kernels/conv/store.h"
//
#include "kernels/conv/dense.h"
#include "kernels/conv/outputs.h"
#include "kernels/conv/sparse.h"
//
#include "kernels/conv/blocks.h"
#include "kernels/conv/depthwise.h"

namespace secateur::SECATEUR_LEVEL {

void sparse_task(const ConvView& v, const ConvTask& t) { secateur::sparse_task(v, t); }
void block2_task(const ConvView& v, const ConvTask& t) { block_task<2>(v, t); }
void block4_task(const ConvView& v, const ConvTask& t) { block_task<4>(v, t); }
void block8_task(const ConvView& v, const ConvTask& t) { block_task<8>(v, t); }
void dense_task(const ConvView& v, const ConvTask& t) { secateur::dense_task(v, t); }
void outputs_task(const ConvView& v, const ConvTask& t) { secateur::outputs_task(v, t); }
void depthwise_task(const ConvView& v, const ConvTask& t) { secateur::depthwise_task(v, t); }

}  // namespace secateur::SECATEUR_LEVEL
