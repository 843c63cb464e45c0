// Pooling over planes, fp32. A plane is one channel of one image; planes are contiguous and follow one another.
//
//   max:     y[p][i][j] = max over the window's cells inside the image (-inf when there is none)
//   average: y[p][i][j] = sum over them / (count_include_pad ? cells inside the padded image : cells inside the image)
//            each column of the window from the top down, then the columns from left to right
//   window:  rows i*stride_h - pad_top + u*dilation_h, columns likewise
//   global average: y[p] = mean of the plane: sums of its elements k, k + 32, ..., halved (0 + 16, 1 + 17, ...) until
//   one is left
//
// All kernels give the same bits: a pool may stand between integer layers.
//
// out_h, out_w are the caller's (ONNX ceil_mode or floor); x and y do not overlap; nothing outside them is touched.
#pragma once

#include <cstdint>

#include "base/cpu.h"
#include "base/threads.h"

namespace secateur {

inline constexpr int kGlobalSums = 32;

struct PoolArgs {
  const float* x = nullptr;
  float* y = nullptr;
  int64_t planes = 1;  // images * channels
  int in_h = 1, in_w = 1, out_h = 1, out_w = 1;
  int kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1;
  int pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int dilation_h = 1, dilation_w = 1;
  bool count_include_pad = false;
  Threads* threads = nullptr;
};

// The functions of one level.
struct PoolKernels {
  Isa isa;
  void (*max)(const PoolArgs&);
  void (*average)(const PoolArgs&);
  void (*global_average)(const PoolArgs&);  // uses x, y, planes, in_h, in_w
};

const PoolKernels& pool_kernels(Isa isa);  // the best row not above isa

// Plain loops, for windows that no fast kernel covers.
void max_pool_ref(const PoolArgs& args);
void average_pool_ref(const PoolArgs& args);

}  // namespace secateur
