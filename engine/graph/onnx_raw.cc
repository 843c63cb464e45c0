#include "graph/onnx_raw.h"

#include <unordered_set>
#include <vector>

#include "graph/graph.h"

namespace secateur {
namespace {

// Protobuf's own readers stop at 100 messages within one another, three for each subgraph.
constexpr int kDeepest = 32;

// Names that a graph defines, and the graphs around it.
struct Scope {
  const Scope* outer;
  std::unordered_set<std::string_view> names;

  bool has(std::string_view name) const {
    for (const Scope* s = this; s; s = s->outer)
      if (s->names.count(name)) return true;
    return false;
  }
};

void check_tensor(Wire w) {
  bool external = false;
  std::string_view name;
  while (w.next()) {
    switch (w.field) {
      case 8:
        name = w.name("tensor name");
        break;
      case 13:
        external = true, w.skip();
        break;
      case 14:
        external = w.integer("data_location") == 1 || external;
        break;
      default:
        w.skip();
    }
  }
  if (external)
    throw UnsupportedError("tensor '" + std::string(name) +
                           "': its data is in an external file, which is not read; save the model as one file");
}

// `scope` is null outside of subgraphs: what a node of the graph itself reads is no capture.
void walk_attribute(Wire w, const Scope* scope, std::set<std::string>& captures, int depth);

void walk_node(Wire w, const Scope* scope, std::set<std::string>& captures, int depth) {
  while (w.next()) {
    if (w.field == 1 && scope) {
      const std::string_view in = w.name("node input");
      if (!in.empty() && !scope->has(in)) captures.emplace(in);
    } else if (w.field == 5) {
      walk_attribute(w.message("attribute"), scope, captures, depth);
    } else {
      w.skip();
    }
  }
}

// The name inside a message, where its field is `number`.
std::string_view name_in(Wire w, uint32_t number) {
  std::string_view name;
  while (w.next()) {
    if (w.field == number) name = w.name("name");
    else w.skip();
  }
  return name;
}

void define(Wire graph, Scope& scope) {
  while (graph.next()) {
    if (graph.field == 1) {
      Wire node = graph.message("node");
      while (node.next()) {
        if (node.field == 2) scope.names.insert(node.name("node output"));
        else node.skip();
      }
    } else if (graph.field == 5) {
      scope.names.insert(name_in(graph.message("initializer"), 8));
    } else if (graph.field == 11) {
      scope.names.insert(name_in(graph.message("graph input"), 1));
    } else if (graph.field == 15) {
      Wire sparse = graph.message("sparse initializer");
      while (sparse.next()) {
        if (sparse.field == 1) scope.names.insert(name_in(sparse.message("values"), 8));
        else sparse.skip();
      }
    } else {
      graph.skip();
    }
  }
}

void walk_graph(Wire w, const Scope* outer, std::set<std::string>& captures, int depth) {
  if (depth > kDeepest) throw UnsupportedError("subgraphs are nested deeper than " + std::to_string(kDeepest));
  Scope scope{outer, {}};
  define(w, scope);
  while (w.next()) {
    switch (w.field) {
      case 1:
        walk_node(w.message("node"), &scope, captures, depth);
        break;
      case 5:
        check_tensor(w.message("initializer"));
        break;
      case 12: {  // a result may be an outer value itself
        const std::string_view out = name_in(w.message("graph output"), 1);
        if (!out.empty() && !scope.has(out)) captures.emplace(out);
        break;
      }
      case 15:
        check_sparse(w.message("sparse initializer"));
        break;
      default:
        w.skip();
    }
  }
}

void walk_attribute(Wire w, const Scope* scope, std::set<std::string>& captures, int depth) {
  while (w.next()) {
    switch (w.field) {
      case 5:
      case 10:
        check_tensor(w.message("attribute tensor"));
        break;
      case 6:
      case 11:
        walk_graph(w.message("subgraph"), scope, captures, depth + 1);
        break;
      case 22:
      case 23:
        check_sparse(w.message("sparse tensor"));
        break;
      default:
        w.skip();
    }
  }
}

constexpr const char* kElements[kLastDType + 1] = {
    "unknown",   "float",      "uint8",      "int8",         "uint16",         "int16",      "int32",
    "int64",     "string",     "bool",       "float16",      "double",         "uint32",     "uint64",
    "complex64", "complex128", "bfloat16",   "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz",
    "uint4",     "int4",       "float4e2m1", "float8e8m0",   "uint2",          "int2"};

// The element type or inner type of a TypeProto's alternative; what is missing is unknown.
std::string type_words(Wire w, int depth);

std::string element_of(Wire tensor) {
  int64_t code = 0;
  while (tensor.next()) {
    if (tensor.field == 1) code = tensor.integer("element type");
    else tensor.skip();
  }
  return std::string(element_text(code));
}

std::string inner_of(Wire w, uint32_t field, int depth) {
  std::string text = "unknown";
  while (w.next()) {
    if (w.field == field) text = type_words(w.message("inner type"), depth + 1);
    else w.skip();
  }
  return text;
}

std::string map_words(Wire w, int depth) {
  std::string key = "unknown";
  const std::string value = inner_of(w, 2, depth);
  while (w.next()) {
    if (w.field == 1) key = element_text(w.integer("key type"));
    else w.skip();
  }
  return "map(" + key + "," + value + ")";
}

std::string type_words(Wire w, int depth) {
  if (depth > kDeepest) w.fail("types are nested deeper than " + std::to_string(kDeepest));
  std::string text = "unknown";
  while (w.next()) {
    switch (w.field) {
      case 1:
        text = "tensor(" + element_of(w.message("tensor type")) + ")";
        break;
      case 4:
        text = "seq(" + inner_of(w.message("sequence type"), 1, depth) + ")";
        break;
      case 5:
        text = map_words(w.message("map type"), depth);
        break;
      case 8:
        text = "sparse_tensor(" + element_of(w.message("sparse tensor type")) + ")";
        break;
      case 9:
        text = "optional(" + inner_of(w.message("optional type"), 1, depth) + ")";
        break;
      default:
        w.skip();
    }
  }
  return text;
}

}  // namespace

void check_attribute(Wire attribute, std::set<std::string>& captures) {
  walk_attribute(attribute, nullptr, captures, 0);
}

void check_function(Wire function) {
  std::set<std::string> none;
  while (function.next()) {
    if (function.field == 7) walk_node(function.message("node"), nullptr, none, 0);
    else if (function.field == 11) walk_attribute(function.message("default of an attribute"), nullptr, none, 0);
    else function.skip();
  }
}

void check_sparse(Wire sparse_tensor) {
  while (sparse_tensor.next()) {
    if (sparse_tensor.field == 1 || sparse_tensor.field == 2)
      check_tensor(sparse_tensor.message("sparse tensor's data"));
    else sparse_tensor.skip();
  }
}

std::string type_text(std::string_view type) {
  const auto* p = reinterpret_cast<const uint8_t*>(type.data());
  return type_words(Wire(p, p, p + type.size()), 0);
}

std::string_view element_text(int64_t data_type) {
  return kElements[data_type > 0 && data_type <= kLastDType ? data_type : 0];
}

}  // namespace secateur
