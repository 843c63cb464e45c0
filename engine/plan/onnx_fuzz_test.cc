// Mutated ONNX files through reader, passes, plan and one run: only the engine's own errors may come out. Meant for
// AddressSanitizer and UBSan (make sanitize); time-boxed: SECATEUR_FUZZ_SECONDS, default 5.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "graph/onnx_read.h"
#include "graph/onnx_write.h"
#include "plan/session.h"

using namespace secateur;

namespace {

Tensor floats(const char* name, std::vector<int64_t> dims, std::mt19937& rng) {
  Tensor t;
  t.name = name;
  t.dims = std::move(dims);
  std::uniform_real_distribution<float> d(-1, 1);
  std::vector<float> v(static_cast<size_t>(t.numel()));
  for (float& x : v) x = rng() % 3 ? 0.0f : d(rng);
  t.data.resize(v.size() * 4);
  std::memcpy(t.data.data(), v.data(), t.data.size());
  return t;
}

Tensor ints(const char* name, const std::vector<int64_t>& v) {
  Tensor t;
  t.name = name;
  t.dtype = DType::kInt64;
  t.dims = {static_cast<int64_t>(v.size())};
  t.data.resize(v.size() * 8);
  std::memcpy(t.data.data(), v.data(), t.data.size());
  return t;
}

// Bytes of any value; of int32, small numbers.
Tensor codes(const char* name, DType dtype, std::vector<int64_t> dims, std::mt19937& rng) {
  Tensor t;
  t.name = name;
  t.dtype = dtype;
  t.dims = std::move(dims);
  t.data.assign(static_cast<size_t>(t.numel()) * dtype_size(dtype), 0);
  for (size_t i = 0; i < t.data.size(); i += dtype_size(dtype)) t.data[i] = static_cast<uint8_t>(rng());
  return t;
}

Node node(const char* op, std::vector<std::string> in, std::vector<std::string> out) {
  Node n;
  n.op = op;
  n.inputs = std::move(in);
  n.outputs = std::move(out);
  return n;
}

Graph frame() {
  Graph g;
  g.name = "g";
  g.opsets[""] = 13;
  g.inputs = {{"x", DType::kFloat, {{-1, "n"}, {2, ""}, {8, ""}, {8, ""}}, true}};
  g.outputs = {{"y", DType::kFloat, {}, false}};
  return g;
}

std::vector<std::string> models() {
  std::mt19937 rng(1);
  Graph conv = frame();
  conv.initializers = {floats("w1", {4, 2, 3, 3}, rng), floats("b1", {4}, rng), floats("w2", {5, 64}, rng)};
  Node c = node("Conv", {"x", "w1", "b1"}, {"a"});
  c.attrs["pads"].value = std::vector<int64_t>{1, 1, 1, 1};
  Node bn = node("BatchNormalization", {"a", "b1", "b1", "b1", "b1"}, {"b"});
  Node pool = node("MaxPool", {"r"}, {"p"});
  pool.attrs["kernel_shape"].value = std::vector<int64_t>{2, 2};
  pool.attrs["strides"].value = std::vector<int64_t>{2, 2};
  Node gemm = node("Gemm", {"f", "w2"}, {"y"});
  gemm.attrs["transB"].value = int64_t{1};
  conv.nodes = {c, bn, node("Relu", {"b"}, {"r"}), pool, node("Flatten", {"p"}, {"f"}), gemm};

  Graph shape = frame();
  shape.initializers = {ints("zero", {0}), ints("rest", {-1}), ints("one", {1}), ints("two", {2}), ints("pads", {0, 1, 0, 2})};
  shape.nodes = {node("Shape", {"x"}, {"s"}),           node("Gather", {"s", "zero"}, {"g"}),
                 node("Concat", {"g", "rest"}, {"t"}),  node("Reshape", {"x", "t"}, {"r"}),
                 node("Slice", {"r", "zero", "rest", "one", "two"}, {"sl"}), node("Pad", {"sl", "pads"}, {"p"}),
                 node("Transpose", {"p"}, {"q"}),       node("Softmax", {"q"}, {"m"}),
                 node("ReduceMean", {"m"}, {"y"})};
  shape.nodes[2].attrs["axis"].value = int64_t{0};

  Graph quant = frame();
  Tensor q = floats("q", {3, 2, 1, 1}, rng);
  q.dtype = DType::kInt8;
  q.data.resize(6);
  quant.initializers = {q, floats("scale", {3}, rng), floats("one", {}, rng)};
  Node dq = node("DequantizeLinear", {"q", "scale"}, {"w"});
  dq.attrs["axis"].value = int64_t{0};
  Node ql = node("QuantizeLinear", {"c", "one"}, {"u"});
  quant.nodes = {dq, node("Conv", {"x", "w"}, {"c"}), ql, node("DequantizeLinear", {"u", "one"}, {"d"}),
                 node("GlobalAveragePool", {"d"}, {"h"}), node("Add", {"h", "h"}, {"y"})};

  // Integer layers as QuantizeLinear and DequantizeLinear: convolutions with a residual, pools, a linear layer.
  Graph integers = frame();
  integers.initializers = {floats("s", {}, rng),
                           floats("bs", {4}, rng),
                           codes("z", DType::kUInt8, {}, rng),
                           codes("w1", DType::kInt8, {4, 2, 3, 3}, rng),
                           codes("b", DType::kInt32, {4}, rng),
                           codes("w2", DType::kInt8, {4, 4, 3, 3}, rng),
                           codes("w3", DType::kInt8, {5, 4}, rng)};
  const float step = 0.0625f, steps[] = {step * step, step * step, step * step, step * step};
  std::memcpy(integers.initializers[0].data.data(), &step, 4);
  std::memcpy(integers.initializers[1].data.data(), steps, sizeof steps);
  const auto through = [&](const std::string& value, const std::string& end) {
    integers.nodes.push_back(node("QuantizeLinear", {value, "s", "z"}, {"q" + value}));
    integers.nodes.push_back(node("DequantizeLinear", {"q" + value, "s", "z"}, {end}));
  };
  const auto step_of = [&](Node n) { integers.nodes.push_back(std::move(n)); };
  for (const char* w : {"w1", "w2", "w3"}) step_of(node("DequantizeLinear", {w, "s"}, {std::string("d") + w}));
  step_of(node("DequantizeLinear", {"b", "bs"}, {"db"}));
  integers.nodes.back().attrs["axis"].value = int64_t{0};
  Node first = node("Conv", {"dx", "dw1", "db"}, {"c1"}), second = node("Conv", {"d1", "dw2"}, {"c2"});
  first.attrs["pads"].value = second.attrs["pads"].value = std::vector<int64_t>{1, 1, 1, 1};
  Node tail = node("Gemm", {"d6", "dw3"}, {"h"});
  tail.attrs["transB"].value = int64_t{1};
  through("x", "dx"), step_of(first), step_of(node("Relu", {"c1"}, {"r1"}));
  through("r1", "d1"), step_of(second);
  through("c2", "d2"), step_of(node("Add", {"d2", "d1"}, {"a"}));
  through("a", "d3"), pool.inputs = {"d3"}, step_of(pool);
  through("p", "d4"), step_of(node("GlobalAveragePool", {"d4"}, {"g"}));
  through("g", "d5"), step_of(node("Flatten", {"d5"}, {"f"}));
  through("f", "d6"), step_of(tail);
  through("h", "y");

  // The same as operators on integers, and those whose zero points come while running.
  Graph operators = frame();
  operators.opsets["com.microsoft"] = 1;
  operators.initializers = integers.initializers;
  operators.initializers.push_back(codes("w4", DType::kInt8, {3, 4, 1, 1}, rng));
  operators.initializers.push_back(codes("m", DType::kUInt8, {8, 3}, rng));
  operators.initializers.push_back(codes("wz", DType::kInt8, {}, rng));
  operators.initializers.back().data[0] = 0;
  Node sum = node("QLinearAdd", {"q1", "s", "z", "q1", "s", "z", "s", "z"}, {"q2"});
  sum.domain = "com.microsoft";
  Node floats_i = node("Cast", {"i"}, {"fi"}), floats_j = node("Cast", {"j"}, {"fj"});
  floats_i.attrs["to"].value = floats_j.attrs["to"].value = int64_t{1};
  operators.nodes = {node("QuantizeLinear", {"x", "s", "z"}, {"q0"}),
                     node("QLinearConv", {"q0", "s", "z", "w1", "s", "wz", "s", "z", "b"}, {"q1"}), sum,
                     node("ConvInteger", {"q2", "w4", "z"}, {"i"}), floats_i,
                     node("DynamicQuantizeLinear", {"x"}, {"u", "us", "uz"}),
                     node("MatMulInteger", {"u", "m", "uz"}, {"j"}), floats_j,
                     node("ReduceMean", {"fi"}, {"mi"}), node("ReduceMean", {"fj"}, {"mj"}), node("Add", {"mi", "mj"}, {"y"})};

  // Attention and GELU written out, norms: what the pattern passes look for.
  Graph words = frame();
  words.initializers = {floats("w", {8, 8}, rng), floats("g", {8}, rng), floats("one", {}, rng)};
  const float one = 1.0f;
  std::memcpy(words.initializers[2].data.data(), &one, 4);
  Node turn = node("Transpose", {"x"}, {"k"});
  turn.attrs["perm"].value = std::vector<int64_t>{0, 1, 3, 2};
  Node group = node("GroupNormalization", {"ln", "p", "p"}, {"gn"});
  group.attrs["num_groups"].value = int64_t{2};
  words.initializers.push_back(floats("p", {2}, rng));
  words.nodes = {turn, node("MatMul", {"x", "k"}, {"s"}), node("Softmax", {"s"}, {"m"}), node("MatMul", {"m", "x"}, {"a"}),
                 node("Attention", {"a", "x", "x"}, {"b"}), node("MatMul", {"b", "w"}, {"l"}), node("Add", {"l", "x"}, {"r"}),
                 node("LayerNormalization", {"r", "g", "g"}, {"ln"}), group, node("Erf", {"gn"}, {"e"}),
                 node("Add", {"e", "one"}, {"f"}), node("Mul", {"gn", "f"}, {"h"}), node("Sigmoid", {"h"}, {"i"}),
                 node("Mul", {"h", "i"}, {"y"})};

  // Operators that move, pick and resample.
  Graph pick = frame();
  pick.initializers = {floats("w", {2, 3, 3, 3}, rng), floats("scales", {4}, rng), ints("two", {2}), ints("twice", {1, 2, 1, 1}),
                       ints("pads", {0, 0, 1, 1, 0, 0, 1, 1})};
  const float scales[] = {1, 1, 2, 1.5f};
  std::memcpy(pick.initializers[1].data.data(), scales, sizeof scales);
  Node up = node("ConvTranspose", {"x", "w"}, {"a"});
  up.attrs["strides"].value = std::vector<int64_t>{2, 2};
  Node resize = node("Resize", {"a", "", "scales"}, {"b"});
  resize.attrs["mode"].value = std::string("linear");
  Node deep = node("SpaceToDepth", {"x"}, {"c"});
  deep.attrs["blocksize"].value = int64_t{2};
  Node mirror = node("Pad", {"c", "pads"}, {"d"});
  mirror.attrs["mode"].value = std::string("reflect");
  Node product = node("Einsum", {"d", "d"}, {"e"});
  product.attrs["equation"].value = std::string("nchw,ncwv->nhcv");
  pick.nodes = {up, resize, deep, mirror, product, node("Tile", {"e", "twice"}, {"f"}), node("TopK", {"f", "two"}, {"g", "i"}),
                node("ArgMax", {"b"}, {"j"}), node("Equal", {"j", "j"}, {"k"}), node("Where", {"k", "b", "b"}, {"l"}),
                node("ReduceMean", {"l"}, {"m"}), node("Add", {"g", "m"}, {"y"})};
  return {write_onnx(conv), write_onnx(shape), write_onnx(quant), write_onnx(words),
          write_onnx(pick), write_onnx(integers), write_onnx(operators)};
}

void try_one(const std::string& bytes) {
  Session session({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, 1);
  const auto dims = session.declared_dims(2);
  const auto plan = session.plan(dims);
  if (plan->arena_bytes > (size_t{1} << 20)) return;  // large is allowed, and slow
  const Session::Lease lease(session, dims);
  for (size_t i = 0; i < dims.size(); ++i) std::memset(lease.input(i), 0, lease.input_bytes(i));
  lease.run();
}

}  // namespace

int main() {
  const char* given = std::getenv("SECATEUR_FUZZ_SECONDS");
  const double seconds = given ? std::atof(given) : 5.0;
  const auto seeds = models();
  for (const auto& m : seeds) try_one(m);
  std::mt19937 rng(7);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  long count = 0, ran = 0;
  while (std::chrono::steady_clock::now() < end) {
    std::string m = seeds[static_cast<size_t>(count) % seeds.size()];
    for (unsigned k = rng() % 4 + 1; k-- > 0 && !m.empty();) {
      const size_t at = rng() % m.size();
      switch (rng() % 5) {
        case 0: m[at] = static_cast<char>(m[at] ^ (1 << rng() % 8)); break;
        case 1: m[at] = static_cast<char>(rng()); break;
        case 2: m.erase(at, rng() % 8 + 1); break;
        case 3: m.insert(at, std::string(rng() % 8 + 1, static_cast<char>(rng()))); break;
        default: m.resize(at);
      }
    }
    ++count;
    try {
      try_one(m);
      ++ran;
    } catch (const FormatError&) {
    } catch (const UnsupportedError&) {
    } catch (const UsageError&) {
    } catch (const MemoryError&) {
    }
  }
  std::printf("%ld mutants, %ld still ran\n", count, ran);
  return 0;
}
