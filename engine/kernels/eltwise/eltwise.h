// Element-wise work, fp32. y may be one of the inputs exactly (in place), never overlap it otherwise.
//
//   add_act:  y = act(a + b)                                   n elements
//   unary:    y = f(a), f as named by ONNX                     n elements
//   affine:   y[p][k] = act(scale[p % channels] * x[p][k] + shift[p % channels])    batch norm at inference
//   binary:   y = a op b with NumPy broadcasting; dims and strides in elements, stride 0 = broadcast
#pragma once

#include <cstdint>

#include "base/cpu.h"
#include "kernels/epilogue.h"

namespace secateur {

enum class Unary {
  kAct,
  kSigmoid,
  kTanh,
  kExp,
  kLog,
  kSqrt,
  kNeg,
  kAbs,
  kElu,
  kHardSigmoid,
  kHardSwish,
  kSoftplus,
  kErf,
  kGelu,
  kGeluTanh,   // 0.5 a (1 + tanh(sqrt(2/pi) (a + 0.044715 a^3)))
  kSilu,       // a / (1 + exp(-alpha a))
  kMish,       // a tanh(log(1 + exp(a)))
  kSelu,       // beta (a > 0 ? a : alpha (exp(a) - 1))
  kCelu,       // a > 0 ? a : alpha (exp(a / alpha) - 1)
  kThreshold,  // a > alpha ? a : 0
  kSoftsign,
  kFloor,
  kCeil,
  kRound,
  kReciprocal,
  kSign,
  kSin,
  kCos,
};
enum class Binary { kAdd, kSub, kMul, kDiv, kMax, kMin, kPow, kPRelu };  // kPRelu: a < 0 ? a * b : a

inline constexpr int kMaxDims = 8;

struct UnaryArgs {
  const float* a = nullptr;
  float* y = nullptr;
  int64_t n = 0;
  Unary op = Unary::kAct;
  Activation act;      // for kAct
  float alpha = 1.0f;  // kElu, kHardSigmoid (ONNX default 0.2), kSilu, kSelu, kCelu, kThreshold
  float beta = 0.5f;   // kHardSigmoid, kSelu
};

struct BinaryArgs {
  const float* a = nullptr;
  const float* b = nullptr;
  float* y = nullptr;  // contiguous, shape dims
  Binary op = Binary::kAdd;
  int n_dims = 1;
  int64_t dims[kMaxDims] = {0};
  int64_t a_strides[kMaxDims] = {0};
  int64_t b_strides[kMaxDims] = {0};
};

struct AffineArgs {
  const float* x = nullptr;
  float* y = nullptr;
  const float* scale = nullptr;  // [channels]
  const float* shift = nullptr;
  int64_t planes = 0, channels = 1, plane = 1;
  Activation act;
};

struct EltwiseKernels {
  Isa isa;
  void (*add_act)(const float* a, const float* b, float* y, int64_t n, const Activation& act);
  void (*unary)(const UnaryArgs&);
  void (*binary)(const BinaryArgs&);
  void (*affine)(const AffineArgs&);
};

const EltwiseKernels& eltwise_kernels(Isa isa);  // the best row not above isa

// Plain loops, for functions and broadcasts that no fast kernel covers.
void unary_ref(const UnaryArgs& args);
void binary_ref(const BinaryArgs& args);

// Fills dims and strides from two shapes by NumPy's rule; false when they do not broadcast or need over kMaxDims.
bool broadcast(const int64_t* a_dims, int a_rank, const int64_t* b_dims, int b_rank, BinaryArgs* args);

}  // namespace secateur
