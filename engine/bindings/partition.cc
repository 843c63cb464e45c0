// The cutting of a model between the engine and another runtime, for secateur.engine.mixed.
#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <utility>

#include "bindings/bindings.h"
#include "graph/onnx_write.h"
#include "plan/partition.h"
#include "plan/session.h"

namespace nb = nanobind;
using namespace secateur;

namespace {

std::span<const uint8_t> span_of(const nb::bytes& b) { return {reinterpret_cast<const uint8_t*>(b.c_str()), b.size()}; }

// {value: (element type of ONNX, shape with -1 for free axes, or None)}
std::map<std::string, ValueInfo> value_types(const nb::dict& types) {
  std::map<std::string, ValueInfo> known;
  for (auto [key, value] : types) {
    const auto pair = nb::cast<nb::tuple>(value);
    ValueInfo info;
    info.name = nb::cast<std::string>(key);
    info.dtype = static_cast<DType>(nb::cast<int32_t>(pair[0]));
    info.has_shape = !pair[1].is_none();
    if (info.has_shape)
      for (nb::handle d : nb::cast<nb::list>(pair[1])) info.shape.push_back({nb::cast<int64_t>(d), ""});
    known[info.name] = info;
  }
  return known;
}

// {value: (element type of ONNX, shape, bytes)}
std::map<std::string, Tensor> tensors(const nb::dict& arrays) {
  std::map<std::string, Tensor> all;
  for (auto [key, value] : arrays) {
    const auto of = nb::cast<nb::tuple>(value);
    const auto data = nb::cast<nb::bytes>(of[2]);
    Tensor t;
    t.name = nb::cast<std::string>(key);
    t.dtype = static_cast<DType>(nb::cast<int32_t>(of[0]));
    t.dims = nb::cast<std::vector<int64_t>>(of[1]);
    t.data.assign(data.c_str(), data.c_str() + data.size());
    all[t.name] = std::move(t);
  }
  return all;
}

// IR version 10 holds every opset read here; a runtime refuses files of IR versions newer than itself.
nb::bytes bytes_of(Graph g) {
  g.ir_version = std::min<int64_t>(g.ir_version, 10);
  const std::string s = write_onnx(g);
  return nb::bytes(s.data(), s.size());
}

constexpr size_t kWeights = 1 << 14;  // bytes of a constant that no shape is made of

// A model's file, read once, every node with a name of its own.
class File {
 public:
  explicit File(const nb::bytes& model) : graph_(read_model(span_of(model))) { name_nodes(graph_); }

  nb::dict partition(const std::map<std::string, std::string>& refused) const {
    std::map<size_t, std::string> known;
    nb::list nodes, parts;
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& n = graph_.nodes[i];
      nodes.append(nb::make_tuple(n.name, n.op, n.inputs, n.outputs));
      if (const auto it = refused.find(n.name); it != refused.end()) known[i] = it->second;
    }
    const Partition p = secateur::partition(graph_, std::move(known));
    nb::dict result, why;
    for (const auto& [i, reason] : p.refused) why[graph_.nodes[i].name.c_str()] = reason;
    for (const Part& part : p.parts) {
      nb::list names;
      for (size_t i : part.nodes) names.append(graph_.nodes[i].name);
      parts.append(nb::make_tuple(part.engine, names, part.inputs, part.outputs, part.computed));
    }
    result["nodes"] = nodes;
    result["refused"] = why;
    result["parts"] = parts;
    return result;
  }

  nb::dict weights() const {
    nb::dict counts;
    for (const Tensor& t : graph_.initializers)
      if (t.dims.size() > 1 && !t.opaque()) counts[t.name.c_str()] = t.numel();
    return counts;
  }

