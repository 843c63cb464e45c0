// What every conv and linear kernel can do to its result before storing it.
#pragma once

#include <limits>

namespace secateur {

// y = min(max(x, lo), hi) after x = x < 0 ? slope * x : x.  Relu: lo = 0. Relu6: lo = 0, hi = 6. Leaky relu: slope.
struct Activation {
  float lo = -std::numeric_limits<float>::infinity();
  float hi = std::numeric_limits<float>::infinity();
  float slope = 1.0f;

  static Activation none() { return {}; }
  static Activation relu() { return {0.0f, std::numeric_limits<float>::infinity(), 1.0f}; }
  static Activation clip(float lo, float hi) { return {lo, hi, 1.0f}; }
  static Activation leaky(float slope) {
    Activation a;
    a.slope = slope;
    return a;
  }
};

// After the activation: 2x2 windows, stride 2, no padding; an odd last row or column is dropped (ONNX floor mode).
enum class Pool2x2 { kNone, kMax };

struct Epilogue {
  Activation act;
  bool residual = false;  // y = act(conv + bias + residual); not together with a pool
  Pool2x2 pool = Pool2x2::kNone;
};

}  // namespace secateur
