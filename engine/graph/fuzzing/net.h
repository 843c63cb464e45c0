// A small graph written down node by node, for the fuzzers' seeds.
#pragma once

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace secateur::fuzzing {

class Net {
 public:
  explicit Net(int64_t opset = 18) {
    graph.name = "g";
    graph.opsets[""] = opset;
  }

  std::string input(std::vector<int64_t> dims, DType dtype = DType::kFloat) {
    ValueInfo info{"x" + std::to_string(graph.inputs.size()), dtype, {}, true};
    for (size_t i = 0; i < dims.size(); ++i) info.shape.push_back({i == 0 ? -1 : dims[i], i == 0 ? "n" : ""});
    graph.inputs.push_back(info);
    return info.name;
  }
  // Values in [-1, 1], a third of them zero.
  std::string w(std::vector<int64_t> dims) {
    std::uniform_real_distribution<float> d(-1, 1);
    Tensor& t = make(DType::kFloat, std::move(dims), 4);
    for (size_t i = 0; i < t.data.size(); i += 4) put(t, i, rng_() % 3 ? d(rng_) : 0.0f);
    return t.name;
  }
  std::string f(float v, std::vector<int64_t> dims = {}) {
    Tensor& t = make(DType::kFloat, std::move(dims), 4);
    for (size_t i = 0; i < t.data.size(); i += 4) put(t, i, v);
    return t.name;
  }
  std::string i(const std::vector<int64_t>& v) {
    Tensor& t = make(DType::kInt64, {static_cast<int64_t>(v.size())}, 8);
    for (size_t k = 0; k < v.size(); ++k) put(t, 8 * k, v[k]);
    return t.name;
  }
  std::string scalar(int64_t v) {
    Tensor& t = make(DType::kInt64, {}, 8);
    put(t, 0, v);
    return t.name;
  }
  // Bytes of any value in the low byte of each element.
  std::string codes(DType dtype, std::vector<int64_t> dims) {
    Tensor& t = make(dtype, std::move(dims), dtype_size(dtype));
    for (size_t k = 0; k < t.data.size(); k += dtype_size(dtype)) t.data[k] = static_cast<uint8_t>(rng_());
    return t.name;
  }
  std::string byte(DType dtype, uint8_t v) {
    Tensor& t = make(dtype, {}, 1);
    t.data[0] = v;
    return t.name;
  }

  using Attrs = std::vector<std::pair<std::string, Attribute>>;
  // The name of the first output.
  std::string op(const std::string& op, std::vector<std::string> in, Attrs attrs = {}, size_t outputs = 1,
                 const char* domain = "") {
    Node n;
    n.op = op;
    n.domain = domain;
    n.inputs = std::move(in);
    for (size_t k = 0; k < outputs; ++k)
      n.outputs.push_back("v" + std::to_string(graph.nodes.size()) + "_" + std::to_string(k));
    for (auto& [name, value] : attrs) n.attrs[name] = std::move(value);
    if (*domain) graph.opsets[domain] = 1;
    graph.nodes.push_back(std::move(n));
    return graph.nodes.back().outputs[0];
  }
  // Output k of the last node.
  std::string out(size_t k) const { return graph.nodes.back().outputs[k]; }
  void result(const std::string& name) { graph.outputs.push_back({name, DType::kUndefined, {}, false}); }

  Graph graph;

 private:
  Tensor& make(DType dtype, std::vector<int64_t> dims, size_t size) {
    Tensor t;
    t.name = "c" + std::to_string(graph.initializers.size());
    t.dtype = dtype;
    t.dims = std::move(dims);
    t.data.assign(static_cast<size_t>(t.numel()) * size, 0);
    graph.initializers.push_back(std::move(t));
    return graph.initializers.back();
  }
  template <class T>
  static void put(Tensor& t, size_t at, T v) {
    std::memcpy(t.data.data() + at, &v, sizeof v);
  }
  std::mt19937 rng_{1};
};

inline Attribute list(std::vector<int64_t> v) { return {v}; }
inline Attribute num(int64_t v) { return {v}; }
inline Attribute real(float v) { return {v}; }
inline Attribute text(const char* v) { return {std::string(v)}; }

}  // namespace secateur::fuzzing
