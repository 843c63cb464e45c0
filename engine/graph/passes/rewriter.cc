#include "graph/passes/rewriter.h"

#include <cstring>
#include <unordered_set>

namespace secateur {

// Lookups walk the node list: nets have hundreds of nodes and passes run once per load, so an index that every rewrite
// must keep true would cost more bugs than microseconds.
Rewriter::Rewriter(Graph& graph) : graph_(graph), dead_(graph.nodes.size(), false) {
  for (size_t i = 0; i < graph.initializers.size(); ++i) tensors_.emplace(graph.initializers[i].name, i);
}

int Rewriter::producer(const std::string& value) const {
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    if (dead_[i]) continue;
    for (const auto& out : graph_.nodes[i].outputs)
      if (!out.empty() && out == value) return static_cast<int>(i);
  }
  return -1;
}

std::vector<size_t> Rewriter::consumers(const std::string& value) const {
  std::vector<size_t> found;
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    if (dead_[i]) continue;
    for (const auto& in : graph_.nodes[i].inputs)
      if (in == value) found.push_back(i);
  }
  return found;
}

bool Rewriter::is_output(const std::string& value) const {
  for (const auto& out : graph_.outputs)
    if (out.name == value) return true;
  return false;
}

int Rewriter::only_consumer(const std::string& value) const {
  if (is_output(value)) return -1;
  const auto found = consumers(value);
  return found.size() == 1 ? static_cast<int>(found[0]) : -1;
}

const Tensor* Rewriter::constant(const std::string& value) const {
  const auto it = tensors_.find(value);
  return it == tensors_.end() ? nullptr : &graph_.initializers[it->second];
}

const Tensor* Rewriter::f32(const std::string& value) const {
  const Tensor* t = constant(value);
  return t && t->dtype == DType::kFloat ? t : nullptr;
}

bool Rewriter::ints(const std::string& value, std::vector<int64_t>& out) const {
  const Tensor* t = constant(value);
  if (!t || t->dtype != DType::kInt64) return false;
  out.resize(static_cast<size_t>(t->numel()));
  if (!out.empty()) std::memcpy(out.data(), t->data.data(), t->data.size());
  return true;
}

std::string Rewriter::add(const std::string& like, Tensor t) {
  t.name = like + "/folded";
  while (tensors_.count(t.name) || producer(t.name) >= 0) t.name += "'";
  tensors_.emplace(t.name, graph_.initializers.size());
  graph_.initializers.push_back(std::move(t));
  return graph_.initializers.back().name;
}

std::string Rewriter::add_f32(const std::string& like, std::vector<int64_t> dims, const std::vector<float>& data) {
  Tensor t;
  t.dims = std::move(dims);
  t.data.resize(data.size() * 4);
  if (!data.empty()) std::memcpy(t.data.data(), data.data(), t.data.size());
  return add(like, std::move(t));
}

void Rewriter::redirect(const std::string& from, const std::string& to) {
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    if (dead_[i]) continue;
    for (auto& in : graph_.nodes[i].inputs)
      if (in == from) in = to;
  }
}

void Rewriter::take_output(size_t i, const std::string& name) { graph_.nodes[i].outputs[0] = name; }
void Rewriter::kill(size_t i) { dead_[i] = true; }

void Rewriter::set_input(size_t i, size_t slot, const std::string& value) {
  auto& inputs = graph_.nodes[i].inputs;
  if (inputs.size() <= slot) inputs.resize(slot + 1);
  inputs[slot] = value;
}

void Rewriter::sweep_dead_code() {
  std::unordered_set<std::string> used;
  for (const auto& out : graph_.outputs) used.insert(out.name);
  for (size_t i = graph_.nodes.size(); i-- > 0;) {
    if (dead_[i]) continue;
    bool any = false;
    for (const auto& out : graph_.nodes[i].outputs) any = any || (!out.empty() && used.count(out));
    dead_[i] = !any;
    if (any) used.insert(graph_.nodes[i].inputs.begin(), graph_.nodes[i].inputs.end());
  }
}

void Rewriter::sweep() {
  sweep_dead_code();
  std::vector<Node> nodes;
  std::unordered_set<std::string> used;
  for (const auto& out : graph_.outputs) used.insert(out.name);
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    if (dead_[i]) continue;
    used.insert(graph_.nodes[i].inputs.begin(), graph_.nodes[i].inputs.end());
    nodes.push_back(std::move(graph_.nodes[i]));
  }
  graph_.nodes = std::move(nodes);
  std::vector<Tensor> tensors;
  for (auto& t : graph_.initializers)
    if (used.count(t.name)) tensors.push_back(std::move(t));
  graph_.initializers = std::move(tensors);
}

}  // namespace secateur
