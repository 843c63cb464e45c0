// What the passes over quantized graphs share: grids of activations, quantized constants.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "graph/attrs.h"
#include "graph/passes/rewriter.h"

namespace secateur {

inline bool has_input(const Node& n, size_t i) { return i < n.inputs.size() && !n.inputs[i].empty(); }
inline bool is(const Node& n, const char* op) { return n.domain.empty() && n.op == op; }

// A tensor of bytes, per tensor: value = (q - zero) * scale with q as u8; s8 is shifted by 128.
struct Grid {
  std::string value;
  float scale = 1;
  int64_t zero = 0;
  bool s8 = false;
  bool operator==(const Grid& o) const { return scale == o.scale && zero == o.zero; }
};
inline Steps steps(const Grid& g) { return {g.scale, g.zero, g.s8}; }
// Scale and zero point of a QuantizeLinear or DequantizeLinear, when constant, one for all and of 8 bits; else *why
// says what is amiss.
std::optional<Grid> grid_of(const Rewriter& r, const Node& n, std::string* why = nullptr);
// The grid of a dequantized activation.
std::optional<Grid> dequantized(const Rewriter& r, const std::string& value, std::string* why = nullptr);

// A quantized constant: its integers less their zero points, its scales.
struct QuantizedConstant {
  std::vector<int64_t> dims;
  std::vector<int32_t> q;
  const Tensor* scale = nullptr;  // a scalar or one axis
  int64_t axis = 0;               // in [0, rank)
};
// That behind a value: of 8 bits, or (bias) of int32; else *why says what is amiss.
std::optional<QuantizedConstant> constant_of(const Rewriter& r, const std::string& value, bool bias,
                                             std::string* why = nullptr);
// Integers of s8 or u8 less zero points, of which there are none (null), one, or one per element of `axis`.
std::vector<int32_t> less_zeros(const Tensor& q, const Tensor* zero, size_t axis);
// Weights [out][...] for a layer's node: s8, or s16 where they need it. `rows`: w is so already, else [in][out].
Tensor layer_weights(const std::vector<int32_t>& w, const std::vector<int64_t>& dims, bool rows);

// Drops nodes that nothing reads, all but those that make an output of the graph.
void drop_unread(Graph& graph);

// ConvInteger and MatMulInteger whose weights are constant -> integer layers, with the Cast, Mul and Add behind them.
// Returns how many.
size_t fuse_dynamic(Rewriter& r);

}  // namespace secateur
