// The nodes: operators, what they read and make (docs/format.md, 5.2).
#pragma once

#include <unordered_map>

#include "formats/graph/attributes.h"
#include "formats/graph/names.h"

namespace secateur::sct {

template <class C>
class Nodes {
 public:
  Nodes(GraphStream<C>& s, Types<C>& types, Graph& g) : s_(s), types_(types), attributes_(s, types), g_(g) {
    for (auto& v : g.inputs) activations_.push_back(v.name);
    if constexpr (kEnc) {
      for (size_t i = 0; i < g.initializers.size(); ++i) constant_[g.initializers[i].name] = i;
      for (size_t i = 0; i < activations_.size(); ++i) activation_[activations_[i]] = i;
      for (size_t i = 0; i < g.outputs.size(); ++i) result_.emplace(g.outputs[i].name, i);
    }
  }

  // All nodes, and the initializers that none of them reads.
  void code() {
    for (size_t k = 0;; ++k) {
      const uint64_t op = operator_of(k);
      if (op == 0) break;
      inputs(g_.nodes[k], op);
      outputs(k, op);
      attributes_.code(g_.nodes[k], op);
      before_ = previous_;
      previous_ = op;
    }
    const uint64_t extra = s_.count_of(kEnc ? g_.initializers.size() - used_ : 0, kMaxDecisions, {kExtra});
    for (uint64_t i = 0; i < extra; ++i) {
      if constexpr (kEnc) types_.initializer(g_.initializers[used_++], 0, 0);
      else types_.new_initializer(0, 0);
    }
  }

 private:
  static constexpr bool kEnc = C::kEncoding;

  // The operator of node k by its number, 0 behind the last node; a decoder adds the node.
  uint64_t operator_of(size_t k) {
    std::vector<std::string>& words = s_.models.ops;
    std::string key;
    uint64_t op = 0;
    if constexpr (kEnc) {
      if (k < g_.nodes.size()) {
        const Node& node = g_.nodes[k];
        key = node.domain.empty() ? node.op : node.domain + ":" + node.op;
        op = s_.find(words, key);
      }
    }
    op = s_.word(op, words, key, kNewOp, {kOp, hash(kOp, previous_), hash(kOp, previous_, before_)});
    if (op == 0) return 0;
    if (op == 1) op = s_.find(words, key);
    if constexpr (!kEnc) {
      Node& node = g_.nodes.emplace_back();
      const size_t colon = key.rfind(':');
      node.op = colon == std::string::npos ? key : key.substr(colon + 1);
      node.domain = colon == std::string::npos ? "" : key.substr(0, colon);
    }
    s_.watch();
    return op;
  }

  void inputs(Node& node, uint64_t op) {
    const uint64_t n = s_.count_of(node.inputs.size(), kMaxList, {hash(kInputs, op)});
    if constexpr (!kEnc) node.inputs.reserve(std::min<uint64_t>(n, 64));
    for (uint64_t slot = 0; slot < n; ++slot) {
      uint64_t ref = kEnc ? reference(node.inputs[slot]) : 0;
      ref = s_.number(ref, {hash(kRef, slot), hash(kRef, op, slot), hash(kRef, op, slot, previous_)});
      if constexpr (kEnc) {
        if (ref == 1) types_.initializer(g_.initializers[used_++], op, slot);
      } else {
        node.inputs.push_back(name_of(ref, op, slot));
      }
    }
  }

  // 0 left out, 1 a new initializer, even 2 + 2 d: the activation d steps back, odd 3 + 2 d: initializer d back.
  uint64_t reference(const std::string& name) const {
    if (auto a = activation_.find(name); a != activation_.end()) return 2 + 2 * (activations_.size() - 1 - a->second);
    if (auto i = constant_.find(name); i != constant_.end())
      return i->second >= used_ ? 1 : 3 + 2 * (used_ - 1 - i->second);
    return 0;
  }
  // Decoder: what a reference means.
  std::string name_of(uint64_t ref, uint64_t op, uint64_t slot) {
    if (ref == 0) return "";
    if (ref == 1) return types_.new_initializer(op, slot).name;
    const uint64_t back = (ref - 2) / 2;
    const bool is_constant = ref & 1;
    const auto& fresh = types_.fresh();
    if (back >= (is_constant ? fresh.size() : activations_.size())) s_.damaged("a node reads what does not exist");
    return is_constant ? fresh[fresh.size() - 1 - back]->name : activations_[activations_.size() - 1 - back];
  }

  void outputs(size_t k, uint64_t op) {
    Node& node = g_.nodes[k];
    const uint64_t n = s_.count_of(node.outputs.size(), kMaxList, {hash(kOutputs, op)});
    for (uint64_t slot = 0; slot < n; ++slot) {
      // 0 left out, 1 an inner value, 2 + j the graph's output j.
      uint64_t out = 0;
      if constexpr (kEnc) {
        const std::string& name = node.outputs[slot];
        if (auto r = result_.find(name); r != result_.end()) out = 2 + r->second;
        else if (!name.empty()) out = 1;
      }
      out = s_.number(out, {hash(kOut, slot), hash(kOut, op, slot), hash(kOut, op, previous_)});
      if constexpr (!kEnc) {
        if (out >= 2 && out - 2 >= g_.outputs.size()) s_.damaged("unknown output");
        node.outputs.push_back(out == 0 ? "" : out == 1 ? provisional_name(k, slot) : g_.outputs[out - 2].name);
      }
      if (out == 0) continue;
      if constexpr (kEnc) activation_[node.outputs[slot]] = activations_.size();
      activations_.push_back(node.outputs[slot]);
    }
  }

  GraphStream<C>& s_;
  Types<C>& types_;
  Attributes<C> attributes_;
  Graph& g_;
  uint64_t previous_ = 0, before_ = 0;                    // operators of the two nodes before
  std::vector<std::string> activations_;                  // what nodes may read, as they are walked
  std::unordered_map<std::string, uint64_t> activation_;  // encoder: name -> its number
  std::unordered_map<std::string, size_t> constant_;      // encoder: name -> initializer
  std::unordered_map<std::string, uint64_t> result_;      // encoder: graph outputs
  size_t used_ = 0;  // encoder: canonical order means initializers appear in order of first use
};

}  // namespace secateur::sct
