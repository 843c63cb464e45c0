// The fuzzers' seeds: together they hold every operator of the engine and every pattern that a pass looks for.
#pragma once

#include "graph/fuzzing/net.h"
#include "graph/fuzzing/seeds_integers.h"

namespace secateur::fuzzing {

// ---- operators
// -------------------------------------------------------------------------------------------------------

inline Graph elementwise_seed() {
  Net n(20);
  const auto x = n.input({2, 8});
  std::string v = x;
  for (const char* op : {"Abs",
                         "Ceil",
                         "Celu",
                         "Cos",
                         "Elu",
                         "Erf",
                         "Exp",
                         "Floor",
                         "HardSigmoid",
                         "HardSwish",
                         "LeakyRelu",
                         "Mish",
                         "Neg",
                         "Relu",
                         "Round",
                         "Selu",
                         "Sigmoid",
                         "Sign",
                         "Sin",
                         "Softplus",
                         "Softsign",
                         "Tanh",
                         "ThresholdedRelu",
                         "Gelu"})
    v = n.op(op, {v});
  const auto positive = n.op("Add", {n.op("Abs", {x}), n.f(1)});
  v = n.op("Add", {v, n.op("Log", {n.op("Sqrt", {n.op("Reciprocal", {positive})})})});
  v = n.op("Sub", {n.op("Div", {v, positive}), n.w({8})});
  v = n.op("Max", {n.op("Min", {v, x, n.f(1)}), n.op("Pow", {positive, n.f(0.5f)})});
  v = n.op("PRelu", {n.op("Clip", {v, n.f(-1), n.f(1)}), n.w({8})});
  n.result(n.op("Swish", {n.op("Dropout", {n.op("Identity", {v})})}));
  return n.graph;
}

inline Graph logic_seed() {
  Net n;
  const auto x = n.input({2, 5}), y = n.input({2, 1});
  const auto a = n.op("And", {n.op("Greater", {x, y}), n.op("LessOrEqual", {x, n.f(1)})});
  const auto b =
      n.op("Xor", {n.op("Less", {x, y}), n.op("Or", {n.op("GreaterOrEqual", {x, n.f(0)}), n.op("Not", {a})})});
  const auto at = n.op("ArgMax", {x}, {{"axis", num(1)}}),
             low = n.op("ArgMin", {x}, {{"axis", num(-1)}, {"keepdims", num(1)}});
  const auto odd = n.op("Or", {n.op("Equal", {n.op("Mod", {at, n.i({2})}), n.op("Neg", {low})}), n.op("IsNaN", {y})});
  n.op("TopK", {n.op("Where", {n.op("And", {b, odd}), x, y}), n.i({2})}, {{"axis", num(-1)}, {"largest", num(0)}}, 2);
  const auto values = n.out(0), from = n.out(1);
  n.result(n.op("Add", {values, n.op("Cast", {from}, {{"to", num(1)}})}));
  return n.graph;
}

inline Graph shape_seed() {
  Net n;
  const auto x = n.input({2, 4, 6});
  const auto s = n.op("Shape", {x});
  const auto batch = n.op("Gather", {s, n.i({0})}), t = n.op("Concat", {batch, n.i({-1})}, {{"axis", num(0)}});
  auto v = n.op("Slice", {n.op("Reshape", {x, t}), n.i({0}), n.i({20}), n.i({1}), n.i({2})});
  v = n.op("Transpose", {n.op("Pad", {v, n.i({0, 1, 0, 2}), n.f(1)})}, {{"perm", list({1, 0})}});
  v = n.op("Squeeze", {n.op("Unsqueeze", {v, n.i({0})}), n.i({0})});
  n.op("Split", {n.op("Flatten", {v}), n.i({3, 10})}, {{"axis", num(0)}}, 2);
  v = n.op("Concat", {n.out(1), n.out(0)}, {{"axis", num(0)}});
  v = n.op("Tile", {n.op("Expand", {n.op("Unsqueeze", {v, n.i({1})}), n.i({1, 3, 1})}), n.i({1, 2, 1})});
  v = n.op("Gather", {v, n.op("Range", {n.scalar(0), n.scalar(3), n.scalar(2)})}, {{"axis", num(1)}});
  const auto filled = n.op("ConstantOfShape", {n.i({1, 2, 1})}),
             fixed = n.op("Constant", {}, {{"value_float", real(2)}});
  v = n.op("Mul", {n.op("Add", {v, filled}), fixed});
  v = n.op("Softmax", {n.op("LogSoftmax", {v}, {{"axis", num(0)}})}, {{"axis", num(1)}});
  v = n.op("ReduceSum", {n.op("ReduceMax", {v, n.i({0})}), n.i({1})}, {{"keepdims", num(0)}});
  n.result(n.op("ReduceMean", {n.op("ReduceProd", {n.op("ReduceMin", {v, n.i({0})}), n.i({1})})}));
  return n.graph;
}

inline Graph triangle_seed() {
  Net n;
  const auto x = n.input({2, 3, 4});
  auto v = n.op("Trilu", {n.op("Trilu", {x, n.scalar(-1)}, {{"upper", num(1)}}), n.scalar(2)}, {{"upper", num(0)}});
  v = n.op("Mul", {v, n.op("CastLike", {n.op("Size", {x}), x})});
  v = n.op("ReduceL1", {n.op("ReduceL2", {v, n.i({0})}), n.i({1})});
  v = n.op("ReduceLogSumExp", {n.op("ReduceSumSquare", {v, n.i({2})}), n.i({0})});
  n.result(n.op("ReduceLogSum", {v}));
  return n.graph;
}

inline Graph lookup_seed() {
  Net n;
  const auto ids = n.input({2, 3}, DType::kInt64), short_ids = n.input({2}, DType::kInt32);
  const auto words = n.op("Gather", {n.w({5, 4}), ids}), kinds = n.op("Gather", {n.w({2, 4}), short_ids});
  const auto sum = n.op("Add", {words, n.op("Unsqueeze", {kinds, n.i({1})})});
  n.result(n.op("GatherND", {sum, n.op("Reshape", {n.i({0, 2, 0, -1}), n.i({2, 2})})}));
  return n.graph;
}

inline Graph image_seed() {
  Net n;
  const auto x = n.input({2, 4, 6, 6});
  auto v = n.op("ConvTranspose", {x, n.w({4, 2, 3, 3}), n.w({2})},
                {{"strides", list({2, 2})}, {"output_padding", list({1, 0})}, {"pads", list({1, 0, 0, 1})}});
  v = n.op("Resize", {v, "", n.f(1.5f, {4})}, {{"mode", text("linear")}});
  v = n.op("Resize", {v, "", "", n.i({2, 3, 4, 4})},
           {{"mode", text("cubic")}, {"coordinate_transformation_mode", text("align_corners")}});
  v = n.op(
      "Resize", {v, "", "", n.i({8, 8})},
      {{"axes", list({2, 3})}, {"nearest_mode", text("ceil")}, {"coordinate_transformation_mode", text("asymmetric")}});
  v = n.op("DepthToSpace", {n.op("SpaceToDepth", {v}, {{"blocksize", num(2)}})},
           {{"blocksize", num(2)}, {"mode", text("CRD")}});
  v = n.op("Pad", {v, n.i({0, 0, 1, 1, 0, 0, 1, 2})}, {{"mode", text("reflect")}});
  v = n.op("LRN", {v}, {{"size", num(3)}});
  v = n.op("Concat",
           {n.op("MaxPool", {v}, {{"kernel_shape", list({3, 2})}, {"ceil_mode", num(1)}, {"strides", list({2, 1})}}),
            n.op("AveragePool", {v},
                 {{"kernel_shape", list({3, 2})},
                  {"ceil_mode", num(1)},
                  {"strides", list({2, 1})},
                  {"dilations", list({1, 1})}})},
           {{"axis", num(1)}});
  n.result(n.op("Add", {n.op("GlobalMaxPool", {v}), n.op("GlobalAveragePool", {v})}));
  return n.graph;
}

inline Graph products_seed() {
  Net n;
  const auto x = n.input({2, 3, 4}), y = n.input({2, 4, 3}), m = n.input({2, 4});
  const auto p = n.op("Einsum", {x, y}, {{"equation", text("bij,bjk->bik")}}), q = n.op("MatMul", {x, y});
  const auto r = n.op("Einsum", {n.op("Add", {p, q})}, {{"equation", text("bii->bi")}}),
             s = n.op("Einsum", {x, n.w({4, 3})}, {{"equation", text("...j,ji->...i")}});
  const auto g = n.op("Gemm", {m, m, n.w({4})}, {{"transA", num(1)}, {"alpha", real(0.5f)}, {"beta", real(2)}}),
             h = n.op("Gemm", {m, n.op("MatMul", {n.w({3, 4}), n.w({4, 4})}), n.w({3})}, {{"transB", num(1)}});
  n.result(n.op(
      "Add", {n.op("ReduceSum", {g}),
              n.op("Add", {n.op("ReduceSum", {h}), n.op("Add", {n.op("ReduceSum", {r}), n.op("ReduceSum", {s})})})}));
  return n.graph;
}

inline Graph norms_seed() {
  Net n(23);
  const auto x = n.input({2, 4, 8});
  auto v = n.op("GroupNormalization", {x, n.w({4}), n.w({4})}, {{"num_groups", num(2)}});
  v = n.op("InstanceNormalization", {v, n.w({4}), n.w({4})});
  v = n.op("BatchNormalization", {v, n.w({4}), n.w({4}), n.w({4}), n.f(1, {4})});
  v = n.op("LayerNormalization", {n.op("Add", {v, x}), n.w({8}), n.w({8})}, {}, 3);
  v = n.op("RMSNormalization", {v, n.w({8})});
  v = n.op("SimplifiedLayerNormalization", {v, n.w({8})}, {}, 2);
  v = n.op("SkipLayerNormalization", {v, x, n.w({8}), n.w({8}), n.w({8})}, {}, 4, "com.microsoft");
  for (size_t k : {1, 2}) n.graph.nodes.back().outputs[k].clear();
  v = n.op("SkipSimplifiedLayerNormalization", {v, x, n.w({8})}, {}, 1, "com.microsoft");
  v = n.op("Gelu", {v}, {}, 1, "com.microsoft");
  v = n.op("MultiHeadAttention", {v, v, v}, {{"num_heads", num(2)}}, 1, "com.microsoft");
  const auto half = n.op("Slice", {x, n.i({0}), n.i({4}), n.i({2})});
  v = n.op("Attention", {v, half, half, n.w({4, 4})}, {{"q_num_heads", num(4)}, {"kv_num_heads", num(2)}});
  n.result(v);
  return n.graph;
}

// ---- what the float passes look for
// ----------------------------------------------------------------------------------

inline Graph convolutions_seed() {
  Net n;
  const auto x = n.input({2, 4, 8, 8});
  const Net::Attrs same{{"pads", list({1, 1, 1, 1})}};
  auto v = n.op("BatchNormalization",
                {n.op("Conv", {x, n.w({6, 4, 3, 3}), n.w({6})}, same), n.w({6}), n.w({6}), n.w({6}), n.f(1, {6})});
  v = n.op("LeakyRelu", {v});
  v = n.op("Relu",
           {n.op("Add", {n.op("Conv", {n.op("Pad", {v, n.i({0, 0, 1, 1, 0, 0, 1, 1})}), n.w({6, 6, 3, 3})}), v})});
  v = n.op("Clip", {n.op("Conv", {v, n.w({6, 1, 3, 3})}, {{"group", num(6)}, {"auto_pad", text("SAME_UPPER")}}), n.f(0),
                    n.f(6)});
  v = n.op("Relu", {n.op("Add", {n.op("Conv", {v, n.f(0, {4, 6, 1, 1})}), n.w({4, 1, 1})})});
  v = n.op("MaxPool", {n.op("Relu", {n.op("Conv", {v, n.w({8, 4, 1, 1})})})},
           {{"kernel_shape", list({2, 2})}, {"strides", list({2, 2})}});
  v = n.op("Gemm", {n.op("Flatten", {v}), n.w({5, 128}), n.w({5})}, {{"transB", num(1)}});
  v = n.op("Add", {n.op("BatchNormalization", {v, n.w({5}), n.w({5}), n.w({5}), n.f(1, {5})}), n.w({5})});
  v = n.op("Add", {n.op("MatMul", {n.op("Relu", {v}), n.w({5, 5})}), n.w({5})});
  n.result(n.op("Relu", {n.op("Add", {n.op("MatMul", {v, n.w({5, 5})}), v})}));
  return n.graph;
}

inline Graph dead_channels_seed() {
  Net n;
  const auto x = n.input({2, 2, 6});
  auto v = n.op("Tanh", {n.op("Conv", {x, n.f(0, {4, 2, 3}), n.f(0, {4})})});
  v = n.op("Relu", {n.op("Conv", {v, n.w({4, 4, 1})})});
  v = n.op("Reshape", {n.op("AveragePool", {v}, {{"kernel_shape", list({2})}}), n.i({-1, 12})});
  v = n.op("Relu", {n.op("Gemm", {v, n.w({12, 4}), n.f(0, {4})})});
  n.result(n.op("MatMul", {v, n.f(0, {4, 3})}));
  return n.graph;
}

inline Graph gates_seed() {
  Net n;
  const auto x = n.input({2, 8});
  const auto half = [&](const std::string& v) { return n.op("Mul", {v, n.f(0.5f)}); };
  const auto erf = [&](const std::string& v) {
    return n.op("Add", {n.op("Erf", {n.op("Div", {v, n.f(1.41421356f)})}), n.f(1)});
  };
  auto v = half(n.op("Mul", {x, erf(x)}));
  v = n.op("Mul", {half(v), n.op("Add", {n.op("Erf", {n.op("Mul", {v, n.f(0.70710678f)})}), n.f(1)})});
  v = n.op("Mul", {v, half(erf(v))});
  const auto cube = n.op("Pow", {v, n.f(3)});
  const auto inner = n.op("Mul", {n.op("Add", {v, n.op("Mul", {cube, n.f(0.044715f)})}), n.f(0.79788456f)});
  v = n.op("Mul", {half(v), n.op("Add", {n.op("Tanh", {inner}), n.f(1)})});
  v = n.op("Mul", {v, n.op("Sigmoid", {v})});
  v = n.op("Mul", {v, n.op("Tanh", {n.op("Softplus", {v})})});
  v = n.op("Mul", {v, n.op("HardSigmoid", {v}, {{"alpha", real(1.0f / 6)}})});
  v = n.op("Div", {n.op("Mul", {v, n.op("Clip", {n.op("Add", {v, n.f(3)}), n.f(0), n.f(6)})}), n.f(6)});
  n.result(n.op("Mul", {v, n.op("Div", {n.op("Clip", {n.op("Add", {v, n.f(3)}), n.f(0), n.f(6)}), n.f(6)})}));
  return n.graph;
}

inline Graph written_norms_seed() {
  Net n(17);
  const auto x = n.input({2, 8});
  const Net::Attrs last{{"axes", list({-1})}};
  const auto centred = [&](const std::string& v) { return n.op("Sub", {v, n.op("ReduceMean", {v}, last)}); };
  const auto root = [&](const std::string& squares) {
    return n.op("Sqrt", {n.op("Add", {n.op("ReduceMean", {squares}, last), n.f(1e-5f)})});
  };
  auto d = centred(x);
  auto v = n.op("Div", {d, root(n.op("Pow", {d, n.f(2)}))});
  v = n.op("Add", {n.op("Mul", {v, n.w({8})}), n.w({8})});
  d = centred(v);
  v = n.op("Mul", {n.op("Mul", {d, n.op("Reciprocal", {root(n.op("Mul", {d, d}))})}), n.w({8})});
  const auto inverse = n.op("Div", {n.f(1), root(n.op("Pow", {v, n.f(2)}))});
  n.result(n.op("Mul", {n.op("Mul", {v, inverse}), n.w({8})}));
  return n.graph;
}

inline Graph attention_seed() {
  Net n(17);
  const auto x = n.input({2, 4, 2, 3}), flat = n.input({2, 4, 6});
  const auto turned = [&](const std::string& v, std::vector<int64_t> perm) {
    return n.op("Transpose", {v}, {{"perm", list(std::move(perm))}});
  };
  const auto q = turned(x, {0, 2, 1, 3}), v = turned(x, {0, 2, 1, 3});
  auto s = n.op("Add", {n.op("Div", {n.op("MatMul", {q, turned(x, {0, 2, 3, 1})}), n.f(1.7f)}), n.w({4, 4})});
  const auto a = turned(n.op("MatMul", {n.op("Softmax", {s}, {{"axis", num(-1)}}), v}), {0, 2, 1, 3});
  const auto k = turned(turned(x, {0, 2, 1, 3}), {0, 1, 3, 2});
  const auto b = n.op(
      "MatMul",
      {n.op("Softmax", {n.op("MatMul", {n.op("Mul", {turned(x, {0, 2, 1, 3}), n.f(0.6f)}), k})}, {{"axis", num(3)}}),
       turned(a, {0, 2, 1, 3})});
  s = n.op("MatMul", {flat, turned(flat, {0, 2, 1})});
  const auto c = n.op("MatMul", {n.op("Softmax", {s}, {{"axis", num(-1)}}), flat});
  n.result(n.op("Add", {n.op("ReduceMean", {b}), n.op("ReduceMean", {c})}));
  return n.graph;
}

// Constants of every type, as initializers and as attributes, for readers; and what few nets have of attributes.
inline Graph constants_seed() {
  Net n;
  auto v = n.input({2, 3});
  for (DType t : {DType::kDouble, DType::kInt64, DType::kInt32, DType::kInt16, DType::kInt8, DType::kUInt8,
                  DType::kUInt16, DType::kUInt32, DType::kUInt64, DType::kBool}) {
    v = n.op("Add", {v, n.op("Cast", {n.codes(t, {3})}, {{"to", num(1)}})});
    const auto tensor = std::make_shared<Tensor>(n.graph.initializers.back());
    for (uint8_t& b : n.graph.initializers.back().data) b &= 1;  // a bool's
    v = n.op("Add", {v, n.op("Cast", {n.op("Constant", {}, {{"value", {tensor}}})}, {{"to", num(1)}})});
  }
  const auto mode = n.codes(DType::kBool, {});
  n.graph.initializers.back().data[0] = 0;
  const auto no = std::make_shared<Tensor>(n.graph.initializers.back());
  v = n.op("Dropout", {n.op("Clip", {v}, {{"min", real(0)}, {"max", real(6)}}), n.f(0.5f), mode},
           {{"seed", num(1)}, {"names", {std::vector<std::string>{"a", "b"}}}});
  n.result(n.op("Identity", {n.op("Where", {n.op("Constant", {}, {{"value", {no}}}), v, v})}));
  return n.graph;
}

// More of the float passes: other forms of the same patterns, and forms that they must leave alone.
inline Graph variants_seed() {
  Net n(17);
  const auto x = n.input({2, 4, 8, 8});
  const Net::Attrs pool{{"kernel_shape", list({2, 2})}, {"strides", list({2, 2})}, {"auto_pad", text("VALID")}};
  auto v = n.op("Conv", {n.op("Pad", {x, n.i({0, 0, 1, 1, 0, 0, 1, 1}), n.f(0)}), n.w({4, 4, 3, 3}), n.w({4})},
                {{"auto_pad", text("VALID")}});
  v = n.op("LeakyRelu", {n.op("MaxPool", {n.op("LeakyRelu", {v}, {{"alpha", real(-0.5f)}})}, pool)});
  v = n.op("Add", {n.op("Conv", {v, n.w({4, 4, 1, 1})}), n.w({1, 4, 1, 1})});
  v = n.op("LeakyRelu", {n.op("MaxPool", {n.op("Conv", {v, n.w({4, 4, 1, 1})})}, pool)}, {{"alpha", real(-1)}});
  v = n.op("MaxPool", {n.op("Conv", {v, n.w({4, 4, 1, 1})})},
           {{"kernel_shape", list({2, 2})}, {"auto_pad", text("SAME_UPPER")}});
  const auto dead = n.op("Clip", {n.op("Conv", {v, n.f(0, {4, 4, 1, 1})}), n.f(1), n.f(2)});
  v = n.op("Gemm", {n.op("Flatten", {n.op("Conv", {dead, n.w({4, 4, 1, 1})})}), n.w({16, 4})},
           {{"alpha", real(0.5f)}, {"beta", real(2)}});
  v = n.op("Add", {n.op("Gemm", {v, n.w({4, 4}), n.w({4})}, {{"alpha", real(0.5f)}}), n.w({1, 4})});
  v = n.op("BatchNormalization", {n.op("MatMul", {v, n.w({4, 4})}), n.w({4}), n.w({4}), n.w({4}), n.f(1, {4})});
  v = n.op("Mul", {v, n.op("Mul", {n.op("Clip", {n.op("Add", {v, n.f(3)})}, {{"min", real(0)}, {"max", real(6)}}),
                                   n.f(1.0f / 6)})});
  const auto cube = n.op("Mul", {n.op("Mul", {v, v}), v});
  const auto inner = n.op("Mul", {n.op("Add", {n.op("Mul", {cube, n.f(0.044715f)}), v}), n.f(0.79788456f)});
  v = n.op("Mul", {n.op("Mul", {v, n.op("Add", {n.f(1), n.op("Tanh", {inner})})}), n.f(0.5f)});
  v = n.op("Relu", {n.op("Gemm", {v, n.f(0, {4, 4})}, {{"transA", num(0)}, {"transB", num(1)}})});
  n.result(n.op("Identity", {x}));
  n.result(n.op("Identity", {n.op("Gemm", {v, n.w({2, 3})}, {{"transA", num(1)}})}));
  return n.graph;
}

// Forms of opsets before 11, which become new ones.
inline Graph old_seed() {
  Net n(9);
  const auto x = n.input({2, 2, 4, 4});
  auto v =
      n.op("Upsample",
           {n.op("ImageScaler", {x}, {{"scale", real(0.5f)}, {"bias", {std::vector<float>{0.25f, -1}}}}), n.w({4})},
           {{"mode", text("nearest")}});
  const float scales[] = {1, 1, 2, 1.5f};
  std::memcpy(n.graph.initializers.back().data.data(), scales, sizeof scales);
  v = n.op("Slice", {n.op("Pad", {v}, {{"pads", list({0, 0, 1, 0, 0, 0, 1, 0})}})},
           {{"starts", list({0, 0})}, {"ends", list({2, 8})}, {"axes", list({1, 2})}});
  v = n.op("Dropout", {n.op("Clip", {v}, {{"min", real(-1)}, {"max", real(1)}})}, {{"ratio", real(0.5f)}});
  v = n.op("Sum", {v, n.op("Mean", {v, n.w({2, 1, 1}), n.f(1)}), n.f(2)});
  v = n.op("Unsqueeze", {n.op("ReduceSum", {v}, {{"axes", list({2, 3})}, {"keepdims", num(0)}})},
           {{"axes", list({0})}});
  n.result(n.op("TopK", {n.op("Squeeze", {v}, {{"axes", list({0})}})}, {{"k", num(1)}, {"axis", num(1)}}, 2));
  return n.graph;
}

// More changes of side than a cut may have.
inline Graph many_parts_seed() {
  Net n;
  auto v = n.input({2, 2});
  const auto w = n.w({2, 2});
  for (int k = 0; k < 70; ++k) v = n.op("MatMul", {n.op("Sinh", {v}), w});
  n.result(v);
  return n.graph;
}

// Nodes that the engine refuses, with layers around them: what partition() cuts.
inline Graph refused_seed() {
  Net n;
  const auto x = n.input({2, 4, 4, 4});
  const auto strange = n.op("Det", {n.op("Conv", {x, n.op("Sinh", {n.w({4, 4, 1, 1})})})});
  const auto v =
      n.op("MatMul",
           {n.op("Conv", {x, n.w({4, 4, 1, 1})}),
            n.op("Unsqueeze", {n.op("Constant", {}, {{"value_floats", {std::vector<float>{1, 2, 3, 4}}}}), n.i({1})})});
  n.result(n.op("Add", {n.op("Squeeze", {v, n.i({3})}), n.op("Unsqueeze", {strange, n.i({2})})}));
  n.result(n.op("NonZero", {v}));
  return n.graph;
}

inline std::vector<Graph> seeds() {
  return {elementwise_seed(),
          logic_seed(),
          shape_seed(),
          triangle_seed(),
          lookup_seed(),
          image_seed(),
          products_seed(),
          norms_seed(),
          gates_seed(),
          convolutions_seed(),
          dead_channels_seed(),
          written_norms_seed(),
          attention_seed(),
          integers_seed(DType::kUInt8),
          integers_seed(DType::kInt8),
          integer_operators_seed(),
          refused_seed(),
          constants_seed(),
          variants_seed(),
          long_sums_seed(),
          many_parts_seed(),
          fused_integers_seed(),
          old_seed()};
}

}  // namespace secateur::fuzzing
