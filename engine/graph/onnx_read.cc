#include "graph/onnx_read.h"

#include <bit>
#include <cstring>
#include <string_view>

#include "base/error.h"
#include "graph/check.h"
#include "graph/once.h"

static_assert(std::endian::native == std::endian::little, "the readers copy little-endian data as it stands");

namespace secateur {
namespace {

// A position inside one message. `end` never passes the end of the enclosing message, so a length that lies is caught
// where it is read. Sub-messages are views: no recursion deeper than ModelProto > GraphProto > NodeProto >
// AttributeProto > TensorProto exists here, because subgraphs are refused.
class Wire {
 public:
  enum Type : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  Wire(const uint8_t* base, const uint8_t* begin, const uint8_t* end) : base_(base), p_(begin), end_(end) {}

  [[noreturn]] void fail(const std::string& what) const { throw FormatError("ONNX: " + what, offset()); }
  int64_t offset() const { return p_ - base_; }
  size_t left() const { return static_cast<size_t>(end_ - p_); }
  bool done() const { return p_ == end_; }

  // Next field: number into `field`, wire type into `type`.
  bool next() {
    if (done()) return false;
    const uint64_t key = varint();
    field = static_cast<uint32_t>(key >> 3);
    type = static_cast<uint32_t>(key & 7);
    if (key >> 32 || field == 0) fail("field number out of range");
    return true;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (done()) fail("the file ends inside a number (truncated?)");
      const uint8_t byte = *p_++;
      if (shift == 63 && byte > 1) fail("number longer than 64 bits");
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (!(byte & 0x80)) return value;
    }
    fail("number longer than 64 bits");
  }

  int64_t integer(const char* what) {
    expect(kVarint, what);
    return static_cast<int64_t>(varint());
  }

  Wire message(const char* what) {
    expect(kBytes, what);
    const uint64_t n = varint();
    if (n > left())
      fail(std::string(what) + " says " + std::to_string(n) + " bytes, only " + std::to_string(left()) +
           " are left (truncated?)");
    Wire sub(base_, p_, p_ + n);
    p_ += n;
    return sub;
  }

  std::string_view bytes(const char* what) {
    const Wire sub = message(what);
    return {reinterpret_cast<const char*>(sub.p_), sub.left()};
  }

  // Names end up as Python str: they must be UTF-8.
  std::string text(const char* what) {
    const std::string_view s = bytes(what);
    if (!valid_utf8(s)) fail(std::string(what) + " is not valid UTF-8");
    return std::string(s);
  }

  template <class T>
  T fixed(const char* what) {
    expect(sizeof(T) == 4 ? kFixed32 : kFixed64, what);
    return raw<T>(what);
  }

  template <class T>
  T raw(const char* what) {
    if (left() < sizeof(T)) fail(std::string("the file ends inside ") + what + " (truncated?)");
    T v;
    std::memcpy(&v, p_, sizeof(T));
    p_ += sizeof(T);
    return v;
  }

  void skip() {
    switch (type) {
      case kVarint: varint(); return;
      case kFixed64: raw<uint64_t>("a number"); return;
      case kBytes: message("an unknown field"); return;
      case kFixed32: raw<uint32_t>("a number"); return;
      default: fail("wire type " + std::to_string(type) + " is not used by ONNX");
    }
  }

  // repeated int64, packed or not
  template <class F>
  void each_varint(const char* what, F&& f) {
    if (type == kVarint) return f(varint());
    Wire sub = message(what);
    while (!sub.done()) f(sub.varint());
  }

  // repeated float / double, packed or not
  template <class T, class F>
  void each_fixed(const char* what, F&& f) {
    if (type != kBytes) return f(fixed<T>(what));
    Wire sub = message(what);
    if (sub.left() % sizeof(T)) sub.fail(std::string(what) + " is not a whole number of values");
    while (!sub.done()) f(sub.template raw<T>(what));
  }

  const uint8_t* position() const { return p_; }

  uint32_t field = 0;
  uint32_t type = 0;

 private:
  void expect(uint32_t want, const char* what) const {
    if (type != want)
      fail(std::string(what) + " has wire type " + std::to_string(type) + ", expected " + std::to_string(want));
  }

