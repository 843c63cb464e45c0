// The sliding window that Conv and the pools share: kernel, stride, dilation, padding (explicit or automatic), size
// out.
#pragma once

#include <array>

#include "kernels/conv/conv.h"
#include "plan/lowering.h"

namespace secateur {

struct Window {
  // [height, width]; a 1-D window has height 1.
  std::array<int64_t, 2> in{1, 1}, kernel{1, 1}, stride{1, 1}, dilation{1, 1}, begin{0, 0}, end{0, 0}, out{1, 1};
};

// Reads strides, dilations, pads, auto_pad and ceil_mode of node n. `in` and `kernel` are the spatial sizes (1 or 2).
Window read_window(Lowering& L, const Node& n, const Dims& in, const Dims& kernel, bool ceil_mode);

// The convolution that node n describes, for an input and a weight of these sizes, within the limits and the 32 bits in
// which kernels count the cells of one image, padding included; they hold `padded` channels at a time.
ConvShape read_conv_shape(Lowering& L, const Node& n, const Dims& x, const Dims& weight, int64_t padded = 1);
// A size as the kernels want it.
int to_int(Lowering& L, const Node& n, int64_t v);

// The convolution that the attributes of n ask for, of values that need not be n's own inputs (-1: none).
void conv(Lowering& L, const Node& n, int x, int w, int bias, int residual);

// y = max pool 2x2, stride 2 of x (both declared), for a pool that a convolution kernel could not take in.
void lower_max_pool_2x2(Lowering& L, const Node& n, int x, int y);

}  // namespace secateur
