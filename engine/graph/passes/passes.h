// Rewrites that need no shapes of activations: they run once when a model is loaded. Each keeps the function computed
// (BatchNorm folding up to float64 rounding) and appends lines for explain() saying what it did.
//
// What a fused node carries:
//   Conv, Gemm, MatMul   inputs[2] bias ("" if none), inputs[3] residual, added before the activation
//   _lo, _hi, _slope     floats: y = min(max(x, lo), hi) after x = x < 0 ? slope * x : x
//   _pool                int 1 (Conv): 2x2 max pool, stride 2, after the activation
//   LayerNormalization   inputs[3] residual, added to the input before
//   _rows_first          string (Attention): those of q, k, v, y that stand as [batch, rows, heads, dim]
//   _refused             string (of kRefusedDomain): why lowering will refuse the node
//   _ceil_to_shrink      int 1 (Resize, nearest): axes that get smaller round up, as in opset 10
//   _spatial             int (Flatten): elements per channel the consumer's weights were rearranged for; checked
//
// Integer layers are nodes of the domain "secateur", which no file may name. Values are bytes with one scale and zero
// point; an s8 tensor is held as u8, its zero point moved by 128. `_quads` on them and on a QuantizeLinear: the result
// stays in the layout of kernels/qconv/qconv.h (1: channels on axis 1, 2: on the last axis); else it is a plain tensor.
// _x_s8, _a_s8, _b_s8, _r_s8 say that an operand's zero point was s8 in the file; the operand must agree.
//   QuadConv     x, weight s8 (or s16, -255 to 255, of u8 with zero points), bias int32 or "", scale [O], residual or ""; Conv's
//                attributes; _x_zero, of the result _q_scale, _q_zero, _lo, _hi; with a residual _r_scale, _r_zero, _sum_scale,
//                _sum_zero, _sum_lo, _sum_hi; with _float the result is float32, scale that of the sums and inputs[4] an offset [O]
//                or ""; with _raw int32 sums. _dynamic (_raw or _float): zero point and scale of x are inputs[5] and inputs[6] and
//                come while running ("": 0 and 1)
//   QuadLinear   the same, weight [out, in], no residual; with _gelu as with _float, but then its GELU is quantized to _q_scale,
//                _q_zero
//   QuadTable    x, table [256] of the result's type, by the byte of x as u8
//   _most        (float, on a DynamicQuantizeLinear) x counts as min(max(x, 0), _most)
//   _why         (string, on any layer) why it is not an integer layer, or not wholly: for explain()
//   QuadAdd      a, b; _a_scale, _a_zero, _b_scale, _b_zero, _scale, _zero, _lo, _hi
//   QuadAverage, QuadMaxPool, QuadReshape   x and the attributes and further inputs of `_op`; _x_scale, _x_zero, _scale, _zero
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
void upgrade(Graph& graph, Notes& notes);              // forms of opsets before 11; Sum, Mean, ImageScaler

// Before constants are folded, so that quantized weights are still seen.
void expand_qoperators(Graph& graph, Notes& notes);    // QLinearConv, ... -> DequantizeLinear, Conv, QuantizeLinear
// What only moves a dequantized constant (Transpose, Reshape, Slice, ...) moves its integers instead: one move of each chain a
// call; true when there was one. fold_constants() then makes constants of the moved.
bool move_quantized_constants(Graph& graph, Notes& notes);
// Averages over an image that lie between integer layers in the words that fuse_quantized() knows.
void canonical_pools(Graph& graph);
void make_tables(Graph& graph, Notes& notes);          // DequantizeLinear, functions of one value, QuantizeLinear -> a table
void fuse_quantized(Graph& graph, Notes& notes);       // DequantizeLinear, layer, QuantizeLinear -> an integer layer

void fuse_quantized_gelus(Graph& graph);               // last: a QuadLinear takes in the GELU and QuantizeLinear behind it

void remove_identities(Graph& graph, Notes& notes);    // Identity, inference Dropout
void fuse_patterns(Graph& graph, Notes& notes);        // GELU, SiLU, LayerNorm, attention, ... written in small operators
void fold_batch_norms(Graph& graph, Notes& notes);     // into the Conv, Gemm or MatMul before; float64
void fuse_bias(Graph& graph, Notes& notes);            // MatMul + Add, Conv + Add of a constant
void fuse_pads(Graph& graph, Notes& notes);            // zero Pad into Conv
void fuse_norm_residuals(Graph& graph, Notes& notes);  // Add into the LayerNormalization after it
void fuse_epilogues(Graph& graph, Notes& notes);       // residual Add, Relu, Clip, LeakyRelu, 2x2 max pool
void remove_dead_channels(Graph& graph, Notes& notes); // rows of zeros without bias, columns nobody fills

}  // namespace secateur
