// The conv kernels, once for all ISAs: included by portable.cc, avx2.cc and avx512.cc after their Vec. panel.h explains
// the layout.
#pragma once

#include <type_traits>

#include "kernels/conv/panel.h"

namespace secateur {
namespace {

constexpr int kLanes = Vec::kLanes;
constexpr bool kWide = Vec::kRegisters == 32;
constexpr int kMaxBlock = kWide ? 24 : 12;       // sums of the sparse kernel
constexpr int kMaxPooledBlock = kWide ? 7 : 3;   // four sums each
constexpr int kMaxRows = kWide ? kDenseRows : kDenseRowsSmall;
constexpr int kMaxVectors = kWide ? kDenseVectors : kDenseVectorsSmall;

// Independent chains of sums per vector, so that short blocks are not bound by the latency of an addition (4 cycles, two
// a cycle: 8 chains; half as many zmm a cycle on Zen 4).
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
#include "kernels/conv/sparse.h"
//
#include "kernels/conv/blocks.h"
