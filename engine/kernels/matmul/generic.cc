// The matrix product, once for all ISAs: compiled for every level of kernels/table.h.
#include "kernels/matmul/block.h"
#include "kernels/matmul/matmul.h"
#include "kernels/table.h"

namespace secateur {
namespace {

SECATEUR_INLINE size_t matmul_scratch(const MatMul& p, int threads) {
  return static_cast<size_t>(threads) * static_cast<size_t>(p.k) * kPanel * sizeof(float);
}

SECATEUR_INLINE void matmul(const MatMul& p, const MatMulArgs& args) {
  const int64_t batches = matmul_batches(p), panels = (p.n + kPanel - 1) / kPanel;
  const auto task = [&](int64_t t, int worker) {
    const int64_t batch = t / panels, first = t % panels * kPanel;
    const int n = static_cast<int>(p.n - first < kPanel ? p.n - first : kPanel);
    int64_t a, b;
    matmul_offsets(p, batch, a, b);
    float* panel = static_cast<float*>(args.scratch) + worker * p.k * kPanel;
    pack_panel(args.b + b + first * p.b_col, p.b_row, p.b_col, p.k, n, panel);
    multiply_panel(args.a + a, p.a_row, p.a_col, panel, p.m, p.k, p.alpha, args.y + batch * p.m * p.n + first, p.n, n);
  };
  // 50 multiply-adds a nanosecond; below kSerialMicroseconds a barrier costs more than it gives.
  const double us = static_cast<double>(batches) * static_cast<double>(p.m * p.n) * static_cast<double>(p.k) / 50e3;
  if (args.threads && us > kSerialMicroseconds) {
    args.threads->parallel(batches * panels, task);
  } else {
    for (int64_t t = 0; t < batches * panels; ++t) task(t, 0);
  }
}

constexpr const char* kName = kPanel == 64   ? "matmul_f32_f32_f32_6x64_avx512"
                              : kPanel == 16 ? "matmul_f32_f32_f32_6x16_avx2"
                                             : "matmul_f32_f32_f32_6x8_portable";

}  // namespace

namespace SECATEUR_LEVEL {
extern const MatMulKernel matmul_row = {kIsa, kName, matmul_scratch, matmul};
}
}  // namespace secateur