  nb::bytes extract(const std::vector<std::string>& nodes, const std::vector<std::string>& inputs,
                    const std::vector<std::string>& outputs, const nb::dict& types, const nb::dict& given) const {
    Part part;
    part.inputs = inputs;
    part.outputs = outputs;
    const std::set<std::string> wanted(nodes.begin(), nodes.end());
    for (size_t i = 0; i < graph_.nodes.size(); ++i)
      if (wanted.count(graph_.nodes[i].name)) part.nodes.push_back(i);
    return bytes_of(secateur::extract(graph_, part, value_types(types), tensors(given)));
  }

  nb::list guesses() const {
    nb::list all;
    for (const Guess& guess : secateur::guesses(graph_.inputs)) {
      nb::dict shapes;
      for (const ValueInfo& in : graph_.inputs) shapes[in.name.c_str()] = nb::cast(guessed_dims(in, guess));
      all.append(shapes);
    }
    return all;
  }

  nb::bytes expose(const std::map<std::string, Dims>& shapes, bool weights) const {
    Graph g;
    g.name = graph_.name;
    g.ir_version = graph_.ir_version;
    g.opsets = graph_.opsets;
    g.nodes = graph_.nodes;
    g.functions = graph_.functions;
    g.inputs = graph_.inputs;
    for (const Tensor& t : graph_.initializers) {
      if (weights || t.opaque() || t.data.size() < kWeights) {
        g.initializers.push_back(t);
        continue;
      }
      ValueInfo in{t.name, t.dtype, {}, true, {}};
      for (int64_t d : t.dims) in.shape.push_back({d, ""});
      g.inputs.push_back(std::move(in));
    }
    for (const Node& n : g.nodes)
      for (const auto& out : n.outputs)
        if (!out.empty()) g.outputs.push_back({out, DType::kUndefined, {}, false, {}});
    for (ValueInfo& in : g.inputs) {
      const auto it = shapes.find(in.name);
      if (it == shapes.end() || !in.type.empty()) continue;
      in.shape.clear();
      in.has_shape = true;
      for (int64_t d : it->second) in.shape.push_back({d, ""});
    }
    return bytes_of(std::move(g));
  }

 private:
  Graph graph_;
};

}  // namespace

void bind_partition(nb::module_& m) {
  nb::class_<File>(m, "File", "A model's file, read once to be cut.")
      .def(nb::init<const nb::bytes&>(), nb::arg("model"))
      // refused: {node name: why}. -> nodes [(name, op, [inputs], [outputs])], refused {name: why},
      // parts [(engine, [names], [inputs], [outputs], [computed])]
      .def("partition", &File::partition, nb::arg("refused"))
      // {initializer of two axes or more: its number of elements}
      .def("weights", &File::weights)
      // The nodes named, as an ONNX file; `types` of inner values and `given` constants as above.
      .def("extract", &File::extract, nb::arg("nodes"), nb::arg("inputs"), nb::arg("outputs"), nb::arg("types"),
           nb::arg("given"))
      // Sizes to try for the free axes of the inputs: [{input: shape}].
      .def("guesses", &File::guesses)
      // The whole model with all that its nodes make as its outputs, and these shapes of inputs: {input: shape}.
      // weights = False: large constants are declared as inputs, as no shape depends on their values.
      .def("expose", &File::expose, nb::arg("shapes"), nb::arg("weights"));
  // What the engine would refuse of an extracted part: ({node: why}, whether the shapes fit).
  m.def(
      "refusals",
      [](const nb::bytes& model, const nb::dict& types) {
        const Refusals found = refusals(span_of(model), value_types(types));
        nb::dict why;
        for (const auto& [node, reason] : found.nodes) why[node.c_str()] = reason;
        return nb::make_tuple(why, found.fits);
      },
      nb::arg("model"), nb::arg("types"));
  // The file as this engine writes it: nodes in order, each with a name of its own, an IR version that runtimes know.
  m.def(
      "rewritten",
      [](const nb::bytes& model) {
        Graph g = read_model(span_of(model));
        name_nodes(g);
        return bytes_of(std::move(g));
      },
      nb::arg("model"));
}
