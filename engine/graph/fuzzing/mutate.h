// Mutations that keep a graph a graph: shapes, ranks, types, values, attributes, operators and wiring change, lengths
// still agree, so that what is damaged gets past the readers and their checksums into passes, plans and kernels.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <utility>

#include "graph/graph.h"

namespace secateur::fuzzing {

class Mutator {
 public:
  Mutator(std::mt19937& rng, const std::vector<Graph>& seeds) : rng_(rng), seeds_(seeds) {}

  void mutate(Graph& g) {
    for (uint32_t k = below(3) + 1; k > 0; --k) {
      switch (below(8)) {
        case 0:
          if (!g.initializers.empty()) reshape(pick(g.initializers));
          break;
        case 1:
          if (!g.initializers.empty()) revalue(pick(g.initializers));
          break;
        case 2:
          if (!g.inputs.empty()) redeclare(pick(g.inputs));
          if (!g.inputs.empty() && below(32) == 0) g.inputs.push_back(ValueInfo(pick(g.inputs)));
          if (!g.inputs.empty() && below(32) == 0) pick(g.inputs).shape.assign(66, Dim{1, ""});
          break;
        case 3:
        case 4:
          if (!g.nodes.empty()) reattribute(pick(g.nodes));
          break;
        case 5:
        case 6:
          if (!g.nodes.empty()) rewire(g);
          break;
        default:
          rename(g);
      }
    }
  }

 private:
  static constexpr size_t kMostElements = 4096;