  static bool valid_utf8(std::string_view s) {
    size_t i = 0;
    while (i < s.size()) {
      const auto c = static_cast<unsigned char>(s[i]);
      size_t extra;
      uint32_t code;
      if (c < 0x80) {
        ++i;
        continue;
      } else if (c >= 0xc2 && c < 0xe0) {
        extra = 1, code = c & 0x1f;
      } else if (c >= 0xe0 && c < 0xf0) {
        extra = 2, code = c & 0x0f;
      } else if (c >= 0xf0 && c < 0xf5) {
        extra = 3, code = c & 0x07;
      } else {
        return false;
      }
      if (i + extra >= s.size()) return false;
      for (size_t k = 1; k <= extra; ++k) {
        const auto d = static_cast<unsigned char>(s[i + k]);
        if ((d & 0xc0) != 0x80) return false;
        code = code << 6 | (d & 0x3f);
      }
      if ((extra == 2 && code < 0x800) || (extra == 3 && (code < 0x10000 || code > 0x10ffff)) ||
          (code >= 0xd800 && code < 0xe000))
        return false;
      i += extra + 1;
    }
    return true;
  }

  const uint8_t* base_;
  const uint8_t* p_;
  const uint8_t* end_;
};

DType data_type(int64_t code, const std::string& what) {
  const auto t = static_cast<DType>(code);
  if (code > 0 && code <= 16 && (dtype_size(t) > 0 || t == DType::kString)) return t;
  throw UnsupportedError(what + ": ONNX data type " + std::to_string(code) +
                         " is not supported; supported: float32, float64, float16, bfloat16, (u)int8..64, bool");
}

template <class T>
void append(std::vector<uint8_t>& out, T v) {
  uint8_t b[sizeof(T)];
  std::memcpy(b, &v, sizeof(T));
  out.insert(out.end(), b, b + sizeof(T));
}

Tensor read_tensor(Wire w, const std::string& where) {
  Tensor t;
  t.dtype = DType::kUndefined;
  int64_t code = 0;
  bool has_raw = false, external = false;
  std::string_view raw;
  std::vector<float> floats;
  std::vector<double> doubles;
  std::vector<int64_t> int32s, int64s;
  std::vector<uint64_t> uint64s;
  const int64_t start = w.offset();
  while (w.next()) {
    switch (w.field) {
      case 1: w.each_varint("tensor dims", [&](uint64_t v) { t.dims.push_back(static_cast<int64_t>(v)); }); break;
      case 2: code = w.integer("tensor data type"); break;
      case 3: throw UnsupportedError(where + ": tensors in segments are not supported");
      case 4: w.each_fixed<float>("float_data", [&](float v) { floats.push_back(v); }); break;
      case 5: w.each_varint("int32_data", [&](uint64_t v) { int32s.push_back(static_cast<int64_t>(v)); }); break;
      case 6: throw UnsupportedError(where + ": string tensors are not supported");
      case 7: w.each_varint("int64_data", [&](uint64_t v) { int64s.push_back(static_cast<int64_t>(v)); }); break;
      case 8: t.name = w.text("tensor name"); break;
      case 9: raw = w.bytes("raw_data"), has_raw = true; break;
      case 10: w.each_fixed<double>("double_data", [&](double v) { doubles.push_back(v); }); break;
      case 11: w.each_varint("uint64_data", [&](uint64_t v) { uint64s.push_back(v); }); break;
      case 13: external = true, w.skip(); break;
      case 14: external = w.integer("data_location") == 1 || external; break;
      default: w.skip();
    }
  }
  const std::string what = where.empty() ? "tensor '" + t.name + "'" : where;
  if (external)
    throw UnsupportedError(what + ": its data is in an external file, which is not read; save the model as one file");
  t.dtype = data_type(code, what);
  if (t.dtype == DType::kString) throw UnsupportedError(what + ": string tensors are not supported");
  if (t.dims.size() > 64) throw FormatError("ONNX: " + what + " has " + std::to_string(t.dims.size()) + " dims", start);
  const size_t size = dtype_size(t.dtype);
  const auto n = static_cast<uint64_t>(checked_numel(t.dims, size, "ONNX: " + what, start));
  const size_t n_typed = floats.size() + doubles.size() + int32s.size() + int64s.size() + uint64s.size();
  const auto mismatch = [&](uint64_t got, const char* unit) {
    throw FormatError("ONNX: " + what + " holds " + std::to_string(got) + " " + unit + ", its shape needs " +
                          std::to_string(unit[0] == 'b' ? n * size : n),
                      start);
  };
  if (has_raw && n_typed) throw FormatError("ONNX: " + what + " has both raw and typed data", start);
  if (has_raw) {
    if (raw.size() != n * size) mismatch(raw.size(), "bytes");
    // In blocks, so that of a file that is read once no large tensor is there twice.
    constexpr size_t kBlock = size_t{4} << 20;
    t.data.reserve(raw.size());
    for (size_t at = 0; at < raw.size(); at += kBlock) {
      const std::string_view block = raw.substr(at, kBlock);
      t.data.insert(t.data.end(), block.begin(), block.end());
      ReadOnce::taken(reinterpret_cast<const uint8_t*>(block.data()), block.size());
    }
    return t;
  }
  if (n_typed != n) mismatch(n_typed, "values");
  const auto wrong_field = [&]() {
    throw FormatError("ONNX: " + what + " keeps its values in a field that is not for " + dtype_name(t.dtype), start);
  };
  t.data.reserve(n * size);
  const auto narrow = [&](int64_t v, int64_t lo, int64_t hi) {
    if (v < lo || v > hi)
      throw FormatError("ONNX: " + what + ": value " + std::to_string(v) + " does not fit " + dtype_name(t.dtype), start);
    return v;
  };
  switch (t.dtype) {
    case DType::kFloat:
      if (floats.size() != n) wrong_field();
      for (float v : floats) append(t.data, v);
      break;
    case DType::kDouble:
      if (doubles.size() != n) wrong_field();
      for (double v : doubles) append(t.data, v);
      break;
    case DType::kInt64:
      if (int64s.size() != n) wrong_field();
      for (int64_t v : int64s) append(t.data, v);
      break;
    case DType::kUInt64:
    case DType::kUInt32:
      if (uint64s.size() != n) wrong_field();
      for (uint64_t v : uint64s) {
        if (t.dtype == DType::kUInt64) {
          append(t.data, v);
        } else {
          append(t.data, static_cast<uint32_t>(narrow(static_cast<int64_t>(v >> 63 ? -1 : v), 0, UINT32_MAX)));
        }
      }
      break;
    default:
      if (int32s.size() != n) wrong_field();
      for (int64_t v : int32s) {
        switch (t.dtype) {
          case DType::kInt32: append(t.data, static_cast<int32_t>(narrow(v, INT32_MIN, INT32_MAX))); break;
          case DType::kInt16: append(t.data, static_cast<int16_t>(narrow(v, INT16_MIN, INT16_MAX))); break;
          case DType::kInt8: append(t.data, static_cast<int8_t>(narrow(v, INT8_MIN, INT8_MAX))); break;
          case DType::kUInt8: append(t.data, static_cast<uint8_t>(narrow(v, 0, UINT8_MAX))); break;
          case DType::kBool: append(t.data, static_cast<uint8_t>(narrow(v, 0, 1))); break;
          default: append(t.data, static_cast<uint16_t>(narrow(v, 0, UINT16_MAX)));  // uint16, float16, bfloat16 bits
        }
      }
  }
  return t;
}

void read_attribute(Wire w, Node& node, const std::string& where) {
  std::string name;
  Attribute a;
  int64_t kind = 0;
  float f = 0;
  int64_t i = 0;
  std::string s;
  std::shared_ptr<Tensor> tensor;
  std::vector<float> floats;
  std::vector<int64_t> ints;
  std::vector<std::string> strings;
  // Files of the first ONNX versions have no `type`: then the field that is present decides.
  int64_t seen = 0;
  while (w.next()) {
    switch (w.field) {
      case 1: name = w.text("attribute name"); break;
      case 2: f = w.fixed<float>("attribute float"), seen = 1; break;
      case 3: i = w.integer("attribute integer"), seen = 2; break;
      case 4: s = std::string(w.bytes("attribute string")), seen = 3; break;
      case 5: tensor = std::make_shared<Tensor>(read_tensor(w.message("attribute tensor"), where + ", attribute '" + name + "'")), seen = 4; break;
      case 6:
      case 11:
        throw UnsupportedError(where + ": operators with subgraphs are not supported (control flow like If, Loop, Scan)",
                               node.name);
      case 7: w.each_fixed<float>("attribute floats", [&](float v) { floats.push_back(v); }), seen = 6; break;
      case 8: w.each_varint("attribute ints", [&](uint64_t v) { ints.push_back(static_cast<int64_t>(v)); }), seen = 7; break;
      case 9: strings.emplace_back(w.bytes("attribute strings")), seen = 8; break;
      case 10:
      case 14:
      case 15:
      case 22:
      case 23:
        throw UnsupportedError(where + ": attribute '" + name + "' has a kind that is not supported (tensor list, type "
                               "or sparse tensor)", node.name);
      case 20: kind = w.integer("attribute type"); break;
      case 21: throw UnsupportedError(where + ": attribute references (model functions) are not supported", node.name);
      default: w.skip();
    }
  }
  if (name.empty()) w.fail(where + " has an attribute without a name");
  switch (kind ? kind : seen) {
    case 0: break;
    case 1: a.value = f; break;
    case 2: a.value = i; break;
    case 3: a.value = std::move(s); break;
    case 4:
      if (!tensor) w.fail(where + ": attribute '" + name + "' says tensor and holds none");
      a.value = std::move(tensor);
      break;
    case 6: a.value = std::move(floats); break;
    case 7: a.value = std::move(ints); break;
    case 8: a.value = std::move(strings); break;
    default:
      throw UnsupportedError(where + ": attribute '" + name + "' has kind " + std::to_string(kind) +
                             ", supported: float, int, string, tensor and lists of the first three", node.name);
  }
  if (!node.attrs.emplace(std::move(name), std::move(a)).second) w.fail(where + " has an attribute twice");
}

Node read_node(Wire w) {
  Node node;
  // Attributes come after the names in every writer, but the format does not promise it; errors want the names.
  std::vector<Wire> attributes;
  while (w.next()) {
    switch (w.field) {
      case 1: node.inputs.push_back(w.text("node input")); break;
      case 2: node.outputs.push_back(w.text("node output")); break;
      case 3: node.name = w.text("node name"); break;
      case 4: node.op = w.text("operator type"); break;
      case 5: attributes.push_back(w.message("attribute")); break;
      case 7: node.domain = w.text("operator domain"); break;
      default: w.skip();
    }
  }
  if (node.domain == "ai.onnx") node.domain.clear();
  const std::string where = "node '" + node_label(node) + "' (" + node.op + ")";
  for (const Wire& a : attributes) read_attribute(a, node, where);
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
      case 2: dim.symbol = w.text("dimension name"); break;
      default: w.skip();
    }
  }
  if (dim.size >= 0) dim.symbol.clear();
  return dim;
}

