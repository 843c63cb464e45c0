// What depthwise.cc hands to depthwise.h, and its cost: plain numbers and pointers, no code.
#pragma once

#include "kernels/conv/conv.h"
#include "kernels/conv/panel.h"

namespace secateur {

struct DepthwiseView
    : ConvView {  // of the latter: in_*, step_*, pad_*, rows, cols, out_*, lo, hi, slope, bias, weights
  int32_t kernel_h, kernel_w, dilation_h, dilation_w;
  int32_t per_channel;  // results of an input channel
  const float* zeros;   // a row of the image outside of it
  int32_t strip;        // rows of the result that are worked on in columns of vectors
};

inline constexpr int kDepthwiseRows = 4;     // of the result at a time
inline constexpr int kDepthwiseKernel = 16;  // rows and columns at most

double conv_depthwise_cycles(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e);

}  // namespace secateur