  uint32_t below(size_t n) { return static_cast<uint32_t>(rng_() % n); }
  template <class T>
  T& pick(std::vector<T>& v) {
    return v[below(v.size())];
  }
  int64_t number() {
    static const int64_t special[] = {0,
                                      1,
                                      -1,
                                      2,
                                      3,
                                      4,
                                      7,
                                      -2,
                                      8,
                                      16,
                                      100,
                                      4096,
                                      1 << 20,
                                      7'600'000,
                                      int64_t{1} << 31,
                                      -(int64_t{1} << 31),
                                      int64_t{1} << 40,
                                      std::numeric_limits<int64_t>::max(),
                                      std::numeric_limits<int64_t>::min()};
    return below(4) ? static_cast<int64_t>(below(6)) : special[below(std::size(special))];
  }
  float real() {
    static const float special[] = {
        0,     1,      -1, 0.5f, 6, 3, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(),
        1e38f, -1e-38f};
    return special[below(std::size(special))];
  }
  void alter(std::vector<int64_t>& v) {
    switch (v.empty() ? 0 : below(5)) {
      case 0:
        v.insert(v.begin() + static_cast<ptrdiff_t>(below(v.size() + 1)), number());
        break;
      case 1:
        v.erase(v.begin() + static_cast<ptrdiff_t>(below(v.size())));
        break;
      case 2:
        std::swap(pick(v), pick(v));
        break;
      case 3:
        pick(v) += static_cast<int64_t>(below(3)) - 1;
        break;
      default:
        pick(v) = number();
    }
  }
  // Bytes follow the dims: repeated or cut.
  static void fit(Tensor& t) {
    double n = 1;
    for (int64_t d : t.dims) n *= static_cast<double>(d);
    const bool good = n <= kMostElements && std::all_of(t.dims.begin(), t.dims.end(), [](int64_t d) { return d >= 0; });
    if (!good) t.dims = {static_cast<int64_t>(t.data.size() / std::max<size_t>(1, dtype_size(t.dtype)))};
    const std::vector<uint8_t> old = std::exchange(t.data, {});
    t.data.resize(static_cast<size_t>(t.numel()) * dtype_size(t.dtype));
    for (size_t i = 0; i < t.data.size() && !old.empty(); ++i) t.data[i] = old[i % old.size()];
  }
  void reshape(Tensor& t) {
    static const DType types[] = {DType::kFloat,  DType::kInt64, DType::kInt32,   DType::kInt8,  DType::kUInt8,
                                  DType::kDouble, DType::kBool,  DType::kFloat16, DType::kUInt16};
    if (below(32) == 0) t.dims.assign(66, 1);
    const uint32_t how = below(6);
    if (how == 0) t.dtype = types[below(std::size(types))];
    else if (how == 1) t.dims.clear();
    else alter(t.dims);
    fit(t);
  }
  void revalue(Tensor& t) {
    const size_t size = dtype_size(t.dtype);
    if (t.data.empty() || size == 0) return;
    const size_t at = below(t.data.size() / size) * size;
    if (t.dtype == DType::kFloat) {
      const float v = real();
      std::memcpy(&t.data[at], &v, 4);
    } else {
      const int64_t v = number();
      std::memcpy(&t.data[at], &v, size);
    }
    if (below(4) == 0) std::fill(t.data.begin(), t.data.end(), uint8_t{0});
  }
  void redeclare(ValueInfo& info) {
    std::vector<int64_t> dims;
    for (const Dim& d : info.shape) dims.push_back(d.size);
    if (below(8) == 0) {
      static const DType types[] = {DType::kFloat, DType::kInt64, DType::kInt32,
                                    DType::kUInt8, DType::kBool,  DType::kUndefined};
      info.dtype = types[below(std::size(types))];
    }
    if (below(16) == 0) info.has_shape = !info.has_shape;
    alter(dims);
    info.shape.clear();
    for (int64_t d : dims) info.shape.push_back({std::max<int64_t>(d, -1), d < 0 ? "k" : ""});
  }
  Attribute any_value() {
    switch (below(7)) {
      case 6:
        return {std::vector<std::string>{"a", ""}};
      case 0:
        return {real()};
      case 1:
        return {number()};
      case 2:
        return {std::string(below(2) ? "SAME_LOWER" : "")};
      case 3:
        return {std::vector<int64_t>{number(), number()}};
      case 4:
        return {std::vector<float>{real()}};
      default:
        return {};
    }
  }
  void reattribute(Node& n) {
    // Names that operators know: one of the same operator elsewhere, or of any.
    static const char* names[] = {"axis",
                                  "axes",
                                  "perm",
                                  "pads",
                                  "strides",
                                  "dilations",
                                  "kernel_shape",
                                  "group",
                                  "auto_pad",
                                  "ceil_mode",
                                  "transA",
                                  "transB",
                                  "alpha",
                                  "beta",
                                  "keepdims",
                                  "noop_with_empty_axes",
                                  "output_padding",
                                  "output_shape",
                                  "mode",
                                  "epsilon",
                                  "to",
                                  "blocksize",
                                  "num_groups",
                                  "scale",
                                  "q_num_heads",
                                  "kv_num_heads",
                                  "num_heads",
                                  "is_causal",
                                  "block_size",
                                  "output_dtype",
                                  "storage_order",
                                  "count_include_pad",
                                  "stash_type",
                                  "equation",
                                  "largest",
                                  "select_last_index",
                                  "allowzero",
                                  "start",
                                  "end",
                                  "min",
                                  "max",
                                  "value",
                                  "value_int",
                                  "value_ints",
                                  "value_string",
                                  "training_mode",
                                  "exclude_outside",
                                  "antialias",
                                  "keep_aspect_ratio_policy",
                                  "coordinate_transformation_mode",
                                  "nearest_mode",
                                  "approximate",
                                  "channels_last",
                                  "split",
                                  "size",
                                  "fmod",
                                  "softcap",
                                  "num_outputs",
                                  "cubic_coeff_a",
                                  "_lo",
                                  "_pool"};
    if (n.attrs.empty() || below(4) == 0) {
      n.attrs[names[below(std::size(names))]] = any_value();
      return;
    }
    auto it = n.attrs.begin();
    std::advance(it, below(n.attrs.size()));
    if (below(8) == 0) {
      n.attrs.erase(it);
      return;
    }
    if (below(8) == 0) {
      it->second = any_value();
      return;
    }
    auto& v = it->second.value;
    if (auto* i = std::get_if<int64_t>(&v)) *i = number();
    if (auto* f = std::get_if<float>(&v)) *f = real();
    if (auto* l = std::get_if<std::vector<int64_t>>(&v)) alter(*l);
    if (auto* t = std::get_if<std::shared_ptr<Tensor>>(&v); t && *t) {
      *t = std::make_shared<Tensor>(**t);
      reshape(**t);
    }
    if (auto* s = std::get_if<std::string>(&v)) {
      static const char* words[] = {"constant",
                                    "edge",
                                    "wrap",
                                    "reflect",
                                    "nearest",
                                    "linear",
                                    "cubic",
                                    "half_pixel",
                                    "pytorch_half_pixel",
                                    "half_pixel_symmetric",
                                    "SAME_UPPER",
                                    "SAME_LOWER",
                                    "VALID",
                                    "NOTSET",
                                    "tanh",
                                    "none",
                                    "DCR",
                                    "floor",
                                    "round_prefer_ceil",
                                    "ij,jk->ki",
                                    "...i,ij",
                                    "bij->jb",
                                    "bij,bkj->bik",
                                    "i...->...",
                                    "a,b->ab",
                                    "->",
                                    "ii,ij->j"};
      *s = words[below(std::size(words))];
    }
  }
  // A value that exists before node `at`.
  std::string value_before(const Graph& g, size_t at) {
    std::vector<std::string> known{""};
    for (const auto& in : g.inputs) known.push_back(in.name);
    for (const auto& t : g.initializers) known.push_back(t.name);
    for (size_t i = 0; i < at; ++i)
      for (const auto& out : g.nodes[i].outputs) known.push_back(out);
    return pick(known);
  }
  void rewire(Graph& g) {
    const size_t at = below(g.nodes.size());
    Node& n = g.nodes[at];
    switch (below(7)) {
      case 0:
        if (!n.inputs.empty()) pick(n.inputs) = value_before(g, at);
        break;
      case 1:
        if (!n.inputs.empty()) n.inputs.pop_back();
        break;
      case 2:
        n.inputs.push_back(value_before(g, at));
        break;
      case 3:
        if (!n.inputs.empty()) std::swap(pick(n.inputs), pick(n.inputs));
        break;
      case 4:
        n.outputs.push_back(below(3) ? n.outputs.empty() ? "extra" : n.outputs[0] + "+" : "");
        break;
      case 5: {  // the node goes; whoever read it reads its input
        const Node gone = n;
        g.nodes.erase(g.nodes.begin() + static_cast<ptrdiff_t>(at));
        for (Node& m : g.nodes)
          for (auto& in : m.inputs)
            if (!gone.outputs.empty() && in == gone.outputs[0]) in = gone.inputs.empty() ? "" : gone.inputs[0];
        break;
      }
      default: {  // its value is asked for
        if (n.outputs.empty()) break;
        ValueInfo info{pick(n.outputs), DType::kUndefined, {}, false};
        if (!info.name.empty()) g.outputs.push_back(info);
      }
    }
  }
  // Another operator with the same wires, other opsets, attributes of another node of the operator.
  void rename(Graph& g) {
    const Graph& other = seeds_[below(seeds_.size())];
    if (below(4) == 0 || g.nodes.empty()) {
      g.opsets[below(4) ? "" : "com.microsoft"] = below(26);
      return;
    }
    Node& n = pick(g.nodes);
    const Node& model = other.nodes[below(other.nodes.size())];
    n.op = model.op, n.domain = model.domain;
    if (!n.domain.empty()) g.opsets[n.domain] = 1;
    if (below(2)) n.attrs = model.attrs;
  }

  std::mt19937& rng_;
  const std::vector<Graph>& seeds_;
};

}  // namespace secateur::fuzzing
