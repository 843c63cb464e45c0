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

Graph named_graph(const nb::bytes& model) {
  Graph g = read_model(span_of(model));
  name_nodes(g);
  return g;
}

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

}  // namespace

void bind_partition(nb::module_& m) {
  // refused: {node name: why}. -> nodes [(name, op, [inputs], [outputs])], refused {name: why}, parts [(engine, [names], [inputs], [outputs], [computed])]
  m.def(
      "partition",
      [](const nb::bytes& model, const std::map<std::string, std::string>& refused) {
        const Graph g = named_graph(model);
        std::map<size_t, std::string> known;
        nb::list nodes;
        for (size_t i = 0; i < g.nodes.size(); ++i) {
          nodes.append(nb::make_tuple(g.nodes[i].name, g.nodes[i].op, g.nodes[i].inputs, g.nodes[i].outputs));
          if (const auto it = refused.find(g.nodes[i].name); it != refused.end()) known[i] = it->second;
        }
        const Partition p = partition(g, std::move(known));
        nb::dict result, why;
        for (const auto& [i, reason] : p.refused) why[g.nodes[i].name.c_str()] = reason;
        nb::list parts;
        for (const Part& part : p.parts) {
          nb::list names;
          for (size_t i : part.nodes) names.append(g.nodes[i].name);
          parts.append(nb::make_tuple(part.engine, names, part.inputs, part.outputs, part.computed));
        }
        result["nodes"] = nodes;
        result["refused"] = why;
        result["parts"] = parts;
        return result;
      },
      nb::arg("model"), nb::arg("refused"));
  // The nodes named, as an ONNX file; `types` of inner values and `given` constants as above.
  m.def(
      "extract",
      [](const nb::bytes& model, const std::vector<std::string>& nodes, const std::vector<std::string>& inputs,
         const std::vector<std::string>& outputs, const nb::dict& types, const nb::dict& given) {
        const Graph g = named_graph(model);
        Part part;
        part.inputs = inputs;
        part.outputs = outputs;
        const std::set<std::string> wanted(nodes.begin(), nodes.end());
        for (size_t i = 0; i < g.nodes.size(); ++i)
          if (wanted.count(g.nodes[i].name)) part.nodes.push_back(i);
        return bytes_of(extract(g, part, value_types(types), tensors(given)));
      },
      nb::arg("model"), nb::arg("nodes"), nb::arg("inputs"), nb::arg("outputs"), nb::arg("types"), nb::arg("given"));
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
  // Sizes to try for the free axes of the inputs: [{input: shape}].
  m.def(
      "guesses",
      [](const nb::bytes& model) {
        const Graph g = read_model(span_of(model));
        nb::list all;
        for (const Guess& guess : guesses(g.inputs)) {
          nb::dict shapes;
          for (const ValueInfo& in : g.inputs) shapes[in.name.c_str()] = nb::cast(guessed_dims(in, guess));
          all.append(shapes);
        }
        return all;
      },
      nb::arg("model"));
  // The whole model with all that its nodes make as its outputs, and these shapes of inputs: {input: shape}.
  m.def(
      "expose",
      [](const nb::bytes& model, const std::map<std::string, Dims>& shapes) {
        Graph g = named_graph(model);
        g.outputs.clear();
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
      },
      nb::arg("model"), nb::arg("shapes"));
  // The file as this engine writes it, IR version included.
  m.def("rewritten", [](const nb::bytes& model) { return bytes_of(read_model(span_of(model))); }, nb::arg("model"));
}
