#include "graph/passes/rewriter.h"

#include <cstring>
#include <utility>

namespace secateur {

Rewriter::Rewriter(Graph& graph) : graph_(graph), dead_(graph.nodes.size(), false) {
  for (size_t i = 0; i < graph.initializers.size(); ++i) tensors_.emplace(graph.initializers[i].name, i);
  for (const auto& out : graph.outputs) outputs_.insert(out.name);
  for (size_t i = 0; i < graph.nodes.size(); ++i) attach(i);
  for (size_t i = 0; i < graph.nodes.size(); ++i) maybe_dead_.push_back(i);
}

uint64_t& Rewriter::work() {
  thread_local uint64_t touched = 0;
  return touched;
}

void Rewriter::read(const std::string& value, size_t i) {
  ++work();
  if (value.empty()) return;
  Readers& r = readers_[value];
  ++r.uses[i];
  ++r.total;
}

void Rewriter::unread(const std::string& value, size_t i) {
  ++work();
  const auto it = readers_.find(value);
  if (it == readers_.end()) return;
  Readers& r = it->second;
  const auto use = r.uses.find(i);
  if (use == r.uses.end()) return;
  if (--use->second == 0) r.uses.erase(use);
  if (--r.total > 0) return;
  if (const auto maker = makers_.find(value); maker != makers_.end()) maybe_dead_.push_back(maker->second);
  if (const auto t = tensors_.find(value); t != tensors_.end() && made_.count(t->second))
    maybe_unused_.push_back(value);
}

void Rewriter::attach(size_t i) {
  for (const auto& out : graph_.nodes[i].outputs)
    if (!out.empty()) makers_[out] = i;
  for (const auto& in : graph_.nodes[i].inputs) read(in, i);
}

void Rewriter::detach(size_t i) {
  for (const auto& out : graph_.nodes[i].outputs)
    if (const auto it = makers_.find(out); it != makers_.end() && it->second == i) makers_.erase(it);
  for (const auto& in : graph_.nodes[i].inputs) unread(in, i);
}

int Rewriter::producer(const std::string& value) const {
  ++work();
  const auto it = makers_.find(value);
  return it == makers_.end() ? -1 : static_cast<int>(it->second);
}

std::vector<size_t> Rewriter::consumers(const std::string& value) const {
  std::vector<size_t> found;
  if (const auto it = readers_.find(value); it != readers_.end())
    for (const auto& [node, times] : it->second.uses) found.insert(found.end(), times, node);
  work() += 1 + found.size();
  return found;
}

int Rewriter::only_consumer(const std::string& value) const {
  ++work();
  if (is_output(value)) return -1;
  const auto it = readers_.find(value);
  return it != readers_.end() && it->second.total == 1 ? static_cast<int>(it->second.uses.begin()->first) : -1;
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
  // What an earlier rewrite made and a later one replaced goes before more is made: a long chain of rewrites of one
  // layer must not hold all the weights in between.
  for (const auto& value : maybe_unused_)
    if (readers_[value].total == 0 && !is_output(value)) graph_.initializers[tensors_[value]].data = {};
  maybe_unused_.clear();
  t.name = like + "/folded";
  while (tensors_.count(t.name) || producer(t.name) >= 0) t.name += "'";
  tensors_.emplace(t.name, graph_.initializers.size());
  made_.insert(graph_.initializers.size());
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
  const auto it = readers_.find(from);
  if (it == readers_.end() || from == to) return;
  const Readers moved = std::move(it->second);
  readers_.erase(it);
  for (const auto& [i, times] : moved.uses)
    for (auto& in : graph_.nodes[i].inputs)
      if (in == from) {
        in = to;
        read(to, i);
      }
  if (const auto maker = makers_.find(from); maker != makers_.end()) maybe_dead_.push_back(maker->second);
}

void Rewriter::take_output(size_t i, const std::string& name) {
  std::string& out = graph_.nodes[i].outputs[0];
  if (const auto it = makers_.find(out); it != makers_.end() && it->second == i) makers_.erase(it);
  out = name;
  makers_[name] = i;
  maybe_dead_.push_back(i);
}

void Rewriter::kill(size_t i) {
  if (dead_[i]) return;
  dead_[i] = true;
  detach(i);
}

void Rewriter::set_input(size_t i, size_t slot, const std::string& value) {
  auto& inputs = graph_.nodes[i].inputs;
  if (inputs.size() <= slot) inputs.resize(slot + 1);
  const std::string old = std::exchange(inputs[slot], value);
  read(value, i);
  unread(old, i);
}

void Rewriter::replace(size_t i, Node node) {
  Node old = std::exchange(graph_.nodes[i], std::move(node));
  for (const auto& out : old.outputs)
    if (const auto it = makers_.find(out); it != makers_.end() && it->second == i) makers_.erase(it);
  attach(i);
  maybe_dead_.push_back(i);
  for (const auto& in : old.inputs) unread(in, i);
}

void Rewriter::sweep_dead_code() {
  while (!maybe_dead_.empty()) {
    const size_t i = maybe_dead_.back();
    maybe_dead_.pop_back();
    if (dead_[i]) continue;
    bool any = false;
    for (const auto& out : graph_.nodes[i].outputs) {
      const auto it = readers_.find(out);
      any = any || (!out.empty() && (is_output(out) || (it != readers_.end() && it->second.total > 0)));
    }
    if (!any) kill(i);
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