ValueInfo read_value_info(Wire w) {
  ValueInfo info;
  info.dtype = DType::kUndefined;
  info.has_shape = false;
  std::vector<Wire> types;
  while (w.next()) {
    switch (w.field) {
      case 1: info.name = w.text("value name"); break;
      case 2: types.push_back(w.message("value type")); break;
      default: w.skip();
    }
  }
  for (Wire type : types) {
    while (type.next()) {
      if (type.field == 1) {
        Wire tensor = type.message("tensor type");
        while (tensor.next()) {
          if (tensor.field == 1) {
            info.dtype = data_type(tensor.integer("element type"), "value '" + info.name + "'");
          } else if (tensor.field == 2) {
            info.has_shape = true;
            Wire shape = tensor.message("shape");
            while (shape.next()) {
              if (shape.field == 1)
                info.shape.push_back(read_dim(shape.message("dimension")));
              else
                shape.skip();
            }
            if (info.shape.size() > 64) shape.fail("value '" + info.name + "' has more than 64 dimensions");
          } else {
            tensor.skip();
          }
        }
      } else if (type.field == 4 || type.field == 5 || type.field == 8 || type.field == 9) {
        throw UnsupportedError("value '" + info.name + "' is a sequence, map, optional or sparse tensor; only dense tensors are supported");
      } else {
        type.skip();
      }
    }
  }
  return info;
}

