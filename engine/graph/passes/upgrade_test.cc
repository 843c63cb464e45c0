// Old forms, whole and mutated: the pass gives a graph that holds together, or an error and the graph as it was.
#include <cstdio>
#include <random>

#include "base/error.h"
#include "graph/attrs.h"
#include "graph/check.h"
#include "graph/onnx_write.h"
#include "graph/passes/passes.h"

using namespace secateur;

namespace {

int failures = 0;

void check(bool ok, const char* what, uint64_t seed = 0) {
  if (ok) return;
  std::printf("FAILED: %s (seed %llu)\n", what, static_cast<unsigned long long>(seed));
  ++failures;
}

constexpr const char* kOps[] = {"Add",        "And",           "BatchNormalization",
                                "Cast",       "Clip",          "Concat",
                                "Constant",   "ConvTranspose", "Dropout",
                                "Flatten",    "Gemm",          "ImageScaler",
                                "MatMul",     "MaxPool",       "Mean",
                                "PRelu",      "Pad",           "Pow",
                                "ReduceMean", "Relu",          "Reshape",
                                "Resize",     "Selu",          "Slice",
                                "Split",      "Squeeze",       "Sum",
                                "Tile",       "TopK",          "Unsqueeze",
                                "Upsample"};
constexpr const char* kAttributes[] = {"axes",         "axis",     "bias",     "broadcast",  "ends",  "height_scale",
                                       "is_test",      "k",        "keepdims", "max",        "min",   "mode",
                                       "output_shape", "paddings", "pads",     "scales",     "shape", "spatial",
                                       "starts",       "to",       "value",    "width_scale"};

Attribute random_attribute(std::mt19937_64& rng) {
  const int64_t edge[] = {0, 1, -1, 2, 3, INT64_MIN, INT64_MAX};
  const auto number = [&] { return edge[rng() % 7]; };
  std::vector<int64_t> ints(rng() % 5);
  for (auto& v : ints) v = number();
  switch (rng() % 7) {
    case 0:
      return {number()};
    case 1:
      return {static_cast<float>(number())};
    case 2:
      return {ints};
    case 3:
      return {std::vector<float>(ints.begin(), ints.end())};
    case 4:
      return {std::string(rng() % 2 ? "nearest" : "FLOAT")};
    case 5: {
      auto t = std::make_shared<Tensor>();
      t->dims = {static_cast<int64_t>(rng() % 3)};
      t->data.resize(static_cast<size_t>(t->numel()) * 4);
      return {t};
    }
    default:
      return {};
  }
}

Graph random_graph(uint64_t seed) {
  std::mt19937_64 rng(seed);
  Graph g;
  g.opsets[""] = static_cast<int64_t>(rng() % 11) + 1;
  g.inputs = {{"v0", DType::kFloat, {{2, ""}, {3, ""}}, rng() % 2 == 0}};
  std::vector<std::string> values{"v0", "upgrade/0", "w"};
  for (size_t i = 1; i < 3; ++i) {
    Tensor t;
    t.name = values[i];
    t.dims = std::vector<int64_t>(rng() % 4, static_cast<int64_t>(rng() % 3));
    t.data.resize(static_cast<size_t>(t.numel()) * 4);
    g.initializers.push_back(std::move(t));
  }
  for (int i = 0; i < 8; ++i) {
    Node n;
    n.name = "node " + std::to_string(i);
    n.op = kOps[rng() % std::size(kOps)];
    for (size_t k = rng() % 6; k > 0; --k) n.inputs.push_back(rng() % 6 ? values[rng() % values.size()] : "");
    for (size_t k = rng() % 3 + 1; k > 0; --k) n.outputs.push_back("o" + std::to_string(i) + "." + std::to_string(k));
    for (size_t k = rng() % 5; k > 0; --k) n.attrs[kAttributes[rng() % std::size(kAttributes)]] = random_attribute(rng);
    n.post.layer = i;
    values.push_back(n.outputs[0]);
    g.nodes.push_back(std::move(n));
  }
  g.outputs = {{values.back(), DType::kFloat, {}, false}};
  return g;
}

// Whether it stayed.
bool one(uint64_t seed) {
  Graph g = random_graph(seed);
  const Graph before = g;
  const std::string bytes = write_onnx(g);
  Notes notes;
  try {
    upgrade(g, notes);
  } catch (const FormatError&) {
    check(write_onnx(g) == bytes, "a damaged graph is as it was", seed);
    return false;
  }
  bool whole = true;
  for (const Node& n : g.nodes) {
    if (n.domain != kRefusedDomain) continue;
    whole = false;
    check(n.post.refused.find(n.name) != std::string::npos, "a refusal names the node", seed);
    const Node& old = before.nodes[static_cast<size_t>(n.post.layer)];
    check(n.op == old.op && n.inputs == old.inputs && n.outputs == old.outputs, "a refused node is as it was", seed);
  }
  try {
    check_graph(g);
  } catch (const FormatError& error) {
    std::printf("%s\n", error.what());
    check(false, "every value is made once, before it is read", seed);
  }
  check(g.opsets.at("") == 11, "the opset", seed);
  int64_t last = -1;
  for (const Node& n : g.nodes) {
    const int64_t layer = n.post.layer;
    check(layer >= last && n.name == before.nodes[static_cast<size_t>(layer)].name,
          "nodes stay where they were, under their names", seed);
    last = layer;
  }
  const std::vector<Node> once = g.nodes;
  try {
    upgrade(g, notes);
  } catch (const FormatError&) {
    return true;  // an attribute of a wrong kind, where a rank is known now and was not before
  }
  bool same = g.nodes.size() == once.size();
  for (size_t i = 0; same && i < once.size(); ++i)
    same = g.nodes[i].op == once[i].op && g.nodes[i].inputs == once[i].inputs;
  check(same, "there is nothing to do a second time", seed);
  return whole;
}

}  // namespace

int main() {
  int stayed = 0;
  for (uint64_t seed = 0; seed < 20000; ++seed) stayed += one(seed);
  check(stayed > 1000, "enough random graphs have a new form", static_cast<uint64_t>(stayed));
  std::printf("%d of 20000 graphs have a new form\n", stayed);
  return failures != 0;
}
