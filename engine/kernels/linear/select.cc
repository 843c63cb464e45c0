// The table of linear kernels, their predicted cost and the choice between them.
#include <algorithm>
#include <cmath>

#include "kernels/linear/rows.h"
#include "kernels/linear/view.h"

namespace secateur {
namespace {

constexpr LinearKernel kTable[] = {
#define SECATEUR_LINEAR(level, family, name, lanes, registers, pack, run, task, many_task) \
  {#name, level::kIsa, LinearFamily::family, lanes, registers, pack, run, level::task, level::many_task},
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

LinearDensity measure_density(const LinearShape& s, const float* weights, bool transposed) {
  LinearDensity d;
  std::vector<char> any(static_cast<size_t>(s.in));
  const int64_t feature = transposed ? s.in : 1, column = transposed ? 1 : s.out;
  for (int first = 0; first < s.out; first += kLinearBlock) {
    std::fill(any.begin(), any.end(), 0);
    const int last = std::min(s.out, first + kLinearBlock);
    // Along the rows of memory.
    for (int a = 0; a < (transposed ? last - first : s.in); ++a)
      for (int b = 0; b < (transposed ? s.in : last - first); ++b) {
        const int o = first + (transposed ? a : b), i = transposed ? b : a;
        if (weights[o * feature + i * column] == 0) continue;
        ++d.nnz;
        any[static_cast<size_t>(i)] = 1;
      }
    d.blocks += std::count(any.begin(), any.end(), 1);
  }
  return d;
}

int linear_chunk(const LinearKernel& kernel, const LinearShape& s, int64_t rows, int64_t nnz) {
  const int64_t most = linear_tile_vectors(kernel.vector_registers);
  const int64_t vectors = std::clamp<int64_t>((rows + kernel.vector_lanes - 1) / kernel.vector_lanes, 1, most);
  const double held = 1.2 * double(cpu().l1d_bytes) / double(vectors * kernel.vector_lanes * 4);
  const double some = 12.0 * s.in * s.out / double(std::max<int64_t>(nnz, 1));
  const auto chunk = static_cast<int>(std::min({std::max(held, some), double(s.in), 65536.0}));
  const int n = (s.in + std::max(chunk, 1) - 1) / std::max(chunk, 1);
  return std::max(1, (s.in + n - 1) / std::max(n, 1));  // chunks of equal size
}

// Cycles measured on a Zen 4 core; one figure of 3.5 GHz for all machines, ratios are what counts. Dense rows stream
// their weights at 28 bytes a cycle from L2 and L3 and at 2 from memory; sparse single rows take 0.8 cycles a nonzero.
double predict_linear_us(const LinearKernel& kernel, const LinearShape& s, int64_t rows, const LinearDensity& d) {
  const int64_t nnz = d.nnz;
  if (rows <= 0) return 0;  // nothing to compute; per-row costs would divide by it
  if (kernel.family == LinearFamily::kReference) return 0.05 + double(rows) * s.in * s.out / 1e3;
  const double l1 = double(cpu().l1d_bytes), l2 = double(cpu().l2_bytes);
  const double width = kernel.vector_lanes / 16.0, fma = kernel.vector_lanes >= 8 ? 1.0 : 2.2;
  constexpr double kMemory = 24e6;  // beyond it a layer's weights do not stay in the last cache between two runs
  double cycles = 0;
  if (kernel.family == LinearFamily::kBlock) {
    const double blocks = double(d.blocks), at_once = kernel.vector_registers == 32 ? 8
                                                      : kernel.vector_lanes == 8    ? 6
                                                                                    : 2;
    const double passes = std::ceil(rows / at_once), each = double(rows) / passes;
    const double bytes = blocks * 66, rate = bytes > kMemory ? 2.0 : bytes > 1e6 ? 20.0 : bytes > 24e3 ? 32.0 : 60.0;
    cycles =
        passes * (std::max(blocks * std::max(each * 1.1 * fma, kernel.vector_lanes >= 8 ? 2.1 : 3.0), bytes / rate) +
                  std::ceil(s.out / 16.0) * (12 + 6 * each));
  } else if (kernel.family == LinearFamily::kSparse) {
    if (rows < kLinearManyRows) {
      const double per = (kernel.vector_lanes >= 8 ? 0.80 : 0.92) + (double(s.in) * 4 > 0.5 * l1 ? 0.15 : 0.0);
      cycles = rows * (per * double(nnz) + 2.0 * s.out + 30);
      if (nnz * 6.0 > kMemory) cycles = std::max(cycles, nnz * 6.0 / 1.5);
    } else {
      const double tile = double(linear_tile_vectors(kernel.vector_registers)) * kernel.vector_lanes;
      const double tiles = std::ceil(rows / tile), vectors = std::ceil(rows / double(kernel.vector_lanes));
      const int chunk = linear_chunk(kernel, s, rows, nnz);
      const double chunks = std::ceil(double(s.in) / chunk);
      const double panel = chunk * std::min(tile, vectors * kernel.vector_lanes) * 4;
      const double load = panel < 0.8 * l1 ? 1.13 : panel < 2 * l1 ? 1.3 : panel < 0.3 * l2 ? 1.65 : 2.2;
      cycles = double(nnz) * std::max(vectors * load * width * fma, 1.7 * tiles) +
               s.out * (tiles * (10.0 + 8.0 * chunks) + (chunks - 1) * 3.0 * vectors * width) +
               double(rows) * (s.in * 1.0 + s.out * 2.5);
    }
  } else {
    const double weight_bytes = 4.0 * s.in * s.out;
    const double rate = weight_bytes > kMemory    ? 2.0
                        : kernel.vector_lanes < 8 ? 17.0
                        : weight_bytes > 24e3     ? 28.0
                                                  : 60.0;
    const double blocks = std::ceil(rows / 6.0), padded = std::ceil(double(s.out) / kernel.vector_lanes);
    cycles = std::max(double(rows) * s.in * padded * width * 1.05 * fma, weight_bytes / rate * blocks) +
             blocks * padded * 6 + 20;
  }
  return cycles / 3500.0;
}

std::vector<LinearCandidate> linear_candidates(Isa isa, const LinearShape& s, int64_t rows, const LinearDensity& d,
                                               bool allow_sparse) {
  return offers(isa, linear_kernels(), [&](const LinearKernel& k, std::vector<LinearCandidate>& ways) {
    const bool dense = k.family == LinearFamily::kDense || k.family == LinearFamily::kReference;
    if (dense || allow_sparse) ways.push_back({&k, {}, predict_linear_us(k, s, rows, d)});
  });
}

std::string linear_reason(const std::vector<LinearCandidate>& ways, const LinearShape& s, const LinearDensity& d) {
  return reason<LinearKernel, LinearFamily>(
      ways, density_text(d.nnz, int64_t{s.in} * s.out),
      {{LinearFamily::kSparse, "sparse"}, {LinearFamily::kBlock, "16x1 blocks"}, {LinearFamily::kDense, "dense"}});
}

}  // namespace secateur