void read_graph(Wire w, Graph& graph) {
  std::vector<ValueInfo> inputs;
  while (w.next()) {
    switch (w.field) {
      case 1: graph.nodes.push_back(read_node(w.message("node"))); break;
      case 2: graph.name = w.text("graph name"); break;
      case 5: graph.initializers.push_back(read_tensor(w.message("initializer"), "")); break;
      case 11: inputs.push_back(read_value_info(w.message("graph input"))); break;
      case 12: graph.outputs.push_back(read_value_info(w.message("graph output"))); break;
      case 15: throw UnsupportedError("sparse initializers are not supported; store the tensor dense (its zeros are found again)");
      default: w.skip();
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
      case 1: graph.ir_version = w.integer("IR version"); break;
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
            case 1: domain = set.text("opset domain"); break;
            case 2: version = set.integer("opset version"); break;
            default: set.skip();
          }
        }
        graph.opsets[domain == "ai.onnx" ? std::string() : domain] = version;
        break;
      }
      case 25: throw UnsupportedError("model functions are not supported; inline them (onnx.inliner.inline_local_functions)");
      default: w.skip();
    }
  }
  if (!has_graph) throw FormatError("ONNX: no graph in the file; is it an ONNX model?", static_cast<int64_t>(bytes.size()));
  if (graph.ir_version < 1) throw FormatError("ONNX: no IR version in the file; is it an ONNX model?", static_cast<int64_t>(bytes.size()));
  if (graph.opsets.empty()) throw FormatError("ONNX: no opset version in the file", static_cast<int64_t>(bytes.size()));
  check_graph(graph);
  return graph;
}

}  // namespace secateur
