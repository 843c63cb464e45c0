// A graph being rewritten: who makes a value, who reads it, which values are constant. Nodes are marked dead and swept
// at the end; indices of nodes stay valid until then. Every lookup is by name in an index that the rewrites keep true,
// so that a pass over a file of 100,000 nodes takes work in proportion.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "graph/graph.h"

namespace secateur {

class Rewriter {
 public:
  explicit Rewriter(Graph& graph);

  size_t size() const { return graph_.nodes.size(); }
  const Node& node(size_t i) const { return graph_.nodes[i]; }
  std::map<std::string, Attribute>& attrs(size_t i) { return graph_.nodes[i].attrs; }
  PostOps& post(size_t i) { return graph_.nodes[i].post; }
  bool dead(size_t i) const { return dead_[i]; }

  // Index of the node that makes `value`, -1 for inputs and initializers.
  int producer(const std::string& value) const;
  // Nodes that read `value`, in order, once per use.
  std::vector<size_t> consumers(const std::string& value) const;
  bool is_output(const std::string& value) const { return outputs_.count(value) != 0; }
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
  // Node i becomes another.
  void replace(size_t i, Node node);

  // Marks dead what nothing reads any more, so that only_consumer() is not misled by it. All calls together take work
  // in proportion to the nodes that die.
  void sweep_dead_code();
  // Drops dead nodes and initializers nobody reads. The rewriter is done after it.
  void sweep();

  // Entries of the index touched since the start of the thread: what a test holds passes to.
  static uint64_t& work();

 private:
  struct Readers {
    std::map<size_t, size_t> uses;  // node -> how often
    size_t total = 0;
  };
  void attach(size_t i);
  void detach(size_t i);
  void read(const std::string& value, size_t i);
  void unread(const std::string& value, size_t i);

  Graph& graph_;
  std::vector<bool> dead_;
  std::unordered_map<std::string, size_t> tensors_;
  std::unordered_map<std::string, size_t> makers_;
  std::unordered_map<std::string, Readers> readers_;
  std::unordered_set<std::string> outputs_;
  std::vector<size_t> maybe_dead_;         // nodes of which an output lost its last reader
  std::unordered_set<size_t> made_;        // initializers added here
  std::vector<std::string> maybe_unused_;  // of those
};

}  // namespace secateur
