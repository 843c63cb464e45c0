// 2-D convolution of 8-bit integers (a linear layer is a 1x1 convolution over its rows).
//
//   acc[o][i][j] = bias[o] + sum_{c,u,v} w[o][c][u][v] * (x[c][i*stride_h + u*dilation_h - pad_top][...] - x_zero)
//                  in int32, wrapping; x = x_zero outside the image
//   q            = clamp(round(float(acc) * scale[o]) + zero, lo, hi)                   round: half to even
//   y            = q, or with a residual r
//                  clamp(round(float(q - zero) * a + float(r - r_zero) * b) + sum_zero, sum_lo, sum_hi)
//                or with a GELU (simd/gelu.h)
//                  clamp(round(gelu(float(acc) * scale[o] + offset[o]) * inverse) + zero, lo, hi)
//
// float is IEEE binary32, every operation rounded by itself (no fused multiply-add): all kernels give the same bits.
//
// Layout "quads": x, y and r are u8 [batch][ceil(C / 4)][H][W][4]: one 32-bit word holds four channels of a pixel.
// Channels beyond C have any value in x and the zero point in y. Weights are s8 [O][C/G][kernel_h][kernel_w].
// Results may instead be stored as int32 (acc) or float32 (float(acc) * scale[o] + offset[o]), plain [batch][O][H][W]
// or as rows of features [batch][H][W][O].
//
// Weights may be wider than s8, -255 to 255: those of u8 less their zero point. Kernels whose products take bytes split
// such a weight into up to three, each a block of its own; few blocks need it where a zero point is near the middle.
//
// Dynamic quantization: the zero point of x and a factor of all scales may come with the call (QEpilogue::dynamic).
//
// Alignment is not needed; x may be over-read by 64 bytes; y must not overlap x, r may be y itself.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/cpu.h"
#include "base/threads.h"
#include "kernels/conv/conv.h"  // ConvShape

namespace secateur {

enum class QOutput { kU8, kI32, kI32Rows, kF32Rows, kF32 };

struct QEpilogue {
  QOutput output = QOutput::kU8;
  uint8_t zero = 0, lo = 0, hi = 255;  // of q; lo and hi carry Relu and Clip
  bool residual = false;               // kU8 only
  float a = 1, b = 1;                  // scale of q / scale of y, scale of r / scale of y
  uint8_t r_zero = 0, sum_zero = 0, sum_lo = 0, sum_hi = 255;
  bool gelu = false;     // kU8 only, no residual
  float inverse = 1;     // 1 / scale of y
  bool dynamic = false;  // not kU8: x_zero and x_scale of QConvArgs count, the weights' x_zero is 0
};

struct QWeights {
  const int8_t* w = nullptr;      // this or `wide`
  const int32_t* bias = nullptr;  // [O] or null
  const float* scale = nullptr;   // [O]; unused by int32 results, may then be null
  uint8_t x_zero = 0;
  const float* offset = nullptr;  // [O] or null; of float32 results and of a GELU
  const int16_t* wide = nullptr;  // -255 to 255

  int at(int64_t i) const { return wide ? wide[i] : w[i]; }
};

inline int64_t quads(int64_t channels) { return (channels + 3) / 4; }

struct QConvKernel;
struct QConvView;
struct QConvTask;

// Weights in a kernel's own order. Made by pack(), read-only after, shared freely between threads.
class PackedQConv {
 public:
  virtual ~PackedQConv() = default;
  const QConvKernel* kernel = nullptr;
  ConvShape shape;
  QEpilogue epilogue;
  size_t packed_bytes = 0;
  size_t scratch_bytes_per_thread = 0;
  size_t scratch_bytes_shared = 0;  // behind those of all threads
  size_t scratch_bytes(int threads) const {
    return scratch_bytes_per_thread * static_cast<size_t>(threads) + scratch_bytes_shared;
  }
  std::string note;  // tile chosen, for explain()
};

struct QConvArgs {
  const uint8_t* x = nullptr;
  void* y = nullptr;
  const uint8_t* residual = nullptr;  // iff epilogue.residual
  int64_t batch = 1;
  void* scratch = nullptr;  // scratch_bytes(threads->size()), 64-byte aligned
  uint8_t x_zero = 0;       // iff epilogue.dynamic
  float x_scale = 1;        // same; scale[o] counts as x_scale * scale[o]
  Threads* threads = nullptr;
};

// kSparse: 1x4 blocks, kQuads: 4x4 blocks; kPairs, kQuadPairs: the same, two of them added in 16 bits; kRow: one pixel,
// lanes are outputs.
enum class QConvFamily { kReference, kSparse, kPairs, kQuads, kQuadPairs, kDense, kDepthwise, kRow };
inline bool in_pairs(QConvFamily f) { return f == QConvFamily::kPairs || f == QConvFamily::kQuadPairs; }
inline bool of_four(QConvFamily f) { return f == QConvFamily::kQuads || f == QConvFamily::kQuadPairs; }

// One row of kernels.inc.
struct QConvKernel {
  const char* name;
  Isa isa;
  QConvFamily family;
  int lanes;         // pixels per vector
  int max_block;     // vectors of sums held in registers per output channel
  int weight_words;  // 1: four s8; 2: s16 pairs (w0, w2), (w1, w3), for multiply-add of 16 bits
  bool (*supports)(const ConvShape&, const QEpilogue&);
  std::unique_ptr<PackedQConv> (*pack)(const QConvKernel&, const ConvShape&, const QEpilogue&, const QWeights&,
                                       const Tile&);
  void (*run)(const PackedQConv&, const QConvArgs&);
  void (*task)(const QConvView&, const QConvTask&);
};

std::span<const QConvKernel> qconv_kernels();
const QConvKernel* find_qconv_kernel(Isa isa, QConvFamily family);

// What a layer's weights look like to the kernels: 1x4 blocks are four input channels of one tap of one output, 4x4
// blocks those of four outputs.
struct QDensity {
  int64_t weights = 0, nnz = 0;    // of the layer
  int64_t blocks = 0, filled = 0;  // all 1x4 blocks; those with a nonzero
  int64_t filled_quads = 0;        // 4x4 blocks with a nonzero; 0 for grouped layers
  int64_t filled_rows = 0;         // 16x4 blocks with a nonzero, of layers with one pixel
  double pairing = 1;              // blocks of kPairs for one with a nonzero: some are split, some are alone
  double quad_pairing = 1;         // same, of kQuadPairs
  bool wide = false;               // a weight beyond s8; blocks above are then those of its bytes
  // Every sum times its scale stays below 2^30, so that a conversion to int32 cannot overflow; wild scales go to the
  // reference.
  bool bounded = true;

  double density() const { return weights ? double(nnz) / double(weights) : 0; }
  double fill() const { return filled ? double(nnz) / (4.0 * double(filled)) : 0; }  // 1: whole blocks
};
QDensity measure_density(const ConvShape& s, const QEpilogue& e, const QWeights& w);

double predict_qconv_us(const QConvKernel& kernel, const ConvShape& s, const QEpilogue& e, const QDensity& d);

// Ways to compute the layer, as conv_candidates(); the reference alone for kRef, unbounded scales and windows of
// thousands of taps.
using QConvCandidate = Candidate<QConvKernel>;
std::vector<QConvCandidate> qconv_candidates(Isa isa, const ConvShape& s, const QEpilogue& e, const QDensity& d,
                                             bool allow_sparse = true, int tilings = 1);
std::string qconv_reason(const std::vector<QConvCandidate>& ways, const ConvShape& s, const QDensity& d);

}  // namespace secateur
