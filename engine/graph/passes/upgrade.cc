// Forms of opsets before 11 become those of 11, and operators that only name a sum of others become those others; which
// ones and why: docs/design/old-opsets.md. It runs once, before anything else looks at the nodes.
#include <algorithm>
#include <string_view>

#include "graph/passes/upgrade.h"

namespace secateur {
namespace upgrading {
namespace {

// Their first output has as many axes as their first input.
constexpr std::string_view kKeepRank =
    " "
    "Abs AveragePool BatchNormalization Cast Ceil Clip Concat Conv ConvTranspose Cos Dropout Elu Erf Exp "
    "Floor GlobalAveragePool GlobalMaxPool HardSigmoid Identity InstanceNormalization LRN LeakyRelu Log "
    "LogSoftmax MaxPool Neg Not PRelu Pad Reciprocal Relu Resize Selu Sigmoid Sin Slice Softmax Softplus "
    "Softsign Split Sqrt Tanh ThresholdedRelu Tile Transpose ";

// As many as the input that has most.
constexpr std::string_view kWiden =
    " "
    "Add And Div Equal Greater Less Max Min Mul Or Pow Sub Xor ";

bool listed(std::string_view names, const std::string& op) {
  return names.find(" " + op + " ") != std::string_view::npos;
}

}  // namespace

int Upgrade::told_rank(const Node& n) const {
  if (!n.domain.empty() || n.inputs.empty()) return kUnknown;
  if (n.op == "Gemm" || n.op == "Flatten") return 2;
  const int x = rank(n.inputs[0]), w = has(n, 1) ? rank(n.inputs[1]) : kUnknown;
  if ((n.op == "Conv" || n.op == "ConvTranspose") && w > 0) return w;
  if (listed(kKeepRank, n.op)) return x;
  if (n.op == "MatMul") return x > 1 && w > 1 ? std::max(x, w) : kUnknown;
  if (listed(kWiden, n.op)) {
    int most = x;
    for (const auto& in : n.inputs) most = most < 0 || rank(in) < 0 ? kUnknown : std::max(most, rank(in));
    return most;
  }
  const auto axes = [&] { return static_cast<int>(attr_is(n, "axes").size()); };
  if (n.op == "Unsqueeze" && x >= 0) return x + axes();
  if (n.op == "Squeeze" && x >= axes() && axes() > 0) return x - axes();
  if (n.op.starts_with("Reduce") && x >= axes()) return attr_i(n, "keepdims", 1) != 0 ? x : axes() > 0 ? x - axes() : 0;
  if (n.op == "Reshape" && has(n, 1)) {
    if (const auto made = length_.find(n.inputs[1]); made != length_.end()) return static_cast<int>(made->second);
    const Tensor* shape = constant(n.inputs[1]);
    return shape && shape->dims.size() == 1 ? static_cast<int>(shape->dims[0]) : kUnknown;
  }
  return kUnknown;
}

void Upgrade::learn(const Node& n) {
  if (n.op == "Constant" && n.domain.empty() && !n.outputs.empty()) {
    const Attribute* a = find_attr(n, "value");
    const auto* t = a ? std::get_if<std::shared_ptr<Tensor>>(&a->value) : nullptr;
    if (!t || !*t) return;
    tensors_[n.outputs[0]] = t->get();
    rank_[n.outputs[0]] = static_cast<int>((*t)->dims.size());
    return;
  }
  const int r = told_rank(n);
  for (const auto& out : n.outputs)
    if (!out.empty() && r >= 0) rank_[out] = r;
}

}  // namespace upgrading

using namespace upgrading;

namespace {

using Rules = std::unordered_map<std::string_view, std::vector<const Rule*>>;

// Those of an opset, by operator, in order.
Rules rules_of(int64_t opset) {
  Rules found;
  for (const Rule& r : rules())
    if (opset >= r.from && opset < r.before) found[r.op].push_back(&r);
  return found;
}

// In its new form; without one it is an operator of nobody, which no pass takes for the new one of its name, and
// lowering says why.
Node rewritten(Upgrade& u, const Node& old, const std::vector<const Rule*>& rules) {
  const size_t before = u.nodes.size();
  Node n = old;
  try {
    for (const Rule* rule : rules) rule->rewrite(u, n);
  } catch (const UnsupportedError& error) {
    u.nodes.resize(before);
    n = old;
    n.domain = kRefusedDomain;
    n.post.refused = error.what();
  }
  return n;
}

}  // namespace

void upgrade(Graph& graph, Notes& notes) {
  const auto version = graph.opsets.find("");
  if (version == graph.opsets.end()) return;
  const int64_t opset = version->second;
  const Rules rules = rules_of(opset);
  const auto of = [&](const Node& n) {
    const auto it = n.domain.empty() ? rules.find(n.op) : rules.end();
    return it == rules.end() || (it->second.size() == 1 && idle(*it->second[0], n)) ? nullptr : &it->second;
  };
  if (std::any_of(graph.nodes.begin(), graph.nodes.end(), of)) {
    Upgrade u(graph);
    u.nodes.reserve(graph.nodes.size());
    for (const Node& old : graph.nodes) {
      const auto* found = of(old);
      u.push(found ? rewritten(u, old, *found) : old);
    }
    graph.nodes = std::move(u.nodes);
    for (Tensor& t : u.added) graph.initializers.push_back(std::move(t));
  }
  version->second = std::max(opset, kForms);
  if (opset < kForms)
    notes.push_back("read in the forms of opset " + std::to_string(kForms) + " (the file: " + std::to_string(opset) +
                    ")");
}

}  // namespace secateur
