// Linear layer, fp32, rows of features.
//
//   y[r][o] = act(bias[o] + sum_i w[o][i] * x[r][i] + residual[r][o]),   r = 0..rows-1
//
// Memory: x [rows][in], y and residual [rows][out], contiguous; no alignment needed, nothing outside is touched. y must
// not overlap x; residual may be y. The weight is [out][in] (ONNX Gemm with transB = 1; transpose before packing).
// Two steps as for conv.h: pack() once, run() without allocation; same bits for any number of threads and, for one
// row, alone or in a batch within a kernel's row block (batches may use another order of summation than single rows).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/cpu.h"
#include "base/threads.h"
#include "kernels/choice.h"
#include "kernels/epilogue.h"

namespace secateur {

struct LinearShape {
  int in = 1, out = 1;
};

// What a layer's weights look like to the kernels.
struct LinearDensity {
  int64_t nnz = 0;
  int64_t blocks = 0;  // columns of 16 output features (from a multiple of 16 on) with any nonzero
};

struct LinearKernel;
struct LinearView;
struct LinearTask;

class PackedLinear {
 public:
  virtual ~PackedLinear() = default;
  // Scratch for `rows` rows on `threads` threads.
  virtual size_t scratch_bytes(int64_t rows, int threads) const = 0;
  const LinearKernel* kernel = nullptr;
  LinearShape shape;
  Epilogue epilogue;  // pool is always kNone
  int64_t nnz = 0;
  LinearDensity density;
  size_t packed_bytes = 0;
  std::string note;
};

struct LinearArgs {
  const float* x = nullptr;
  float* y = nullptr;
  const float* residual = nullptr;
  int64_t rows = 1;
  void* scratch = nullptr;
  Threads* threads = nullptr;
};

enum class LinearFamily { kReference, kSparse, kBlock, kDense };

// From this many rows on, transposing them pays where nonzeros are anywhere (measured: one vector of rows costs what
// 5-6 single rows cost); the packed form is another one.
inline constexpr int64_t kLinearManyRows = 6;

struct LinearKernel {
  const char* name;
  Isa isa;
  LinearFamily family;
  int vector_lanes;
  int vector_registers;
  // For runs of about `rows` rows; others are right as well, but slower.
  std::unique_ptr<PackedLinear> (*pack)(const LinearKernel&, const LinearShape&, const Epilogue&, const float* weights,
                                        const float* bias, int64_t rows);
  void (*run)(const PackedLinear&, const LinearArgs&);
  // The parts compiled for the ISA (view.h): for few rows and for many; unused by the reference.
  void (*task)(const LinearView&, const LinearTask&);
  void (*many_task)(const LinearView&, const LinearTask&);
};

std::span<const LinearKernel> linear_kernels();
const LinearKernel* find_linear_kernel(Isa isa, LinearFamily family);

// `weights` [out][in], or [in][out] when not `transposed`.
LinearDensity measure_density(const LinearShape& s, const float* weights, bool transposed = true);

// Inputs of a chunk for so many rows (view.h): what the first cache holds, but enough for some nonzeros a feature.
int linear_chunk(const LinearKernel& kernel, const LinearShape& s, int64_t rows, int64_t nnz);

double predict_linear_us(const LinearKernel& kernel, const LinearShape& s, int64_t rows, const LinearDensity& d);

// Ways to compute `rows` rows with kernels up to the ISA, best first by the cost model; as conv_candidates().
using LinearCandidate = Candidate<LinearKernel>;
std::vector<LinearCandidate> linear_candidates(Isa isa, const LinearShape& s, int64_t rows, const LinearDensity& d,
                                               bool allow_sparse = true);
std::string linear_reason(const std::vector<LinearCandidate>& ways, const LinearShape& s, const LinearDensity& d);

}  // namespace secateur
