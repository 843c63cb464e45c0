// 2-D convolution, fp32, NCHW (1-D: in_h = kernel_h = 1).
//
//   y[n][o][i][j] = pool(act(bias[o] + sum_{c,u,v} w[o][c][u][v] * x[n][g*C/G + c][i*stride_h + u*dilation_h - pad_top]
//                                                               [j*stride_w + v*dilation_w - pad_left] + residual))
//   with x = 0 outside, G = groups, g = o / (O/G); w is ONNX's [O][C/G][kernel_h][kernel_w].
//
// Memory: x, y and residual are plain NCHW, every image contiguous, images batch strides apart. No alignment is needed,
// nothing outside the images is read or written (64-byte alignment is faster by a few percent). y must overlap neither
// x nor residual. Padding, shifted copies and partial sums live in the caller's scratch (64-byte aligned).
//
// Two steps: pack() once per weights, run() as often as wanted: no allocation, no exception, no lock. Results do not
// depend on the number of threads, on the batch an image is in or on what scratch held before.
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

struct ConvShape {
  int in_c = 1, in_h = 1, in_w = 1, out_c = 1;
  int kernel_h = 1, kernel_w = 1;
  int stride_h = 1, stride_w = 1;
  int pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int dilation_h = 1, dilation_w = 1;
  int groups = 1;

  int conv_h() const { return (in_h + pad_top + pad_bottom - dilation_h * (kernel_h - 1) - 1) / stride_h + 1; }
  int conv_w() const { return (in_w + pad_left + pad_right - dilation_w * (kernel_w - 1) - 1) / stride_w + 1; }
  int64_t weight_count() const { return int64_t{out_c} * (in_c / groups) * kernel_h * kernel_w; }
};

// Size of the stored image: conv_h x conv_w, halved (floor) by a fused pool.
int conv_out_h(const ConvShape& s, const Epilogue& e);
int conv_out_w(const ConvShape& s, const Epilogue& e);

// What a layer's weights look like to the kernels.
struct ConvDensity {
  int64_t weights = 0, nnz = 0;
  int64_t pairs = 0, fours = 0, eights = 0;  // blocks of 2, 4, 8 output channels of one tap with any nonzero
  int64_t blocks(int channels) const {
    return channels == 2 ? pairs : channels == 4 ? fours : channels == 8 ? eights : nnz;
  }
};

struct ConvKernel;
struct ConvView;
struct ConvTask;

// Weights in a kernel's own order. Made by pack(), read-only after, shared freely between threads.
class PackedConv {
 public:
  virtual ~PackedConv() = default;
  const ConvKernel* kernel = nullptr;
  ConvShape shape;
  Epilogue epilogue;
  int64_t nnz = 0;  // nonzero weights found
  ConvDensity density;
  size_t packed_bytes = 0;              // memory the packed weights take
  size_t scratch_bytes_per_thread = 0;  // scratch needed = this * threads->size()
  std::string note;                     // tile chosen, for explain(): "6x32 rows, 2 chunks, 12 vectors"
};

struct ConvArgs {
  const float* x = nullptr;
  float* y = nullptr;
  const float* residual = nullptr;  // iff epilogue.residual
  int64_t batch = 1;
  int64_t x_batch_stride = 0;  // floats between images; 0 = contiguous
  int64_t y_batch_stride = 0;  // residual has the same
  void* scratch = nullptr;
  Threads* threads = nullptr;  // null = the calling thread only
};

// kBlock: nonzeros in blocks of 2, 4 or 8 output channels. kDense: all weights. kDepthwise: all weights of layers whose
// groups have one input.
enum class ConvFamily { kReference, kSparse, kBlock, kDense, kDepthwise };

ConvDensity measure_density(const ConvShape& s, const float* weights);

// One row of kernels.inc.
struct ConvKernel {
  const char* name;  // conv_sparse_f32_f32_f32_avx512
  Isa isa;
  ConvFamily family;
  int vector_lanes;  // floats per vector register
  int vector_registers;
  int block;  // output channels of a block; dense: that are lanes, 1 = pixels are
  bool (*supports)(const ConvShape&, const Epilogue&);
  // weights [O][C/G][kh][kw], bias [O] or null; a tile that is none of the kernel's ways is as good as none. Throws
  // std::bad_alloc only.
  std::unique_ptr<PackedConv> (*pack)(const ConvKernel&, const ConvShape&, const Epilogue&, const float* weights,
                                      const float* bias, const Tile& tile);
  void (*run)(const PackedConv&, const ConvArgs&);
  void (*task)(const ConvView&, const ConvTask&);  // the part compiled for the ISA (panel.h); unused by the reference
};

std::span<const ConvKernel> conv_kernels();  // every row this build has
inline bool outputs_in_lanes(const ConvKernel& k) { return k.family == ConvFamily::kDense && k.block > 1; }
const ConvKernel* find_conv_kernel(Isa isa, ConvFamily family);  // null when there is none

// Predicted microseconds of one image on one thread of a 3-4 GHz core; for ranking, not for promises.
double predict_conv_us(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e, const ConvDensity& d);

// Ways to compute the layer with kernels up to the ISA, best first by the cost model (choice.h); at most `tilings` of
// each kernel. `allow_sparse` = false leaves the dense path (grouped convolutions have the sparse one only).
using ConvCandidate = Candidate<ConvKernel>;
std::vector<ConvCandidate> conv_candidates(Isa isa, const ConvShape& s, const Epilogue& e, const ConvDensity& d,
                                           bool allow_sparse = true, int tilings = 1);
// Why the first of them: "density 9.8 %: sparse 12 us, dense 80 us".
std::string conv_reason(const std::vector<ConvCandidate>& ways, const ConvDensity& d);

}  // namespace secateur
