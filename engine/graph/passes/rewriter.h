// A graph being rewritten: who makes a value, who reads it, which values are constant. Nodes are marked dead and swept
// at the end; indices of nodes stay valid until then.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "graph/graph.h"

namespace secateur {

class Rewriter {
 public:
  explicit Rewriter(Graph& graph);

  size_t size() const { return graph_.nodes.size(); }
  Node& node(size_t i) { return graph_.nodes[i]; }
  bool dead(size_t i) const { return dead_[i]; }

  // Index of the node that makes `value`, -1 for inputs and initializers.
  int producer(const std::string& value) const;
  // Nodes that read `value`, once per use.
  std::vector<size_t> consumers(const std::string& value) const;
  bool is_output(const std::string& value) const;
  // The only node that reads `value`, -1 if there are several, none, or `value` is a graph output.
  int only_consumer(const std::string& value) const;

  // Null when `value` is not an initializer (of dtype float32 for f32()).
  const Tensor* constant(const std::string& value) const;
  const Tensor* f32(const std::string& value) const;
  // Integers of a constant int64 value; false when it is not one.
  bool ints(const std::string& value, std::vector<int64_t>& out) const;

  // A new float32 initializer; returns its name (unique, starts with `like`).
  std::string add_f32(const std::string& like, std::vector<int64_t> dims, const std::vector<float>& data);
  // A new initializer of any type, named as above.
  std::string add(const std::string& like, Tensor tensor);
  // Every read of `from` becomes a read of `to`.
  void redirect(const std::string& from, const std::string& to);
  // Node i gives its output the name `name` instead (its own output must have no other readers).
  void take_output(size_t i, const std::string& name);
  void kill(size_t i);
  void set_input(size_t i, size_t slot, const std::string& value);

  // Marks dead what nothing reads any more, so that only_consumer() is not misled by it.
  void sweep_dead_code();
  // Drops dead nodes and initializers nobody reads. The rewriter is done after it.
  void sweep();

 private:
  Graph& graph_;
  std::vector<bool> dead_;
  std::unordered_map<std::string, size_t> tensors_;
};

}  // namespace secateur
