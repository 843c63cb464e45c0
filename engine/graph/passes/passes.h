// Rewrites that need no shapes of activations: they run once when a model is loaded. Each keeps the function computed
// (BatchNorm folding up to float64 rounding) and appends lines for explain() saying what it did.
//
// What a fused node carries:
//   Conv, Gemm, MatMul   inputs[2] bias ("" if none), inputs[3] residual, added before the activation
//   _lo, _hi, _slope     floats: y = min(max(x, lo), hi) after x = x < 0 ? slope * x : x
//   _pool                int 1 (Conv): 2x2 max pool, stride 2, after the activation
//   LayerNormalization   inputs[3] residual, added to the input before
//   _rows_first          string (Attention): those of q, k, v, y that stand as [batch, rows, heads, dim]
//   _spatial             int (Flatten): elements per channel the consumer's weights were rearranged for; checked
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"

namespace secateur {

using Notes = std::vector<std::string>;

// All of them, in order.
Notes run_passes(Graph& graph);

void remove_identities(Graph& graph, Notes& notes);    // Identity, inference Dropout
void fuse_patterns(Graph& graph, Notes& notes);        // GELU, SiLU, LayerNorm, attention, ... written in small operators
void fold_batch_norms(Graph& graph, Notes& notes);     // into the Conv, Gemm or MatMul before; float64
void fuse_bias(Graph& graph, Notes& notes);            // MatMul + Add, Conv + Add of a constant
void fuse_pads(Graph& graph, Notes& notes);            // zero Pad into Conv
void fuse_norm_residuals(Graph& graph, Notes& notes);  // Add into the LayerNormalization after it
void fuse_epilogues(Graph& graph, Notes& notes);       // residual Add, Relu, Clip, LeakyRelu, 2x2 max pool
void remove_dead_channels(Graph& graph, Notes& notes); // rows of zeros without bias, columns nobody fills

}  // namespace secateur
