// What stands between integer layers: borders of the "quads" layout (qconv.h), sums, pools. Plain tensors are
// [batch][channels][pixels], quads u8 [batch][ceil(channels / 4)][pixels][4]. Rows of features are pixels whose plain
// tensor is [pixels][channels].
//
// Rounding is half to even, float is binary32 without fused operations: the same bits on every ISA. Bytes of channels
// beyond the last one are written but mean nothing.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace secateur {

struct QuadsShape {
  int64_t batch = 1, channels = 1, pixels = 1;
  bool rows = false;  // the plain tensor is [pixels][channels], batch 1
};

// q = clamp(round(x / scale) + zero, 0, 255). x must not be NaN (which gives 0).
struct QuantizeArgs {
  QuadsShape s;
  const float* x = nullptr;
  uint8_t* y = nullptr;
  float scale = 1;
  int zero = 0;
};
// y = float(q - zero) * scale
struct DequantizeArgs {
  QuadsShape s;
  const uint8_t* x = nullptr;
  float* y = nullptr;
  float scale = 1;
  int zero = 0;
};
// y = clamp(round(float(x0 - zero0) * scale0 + float(x1 - zero1) * scale1) + zero, lo, hi); scales are those of x over
// that of y. words: of four bytes. y may be x0 or x1.
struct QAddArgs {
  int64_t words = 0;
  const uint8_t *x0 = nullptr, *x1 = nullptr;
  uint8_t* y = nullptr;
  float scale0 = 1, scale1 = 1;
  int zero0 = 0, zero1 = 0, zero = 0, lo = 0, hi = 255;
};
// Windows over planes of quads; padding never wins a maximum. planes = batch * quads.
struct QPoolArgs {
  int64_t planes = 0;
  int in_h = 1, in_w = 1, out_h = 1, out_w = 1, kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1;
  int pad_top = 0, pad_left = 0, dilation_h = 1, dilation_w = 1;
  const uint8_t* x = nullptr;
  uint8_t* y = nullptr;
};

// n values in order, u8, or s8 with flip = 128 (zero moved along): q = clamp(round(x / scale) + zero, 0, 255) ^ flip
// and back.
struct RunArgs {
  int64_t n = 0;
  const void* x = nullptr;
  void* y = nullptr;
  float scale = 1;
  int zero = 0;
  uint8_t flip = 0;
};

struct QuadsKernels {
  Isa isa;
  void (*quantize)(const QuantizeArgs&);
  void (*dequantize)(const DequantizeArgs&);
  void (*add)(const QAddArgs&);
  void (*max_pool)(const QPoolArgs&);
  void (*quantize_run)(const RunArgs&);
  void (*dequantize_run)(const RunArgs&);
  // x [rows][words] -> y [words][rows], of four bytes: rows of features to quads.
  void (*turn)(int64_t rows, int64_t words, const uint8_t* x, uint8_t* y);
  // Least and largest of n values and 0; NaN is neither.
  void (*range)(int64_t n, const float* x, float* lo, float* hi);
};
// Those of the best ISA up to `isa`.
const QuadsKernels& quads_kernels(Isa isa);

// Average of the part of a window that lies inside the image, `inside` values:
// y = clamp(round(float(sum - inside * x_zero) * (scale / count)) + zero, 0, 255), scale = that of x over that of y;
// count is `inside`, or with include_pad that of the window.
struct QAverageArgs {
  QPoolArgs p;
  float scale = 1;
  int x_zero = 0, zero = 0;
  bool include_pad = false;
};
void quads_average(const QAverageArgs& a);

// y[i] = table[x[i]]; y may be x.
void quads_table(int64_t n, const uint8_t* x, const uint8_t table[256], uint8_t* y);

// Bytes of a plain u8 tensor, or of an s8 one (`flip` = 128: the zero point moves along), to quads and back.
void quads_pack(const QuadsShape& s, const uint8_t* x, uint8_t* y, uint8_t flip);
void quads_unpack(const QuadsShape& s, const uint8_t* x, uint8_t* y, uint8_t flip);

}  // namespace secateur
