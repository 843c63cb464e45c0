// The cutting of a model between the engine and another runtime, for MixedSession.
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

Graph named_graph(const nb::bytes& model) {
  Graph g = read_model({reinterpret_cast<const uint8_t*>(model.c_str()), model.size()});
  name_nodes(g);
  return g;
}

// IR version 10 holds every opset read here; a runtime refuses files of IR versions newer than itself.
nb::bytes bytes_of(Graph g) {
  g.ir_version = std::min<int64_t>(g.ir_version, 10);
  const std::string s = write_onnx(g);
  return nb::bytes(s.data(), s.size());
}

}  // namespace

void bind_partition(nb::module_& m) {
  // refused: {node name: why}. -> nodes [(name, op, [outputs])], refused {name: why}, parts [(engine, [names], [inputs], [outputs])]
  m.def(
      "partition",
      [](const nb::bytes& model, const std::map<std::string, std::string>& refused) {
        const Graph g = named_graph(model);
        std::map<size_t, std::string> known;
        nb::list nodes;
        for (size_t i = 0; i < g.nodes.size(); ++i) {
          nodes.append(nb::make_tuple(g.nodes[i].name, g.nodes[i].op, g.nodes[i].outputs));
          if (const auto it = refused.find(g.nodes[i].name); it != refused.end()) known[i] = it->second;
        }
        const Partition p = partition(g, std::move(known));
        nb::dict result, why;
        for (const auto& [i, reason] : p.refused) why[g.nodes[i].name.c_str()] = reason;
        nb::list parts;
        for (const Part& part : p.parts) {
          nb::list names;
          for (size_t i : part.nodes) names.append(g.nodes[i].name);
          parts.append(nb::make_tuple(part.engine, names, part.inputs, part.outputs));
        }
        result["nodes"] = nodes;
        result["refused"] = why;
        result["parts"] = parts;
        return result;
      },
      nb::arg("model"), nb::arg("refused"));
  // The nodes named, as an ONNX file; types: {value: (element type of ONNX, shape with -1 for free axes, or None)}.
  m.def(
      "extract",
      [](const nb::bytes& model, const std::vector<std::string>& nodes, const std::vector<std::string>& inputs,
         const std::vector<std::string>& outputs, nb::dict types) {
        const Graph g = named_graph(model);
        Part part;
        part.inputs = inputs;
        part.outputs = outputs;
        const std::set<std::string> wanted(nodes.begin(), nodes.end());
        for (size_t i = 0; i < g.nodes.size(); ++i)
          if (wanted.count(g.nodes[i].name)) part.nodes.push_back(i);
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
        return bytes_of(extract(g, part, known));
      },
      nb::arg("model"), nb::arg("nodes"), nb::arg("inputs"), nb::arg("outputs"), nb::arg("types"));
  // The whole model with `values` as its only outputs.
  m.def(
      "expose",
      [](const nb::bytes& model, const std::vector<std::string>& values) {
        Graph g = named_graph(model);
        g.outputs.clear();
        for (const auto& name : values) g.outputs.push_back({name, DType::kUndefined, {}, false});
        return bytes_of(std::move(g));
      },
      nb::arg("model"), nb::arg("values"));
}
