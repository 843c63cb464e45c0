// The fuzzers' seeds of integers: quantized layers, and what quantizers of runtimes make of whole stretches.
#pragma once

#include "graph/fuzzing/net.h"

namespace secateur::fuzzing {

struct Grid {
  std::string scale, zero;
};

inline std::string through(Net& n, const std::string& v, const Grid& g) {
  return n.op("DequantizeLinear", {n.op("QuantizeLinear", {v, g.scale, g.zero}), g.scale, g.zero});
}

inline Graph integers_seed(DType type) {
  Net n(13);
  const Grid g{n.f(0.0625f), n.byte(type, 3)};
  const auto none = n.byte(DType::kInt8, 0), bias_scale = n.f(0.00390625f, {4}), scales = n.f(0.0625f, {4});
  const auto weight = [&](std::vector<int64_t> dims) {
    return n.op("DequantizeLinear", {n.codes(DType::kInt8, std::move(dims)), g.scale, none});
  };
  const auto bias = n.op("DequantizeLinear", {n.codes(DType::kInt32, {4}), bias_scale}, {{"axis", num(0)}});
  const auto x = through(n, n.input({2, 4, 6, 6}), g);
  const auto w = n.op("DequantizeLinear", {n.codes(DType::kInt8, {4, 4, 3, 3}), scales}, {{"axis", num(0)}});
  const Net::Attrs same{{"pads", list({1, 1, 1, 1})}};
  auto v = through(n, n.op("Relu", {n.op("Conv", {x, w, bias}, same)}), g);
  v = through(
      n, n.op("Clip", {n.op("Add", {through(n, n.op("Conv", {v, weight({4, 4, 1, 1})}), g), x}), n.f(-3), n.f(3)}), g);
  v = through(n, n.op("Conv", {v, weight({4, 1, 3, 3})}, {{"pads", list({1, 1, 1, 1})}, {"group", num(4)}}), g);
  v = through(n, n.op("MaxPool", {v}, {{"kernel_shape", list({2, 2})}}), g);
  v = through(n, n.op("AveragePool", {v}, {{"kernel_shape", list({2, 2})}}), g);
  v = through(n, n.op("Flatten", {through(n, n.op("GlobalAveragePool", {v}), g)}), g);
  v = through(n, n.op("Reshape", {v, n.i({-1, 4})}), g);
  v = through(n, n.op("Gemm", {v, weight({4, 4}), bias}, {{"transB", num(1)}}), g);
  v = through(n, n.op("Add", {n.op("MatMul", {v, weight({4, 4})}), n.w({4})}), g);
  v = through(n, n.op("Gelu", {n.op("MatMul", {v, weight({4, 4})})}), g);
  n.graph.opsets[""] = 20;
  n.result(n.op("MatMul", {v, weight({4, 5})}));
  return n.graph;
}

inline Graph integer_operators_seed() {
  Net n;
  const Grid g{n.f(0.0625f), n.byte(DType::kUInt8, 3)}, w{n.f(0.03125f), n.byte(DType::kInt8, 0)};
  const char* ms = "com.microsoft";
  const auto x = n.op("QuantizeLinear", {n.input({2, 2, 4, 4}), g.scale, g.zero});
  auto v = n.op("QLinearConv", {x, g.scale, g.zero, n.codes(DType::kInt8, {4, 2, 3, 3}), w.scale, w.zero, g.scale,
                                g.zero, n.codes(DType::kInt32, {4})});
  v = n.op("QLinearAdd", {v, g.scale, g.zero, v, g.scale, g.zero, g.scale, g.zero}, {}, 1, ms);
  const auto sums = n.op("ConvInteger", {v, n.codes(DType::kInt8, {3, 4, 1, 1}), g.zero, w.zero});
  v = n.op("Flatten", {n.op("QLinearGlobalAveragePool", {v, g.scale, g.zero, g.scale, g.zero}, {}, 1, ms)});
  v = n.op("QGemm",
           {v, g.scale, g.zero, n.codes(DType::kInt8, {3, 4}), w.scale, w.zero, n.codes(DType::kInt32, {3}), g.scale,
            g.zero},
           {{"transB", num(1)}}, 1, ms);
  v = n.op("QLinearMatMul", {v, g.scale, g.zero, n.codes(DType::kInt8, {3, 5}), w.scale, w.zero, g.scale, g.zero});
  v = n.op("QLinearMatMul", {v, g.scale, g.zero, n.codes(DType::kInt8, {5, 5}), w.scale, w.zero, g.scale, g.zero}, {},
           1, ms);
  const auto y = n.op("DequantizeLinear", {v, g.scale, g.zero});
  n.op("DynamicQuantizeLinear", {y}, {}, 3);
  const auto u = n.out(0), scale = n.out(1), zero = n.out(2);
  const auto p =
      n.op("Mul",
           {n.op("Cast", {n.op("MatMulInteger", {u, n.codes(DType::kInt8, {5, 3}), zero})}, {{"to", num(1)}}), scale});
  const auto q = n.op("Cast",
                      {n.op("MatMulInteger", {u, n.op("Cast", {n.codes(DType::kInt32, {5, 3})}, {{"to", num(2)}}), zero,
                                              n.byte(DType::kUInt8, 2)})},
                      {{"to", num(1)}});
  const auto r = n.op("ReduceMean", {n.op("Cast", {sums}, {{"to", num(1)}})});
  n.result(n.op("Add", {n.op("Add", {p, q}), n.op("ReduceMean", {r})}));
  return n.graph;
}

// Sums that may leave int32, and dynamic integers with a constant zero point.
inline Graph long_sums_seed() {
  Net n;
  const Grid g{n.f(0.0625f), n.byte(DType::kUInt8, 3)};
  const auto w = n.codes(DType::kInt8, {1 << 15, 2});
  const auto x = through(n, n.op("Expand", {n.input({2, 1}), n.i({1, 1 << 15})}), g);
  const auto y = n.op("MatMul", {x, n.op("DequantizeLinear", {w, g.scale, n.byte(DType::kInt8, 0)})});
  const auto q = n.op("QuantizeLinear", {y, g.scale, g.zero});
  const auto sum = n.op("MatMulInteger", {q, n.codes(DType::kInt8, {2, 3}), g.zero, n.byte(DType::kInt8, 0)});
  n.result(n.op("Cast", {sum}, {{"to", num(1)}}));
  return n.graph;
}

// What quantizers of one runtime make of whole stretches: gates, joins and pools of bytes, products that quantize their
// input.
inline Graph fused_integers_seed() {
  Net n;
  const char* ms = "com.microsoft";
  const auto s = n.f(0.0625f), z = n.byte(DType::kUInt8, 3);
  const auto x = n.op("QuantizeLinear", {n.input({2, 4, 4, 4}), s, z});
  const auto gate =
      n.op("QLinearSigmoid", {n.op("QLinearLeakyRelu", {x, s, z, s, z}, {{"alpha", real(0.1f)}}, 1, ms), s, z, s, z},
           {}, 1, ms);
  const auto product = n.op("QLinearMul", {x, s, z, gate, s, z, s, z}, {}, 1, ms);
  auto v = n.op("QLinearConcat", {s, z, product, s, z, gate, s, z}, {{"axis", num(1)}}, 1, ms);
  v = n.op("QLinearAveragePool", {v, s, z, s, z}, {{"kernel_shape", list({2, 2})}, {"strides", list({2, 2})}}, 1, ms);
  n.result(n.op("DequantizeLinear", {v, s, z}));
  const auto y = n.input({2, 8}), w = n.codes(DType::kInt8, {8, 3}), step = n.f(0.01f), none = n.byte(DType::kInt8, 0);
  n.result(n.op("DynamicQuantizeMatMul", {y, w, step, none, n.w({3})}, {}, 1, ms));
  const auto q = n.op("DynamicQuantizeLinear", {y}, {}, 3);
  const auto q_scale = n.out(1), q_zero = n.out(2);
  n.result(n.op("MatMulIntegerToFloat", {q, w, q_scale, step, q_zero, none}, {}, 1, ms));
  return n.graph;
}

}  // namespace secateur::fuzzing
