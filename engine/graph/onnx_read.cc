#include "graph/onnx_read.h"

#include <cstring>
#include <set>
#include <string_view>

#include "base/error.h"
#include "graph/check.h"
#include "graph/once.h"
#include "graph/onnx_parts.h"
#include "graph/onnx_raw.h"
#include "graph/wire.h"

namespace secateur {
namespace {

Node read_node(Wire w) {
  Node node;
  // Attributes come after the names in every writer, but the format does not promise it; errors want the names.
  std::vector<Wire> attributes;
  while (w.next()) {
    switch (w.field) {
      case 1:
        node.inputs.push_back(w.text("node input"));
        break;
      case 2:
        node.outputs.push_back(w.text("node output"));
        break;
      case 3:
        node.name = w.text("node name");
        break;
      case 4:
        node.op = w.text("operator type");
        break;
      case 5:
        attributes.push_back(w.message("attribute"));
        break;
      case 7:
        node.domain = w.text("operator domain");
        break;
      case 8:
        node.overload = w.text("overload");
        break;
      default:
        w.skip();
    }
  }
  if (node.domain == "ai.onnx") node.domain.clear();
  const std::string where = "node '" + node_label(node) + "' (" + node.op + ")";
  std::set<std::string> captures;
  for (const Wire& a : attributes) read_attribute(a, node, captures, where);
  node.captures.assign(captures.begin(), captures.end());
  return node;
}

Dim read_dim(Wire w) {
  Dim dim;
  while (w.next()) {
    switch (w.field) {
      case 1:
        dim.size = w.integer("dimension");
        if (dim.size < -1) w.fail("dimension " + std::to_string(dim.size) + " of a graph input or output is negative");
        break;
      case 2:
        dim.symbol = w.text("dimension name");
        break;
      default:
        w.skip();
    }
  }
  if (dim.size >= 0) dim.symbol.clear();
  return dim;
}

void read_tensor_type(Wire tensor, ValueInfo& info) {
  while (tensor.next()) {
    if (tensor.field == 1) {
      info.dtype = data_type(tensor.integer("element type"), "value '" + info.name + "'");
    } else if (tensor.field == 2) {
      info.has_shape = true;
      Wire shape = tensor.message("shape");
      while (shape.next()) {
        if (shape.field == 1) info.shape.push_back(read_dim(shape.message("dimension")));
        else shape.skip();
      }
      if (info.shape.size() > 64) shape.fail("value '" + info.name + "' has more than 64 dimensions");
    } else {
      tensor.skip();
    }
  }
}

void read_type(Wire type, ValueInfo& info) {
  const Wire whole = type;
  while (type.next()) {
    if (type.field == 1) {
      read_tensor_type(type.message("tensor type"), info);
    } else if (type.field == 4 || type.field == 5 || type.field == 8 || type.field == 9) {
      info.type = std::string(whole.rest());
      type_text(info.type);  // says now if it is damaged
      type.skip();
    } else {
      type.skip();
    }
  }
}

ValueInfo read_value_info(Wire w) {
  ValueInfo info;
  info.dtype = DType::kUndefined;
  info.has_shape = false;
  std::vector<Wire> types;
  while (w.next()) {
    switch (w.field) {
      case 1:
        info.name = w.text("value name");
        break;
      case 2:
        types.push_back(w.message("value type"));
        break;
      default:
        w.skip();
    }
  }
  for (const Wire& type : types) read_type(type, info);
  if (!info.type.empty()) {
    info.dtype = DType::kUndefined;
    info.shape.clear();
    info.has_shape = false;
  }
  return info;
}

Function read_function(Wire w) {
  Function f;
  f.message.bytes = std::string(w.rest());
  check_function(w);
  while (w.next()) {
    switch (w.field) {
      case 1:
        f.name = w.text("function name");
        break;
      case 10:
        f.domain = w.text("function domain");
        break;
      default:
        w.skip();
    }
  }
  if (f.domain == "ai.onnx") f.domain.clear();
  return f;
}

void read_graph(Wire w, Graph& graph) {
  std::vector<ValueInfo> inputs;
  while (w.next()) {
    switch (w.field) {
      case 1:
        graph.nodes.push_back(read_node(w.message("node")));
        break;
      case 2:
        graph.name = w.text("graph name");
        break;
      case 5:
        graph.initializers.push_back(read_tensor(w.message("initializer"), ""));
        break;
      case 11:
        inputs.push_back(read_value_info(w.message("graph input")));
        break;
      case 12:
        graph.outputs.push_back(read_value_info(w.message("graph output")));
        break;
      case 15:
        graph.initializers.push_back(read_sparse(w.message("sparse initializer")));
        break;
      default:
        w.skip();
    }
  }
  std::map<std::string_view, int> names;
  for (const auto& t : graph.initializers) names[t.name] = 1;
  for (auto& in : inputs)
    if (!names.count(in.name)) graph.inputs.push_back(std::move(in));
}

}  // namespace

Graph read_onnx(std::span<const uint8_t> bytes) {
  if (bytes.empty()) throw FormatError("ONNX: the file is empty", 0);
  Wire w(bytes.data(), bytes.data(), bytes.data() + bytes.size());
  Graph graph;
  graph.ir_version = 0;
  bool has_graph = false;
  while (w.next()) {
    switch (w.field) {
      case 1:
        graph.ir_version = w.integer("IR version");
        break;
      case 7:
        if (has_graph) w.fail("a second graph");
        has_graph = true;
        read_graph(w.message("graph"), graph);
        break;
      case 8: {
        Wire set = w.message("opset import");
        std::string domain;
        int64_t version = 0;
        while (set.next()) {
          switch (set.field) {
            case 1:
              domain = set.text("opset domain");
              break;
            case 2:
              version = set.integer("opset version");
              break;
            default:
              set.skip();
          }
        }
        graph.opsets[domain == "ai.onnx" ? std::string() : domain] = version;
        break;
      }
      case 25:
        graph.functions.push_back(read_function(w.message("function")));
        break;
      default:
        w.skip();
    }
  }
  if (!has_graph)
    throw FormatError("ONNX: no graph in the file; is it an ONNX model?", static_cast<int64_t>(bytes.size()));
  if (graph.ir_version < 1)
    throw FormatError("ONNX: no IR version in the file; is it an ONNX model?", static_cast<int64_t>(bytes.size()));
  if (graph.opsets.empty() && graph.ir_version < 3) graph.opsets[""] = 1;  // files of before there were opsets
  if (graph.opsets.empty()) throw FormatError("ONNX: no opset version in the file", static_cast<int64_t>(bytes.size()));
  sort_nodes(graph);
  check_graph(graph);
  return graph;
}

}  // namespace secateur
