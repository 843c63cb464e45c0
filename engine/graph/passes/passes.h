// Rewrites that need no shapes of activations: they run once when a model is loaded. Each keeps the function computed
// (BatchNorm folding up to float64 rounding) and appends lines for explain() saying what it did.
//
// What a fused node carries (graph/post_ops.h), beside
//   Conv, Gemm, MatMul   inputs[2] bias ("" if none), inputs[3] residual, added before the activation
//   LayerNormalization   inputs[3] residual, added to the input before
//
// Integer layers are nodes of the domain "secateur", which no file may name. Values are bytes with one scale and zero
// point; an s8 tensor is held as u8, its zero point moved by 128. PostOps::place on them and on a quantizer: the result
// stays in a layout of kernels/qconv/qconv.h; else it is a plain tensor. Steps::s8 says that an operand's zero point
// was s8 in the file; the operand must agree.
//   QuadConv     x, weight s8 (or s16, -255 to 255, of u8 with zero points), bias int32 or "", scale [O], residual or
//   "";
//                Conv's attributes; steps of x, of the result y, with a residual those of `other` and `sum`. A float32
//                result: scale is that of the sums and inputs[4] an offset [O] or "". Dynamic (of sums or float32):
//                zero point and scale of x are inputs[5] and inputs[6] and come while running ("": 0 and 1)
//   QuadLinear   the same, weight [out, in], no residual; with gelu as with a float32 result, but then quantized to y
//   QuadTable    x, table [256] of the result's type, by the byte of x as u8
//   QuadAdd      x, other
//   QuadConcat   bytes of one grid, and Concat's attributes
//   QuadAverage, QuadMaxPool, QuadReshape   x and the attributes and further inputs of PostOps::op
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"

namespace secateur {

using Notes = std::vector<std::string>;

inline constexpr const char* kQuadsDomain = "secateur";
inline constexpr const char* kRefusedDomain = "secateur.refused";

// All of them, in order.
Notes run_passes(Graph& graph);

// First of all. A node whose old form has no new one goes to kRefusedDomain, the reason in `_refused`.
void upgrade(Graph& graph, Notes& notes);  // forms of opsets before 11; Sum, Mean, ImageScaler

// Before constants are folded, so that quantized weights are still seen.
void expand_qoperators(Graph& graph, Notes& notes);  // QLinearConv, ... -> DequantizeLinear, Conv, QuantizeLinear
// What only moves a dequantized constant (Transpose, Reshape, Slice, ...) moves its integers instead: one move of each
// chain a call; true when there was one. fold_constants() then makes constants of the moved.
bool move_quantized_constants(Graph& graph, Notes& notes);
// Averages over an image that lie between integer layers in the words that fuse_quantized() knows.
void canonical_pools(Graph& graph);
void make_tables(Graph& graph, Notes& notes);     // DequantizeLinear, functions of one value, QuantizeLinear -> a table
void fuse_quantized(Graph& graph, Notes& notes);  // DequantizeLinear, layer, QuantizeLinear -> an integer layer

void fuse_quantized_gelus(Graph& graph);  // last: a QuadLinear takes in the GELU and QuantizeLinear behind it

void remove_identities(Graph& graph, Notes& notes);  // Identity, inference Dropout
void fuse_patterns(Graph& graph, Notes& notes);      // GELU, SiLU, LayerNorm, attention, ... written in small operators
void fold_batch_norms(Graph& graph, Notes& notes);   // into the Conv, Gemm or MatMul before; float64
void fuse_bias(Graph& graph, Notes& notes);          // MatMul + Add, Conv + Add of a constant
void fuse_pads(Graph& graph, Notes& notes);          // zero Pad into Conv
void fuse_norm_residuals(Graph& graph, Notes& notes);   // Add into the LayerNormalization after it
void fuse_epilogues(Graph& graph, Notes& notes);        // residual Add, Relu, Clip, LeakyRelu, 2x2 max pool
void remove_dead_channels(Graph& graph, Notes& notes);  // rows of zeros without bias, columns nobody fills

}  // namespace secateur
