// The index of a graph under rewriting agrees with a walk over its nodes after any rewrites, and passes over a graph of
// 20,000 nodes touch it in proportion.
#include "graph/passes/rewriter.h"

#include <cstdio>
#include <random>

#include "graph/passes/passes.h"

using namespace secateur;

namespace {

int failures = 0;

void check(bool ok, const char* what, uint64_t seed = 0) {
  if (ok) return;
  std::printf("FAILED: %s (seed or count %llu)\n", what, static_cast<unsigned long long>(seed));
  ++failures;
}

std::string value(size_t i) { return "v" + std::to_string(i); }

Node make(const char* op, std::vector<std::string> inputs, std::string output) {
  Node n;
  n.op = op;
  n.inputs = std::move(inputs);
  n.outputs = {std::move(output)};
  return n;
}

void compare(const Rewriter& r, size_t values, uint64_t seed) {
  for (size_t v = 0; v < values; ++v) {
    const std::string name = value(v);
    int maker = -1;
    std::vector<size_t> readers;
    for (size_t i = 0; i < r.size(); ++i) {
      if (r.dead(i)) continue;
      for (const auto& out : r.node(i).outputs)
        if (out == name) maker = static_cast<int>(i);
      for (const auto& in : r.node(i).inputs)
        if (in == name) readers.push_back(i);
    }
    check(r.producer(name) == maker, "producer", seed);
    check(r.consumers(name) == readers, "consumers", seed);
    check(r.only_consumer(name) == (readers.size() == 1 && !r.is_output(name) ? static_cast<int>(readers[0]) : -1),
          "only consumer", seed);
  }
}

// Random rewrites of a random graph; values are never given a second maker, as passes never do that either.
void random_rewrites(uint64_t seed) {
  std::mt19937_64 rng(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(rng() % n); };
  Graph g;
  const size_t n = 30;
  size_t values = n + 1;  // v0 is the input
  g.inputs.push_back({value(0), DType::kFloat, {}, true});
  for (size_t i = 0; i < n; ++i) {
    std::vector<std::string> inputs;
    for (size_t k = below(3) + 1; k > 0; --k) inputs.push_back(below(8) == 0 ? "" : value(below(i + 1)));
    g.nodes.push_back(make("Sum", inputs, value(i + 1)));
  }
  g.outputs.push_back({value(n), DType::kFloat, {}, true});
  g.outputs.push_back({value(n / 2), DType::kFloat, {}, true});
  Rewriter r(g);
  compare(r, values, seed);
  for (int step = 0; step < 60; ++step) {
    const size_t i = below(n);
    if (r.dead(i)) continue;
    switch (below(6)) {
      case 0:
        r.kill(i);
        break;
      case 1:
        r.redirect(value(below(values)), value(below(values)));
        break;
      case 2:
        r.set_input(i, below(4), below(5) == 0 ? "" : value(below(values)));
        break;
      case 3:
        r.take_output(i, value(values++));
        break;
      case 4:
        r.replace(i, make("Max", {value(below(values)), value(below(values))}, r.node(i).outputs[0]));
        break;
      default:
        r.sweep_dead_code();
    }
    compare(r, values, seed);
  }
  r.sweep_dead_code();
  for (size_t i = 0; i < n; ++i) {
    if (r.dead(i)) continue;
    bool used = false;
    for (const auto& out : r.node(i).outputs) used = used || r.is_output(out) || !r.consumers(out).empty();
    check(used, "dead code left", seed);
  }
}

// A chain of `n` nodes that `kind` names the operators of, in turn.
uint64_t work_of(const std::vector<const char*>& kind, size_t n) {
  Graph g;
  g.opsets[""] = 17;
  g.inputs.push_back({value(0), DType::kFloat, {{1, ""}, {4, ""}}, true});
  const auto add = [&](const char* name, DType type, std::vector<int64_t> dims, size_t bytes) {
    Tensor t;
    t.name = name;
    t.dtype = type;
    t.dims = std::move(dims);
    t.data.assign(bytes, 1);
    g.initializers.push_back(std::move(t));
  };
  add("w", DType::kFloat, {4, 4}, 64);
  add("b", DType::kFloat, {4}, 16);
  add("s", DType::kFloat, {}, 4);
  add("z", DType::kUInt8, {}, 1);
  for (size_t i = 0; i < n; ++i) {
    const std::string op = kind[i % kind.size()];
    std::vector<std::string> inputs{value(i)};
    if (op == "Gemm" || op == "MatMul") inputs.push_back("w");
    if (op == "Add" || op == "Mul") inputs.push_back("b");
    if (op == "BatchNormalization") inputs.insert(inputs.end(), 4, "b");
    if (op == "QuantizeLinear" || op == "DequantizeLinear") inputs.insert(inputs.end(), {"s", "z"});
    g.nodes.push_back(make(op.c_str(), inputs, value(i + 1)));
  }
  g.outputs.push_back({value(n), DType::kFloat, {}, true});
  const uint64_t before = Rewriter::work();
  Notes notes;
  remove_identities(g, notes);
  move_quantized_constants(g, notes);
  canonical_pools(g);
  make_tables(g, notes);
  fuse_quantized(g, notes);
  run_passes(g);
  return Rewriter::work() - before;
}

}  // namespace

int main() {
  for (uint64_t seed = 0; seed < 100; ++seed) random_rewrites(seed);
  const std::vector<std::vector<const char*>> kinds = {
      {"Relu"},
      {"Identity"},
      {"Add"},
      {"Mul"},
      {"Erf"},
      {"Softmax"},
      {"Gemm"},
      {"Gemm", "Add"},
      {"Gemm", "Relu"},
      {"MatMul", "Add", "Relu"},
      {"Gemm", "BatchNormalization", "BatchNormalization"},
      {"QuantizeLinear", "DequantizeLinear"},
      {"QuantizeLinear", "DequantizeLinear", "Gemm", "Relu"},
      {"QuantizeLinear", "DequantizeLinear", "Sigmoid"},
      {"QuantizeLinear", "DequantizeLinear", "GlobalAveragePool", "Flatten"},
      {"Sigmoid", "Mul"},
      {"Sqrt"}};
  for (const auto& kind : kinds) {
    const size_t n = 20'000;
    const uint64_t work = work_of(kind, n);
    check(work < 100 * n, "passes touch the index more than 100 times a node", work);
  }
  std::printf("rewriter: %d failures\n", failures);
  return failures != 0;
}
