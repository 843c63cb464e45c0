// The graph of an old opset on its way to the forms that the engine knows, and the rules that bring it there.
#pragma once

#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "graph/attrs.h"
#include "graph/check.h"
#include "graph/passes/passes.h"

namespace secateur::upgrading {

using Ints = std::vector<int64_t>;
using Strings = std::vector<std::string>;

inline constexpr int64_t kForms = 11;                                  // what is written
inline constexpr int64_t kEver = std::numeric_limits<int64_t>::max();  // no opset ends it
inline constexpr int64_t kMostTiles = 1024;
inline constexpr int kUnknown = -1;

[[noreturn]] inline void unsupported(const Node& n, const std::string& what) {
  throw UnsupportedError("node '" + node_label(n) + "' (" + n.op + "): " + what, n.name);
}

[[noreturn]] inline void invalid(const Node& n, const std::string& what) {
  throw FormatError("node '" + node_label(n) + "' (" + n.op + "): " + what);
}

inline bool has(const Node& n, size_t i) { return i < n.inputs.size() && !n.inputs[i].empty(); }

inline const std::string& need(const Node& n, size_t i) {
  if (!has(n, i)) invalid(n, "input " + std::to_string(i) + " is missing");
  return n.inputs[i];
}

inline void need_attr(const Node& n, const char* name) {
  if (!has_attr(n, name)) invalid(n, std::string("attribute '") + name + "' is missing");
}

// Reads an attribute of an old form, which the new one does not have.
inline int64_t take_i(Node& n, const char* name, int64_t fallback) {
  const int64_t v = attr_i(n, name, fallback);
  n.attrs.erase(name);
  return v;
}
inline float take_f(Node& n, const char* name, float fallback) {
  const float v = attr_f(n, name, fallback);
  n.attrs.erase(name);
  return v;
}
inline Ints take_is(Node& n, const char* name) {
  Ints v = attr_is(n, name);
  n.attrs.erase(name);
  return v;
}

inline std::vector<float> attr_fs(const Node& n, const char* name) {
  const Attribute* a = find_attr(n, name);
  if (!a) return {};
  const auto* v = std::get_if<std::vector<float>>(&a->value);
  if (!v) invalid(n, std::string("attribute '") + name + "' is not a list of floats");
  return *v;
}

// The node becomes another operator; its name and its place in the file stay.
inline void become(Node& n, const char* op, Strings inputs) {
  n.attrs.clear();
  n.op = op;
  n.inputs = std::move(inputs);
}

// The graph as it will be; nothing changes in the old one before all of it was read.
class Upgrade {
 public:
  explicit Upgrade(const Graph& graph) : graph_(graph) {
    for (const auto& t : graph.initializers) tensors_[t.name] = &t, rank_[t.name] = static_cast<int>(t.dims.size());
    for (const auto& in : graph.inputs)
      if (in.has_shape) rank_[in.name] = static_cast<int>(in.shape.size());
    for (const auto& out : graph.outputs) read_.insert(out.name);
    for (const auto& n : graph.nodes) {
      read_.insert(n.inputs.begin(), n.inputs.end());
      read_.insert(n.captures.begin(), n.captures.end());
    }
  }

  std::vector<Node> nodes;
  std::vector<Tensor> added;

  bool is_read(const std::string& value) const { return read_.count(value) != 0; }
  int rank(const std::string& value) const {
    const auto it = rank_.find(value);
    return it == rank_.end() ? kUnknown : it->second;
  }
  const Tensor* constant(const std::string& value) const {
    const auto it = tensors_.find(value);
    return it == tensors_.end() ? nullptr : it->second;
  }

  std::string add(DType dtype, Ints dims, const void* data) {
    Tensor t;
    t.name = fresh();
    t.dtype = dtype;
    t.dims = std::move(dims);
    t.data.resize(static_cast<size_t>(t.numel()) * dtype_size(dtype));
    if (!t.data.empty()) std::memcpy(t.data.data(), data, t.data.size());
    rank_[t.name] = static_cast<int>(t.dims.size());
    if (t.dims.size() == 1) length_[t.name] = t.dims[0];
    added.push_back(std::move(t));
    return added.back().name;
  }
  std::string ints(const Ints& v) { return add(DType::kInt64, {static_cast<int64_t>(v.size())}, v.data()); }
  std::string number(float v) { return add(DType::kFloat, {}, &v); }

  // A node before the one being rewritten, in its name: the value it makes.
  std::string emit(const Node& origin, const char* op, Strings inputs, std::map<std::string, Attribute> attrs = {}) {
    Node n;
    n.name = origin.name;
    n.op = op;
    n.inputs = std::move(inputs);
    n.outputs = {fresh()};
    n.attrs = std::move(attrs);
    n.post = from_layer(origin.post);
    push(std::move(n));
    return nodes.back().outputs[0];
  }
  void push(Node n) {
    learn(n);
    nodes.push_back(std::move(n));
  }

 private:
  std::string fresh() {
    if (names_.empty()) {
      names_.insert("");
      for (const auto& [name, t] : tensors_) names_.insert(name);
      for (const auto& in : graph_.inputs) names_.insert(in.name);
      for (const auto& n : graph_.nodes) names_.insert(n.outputs.begin(), n.outputs.end());
    }
    std::string name;
    do name = "upgrade/" + std::to_string(count_++);
    while (!names_.insert(name).second);
    return name;
  }
  void learn(const Node& n);
  int told_rank(const Node& n) const;

  const Graph& graph_;
  std::unordered_map<std::string, const Tensor*> tensors_;
  std::unordered_map<std::string, int> rank_;        // of values, where it can be told without shapes
  std::unordered_map<std::string, int64_t> length_;  // of vectors made here
  std::unordered_set<std::string> read_, names_;
  size_t count_ = 0;
};

// How an operator of these opsets is written now.
struct Rule {
  const char* op;
  int64_t from, before;  // opsets
  void (*rewrite)(Upgrade& u, Node& n);
};

// All of them; of two for one operator the first goes first.
std::span<const Rule> rules();

// Has the rule nothing to do at this node?
bool idle(const Rule& rule, const Node& n);

}  // namespace secateur::upgrading
