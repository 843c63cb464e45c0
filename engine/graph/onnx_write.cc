#include "graph/onnx_write.h"

#include <bit>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace secateur {
namespace {

// Message fields are written in the order of their numbers; lengths need the content first, so messages nest as
// strings.
class Message {
 public:
  void varint(int field, uint64_t x) {
    raw_varint(static_cast<uint64_t>(field) << 3);
    raw_varint(x);
  }
  void integer(int field, int64_t x) { varint(field, static_cast<uint64_t>(x)); }
  void text(int field, std::string_view s) {
    raw_varint(static_cast<uint64_t>(field) << 3 | 2);
    raw_varint(s.size());
    out_.append(s);
  }
  void message(int field, const Message& m) { text(field, m.out_); }
  // A message whose last field is large: what comes before it, and that field without a copy of its own.
  void message(int field, const Message& head, int last, std::string_view bytes) {
    Message prefix;
    prefix.raw_varint(static_cast<uint64_t>(last) << 3 | 2);
    prefix.raw_varint(bytes.size());
    raw_varint(static_cast<uint64_t>(field) << 3 | 2);
    raw_varint(head.out_.size() + prefix.out_.size() + bytes.size());
    out_.append(head.out_).append(prefix.out_).append(bytes);
  }
  void reserve(size_t n) { out_.reserve(n); }
  void real(int field, float x) {
    raw_varint(static_cast<uint64_t>(field) << 3 | 5);
    raw_float(x);
  }
  // proto2 repeated numbers: one tag per element, as onnx.proto declares them.
  void integers(int field, const std::vector<int64_t>& list) {
    for (int64_t x : list) integer(field, x);
  }
  void reals(int field, const std::vector<float>& list) {
    for (float x : list) real(field, x);
  }
  std::string take() { return std::move(out_); }

 private:
  void raw_varint(uint64_t x) {
    for (; x >= 128; x >>= 7) out_.push_back(static_cast<char>(x | 128));
    out_.push_back(static_cast<char>(x));
  }
  void raw_float(float x) {
    const auto bits = std::bit_cast<uint32_t>(x);
    for (int i = 0; i < 4; ++i) out_.push_back(static_cast<char>(bits >> (8 * i)));
  }
  std::string out_;
};

// AttributeProto.AttributeType by alternative of Attribute::value.
constexpr int kTypes[] = {0, 1, 2, 3, 4, 6, 7, 8};

std::string_view text(const Tensor& t) { return {reinterpret_cast<const char*>(t.data.data()), t.data.size()}; }

void write_tensor(Message& to, int field, const Tensor& t) {
  Message head;
  head.integers(1, t.dims);
  head.integer(2, static_cast<int64_t>(t.dtype));
  if (!t.name.empty()) head.text(8, t.name);
  to.message(field, head, 9, text(t));
}

Message attribute(const std::string& name, const Attribute& a) {
  Message m;
  m.text(1, name);
  switch (a.value.index()) {
    case 1:
      m.real(2, std::get<1>(a.value));
      break;
    case 2:
      m.integer(3, std::get<2>(a.value));
      break;
    case 3:
      m.text(4, std::get<3>(a.value));
      break;
    case 4:
      write_tensor(m, 5, *std::get<4>(a.value));
      break;
    case 5:
      m.reals(7, std::get<5>(a.value));
      break;
    case 6:
      m.integers(8, std::get<6>(a.value));
      break;
    case 7:
      for (const auto& s : std::get<7>(a.value)) m.text(9, s);
      break;
    default:
      break;
  }
  if (const int type = kTypes[a.value.index()]) m.varint(20, static_cast<uint64_t>(type));
  return m;
}

Message node(const Node& n) {
  Message m;
  for (const auto& s : n.inputs) m.text(1, s);
  for (const auto& s : n.outputs) m.text(2, s);
  if (!n.name.empty()) m.text(3, n.name);
  m.text(4, n.op);
  for (const auto& [name, a] : n.attrs) {
    if (const Raw* raw = std::get_if<Raw>(&a.value)) m.text(5, raw->bytes);
    else m.message(5, attribute(name, a));
  }
  if (!n.domain.empty()) m.text(7, n.domain);
  if (!n.overload.empty()) m.text(8, n.overload);
  return m;
}

Message value_info(const ValueInfo& v) {
  Message type;
  type.integer(1, static_cast<int64_t>(v.dtype));
  if (v.has_shape) {
    Message shape;
    for (const Dim& d : v.shape) {
      Message dim;
      if (d.size >= 0) dim.integer(1, d.size);
      else if (!d.symbol.empty()) dim.text(2, d.symbol);
      shape.message(1, dim);
    }
    type.message(2, shape);
  }
  Message outer, m;
  outer.message(1, type);
  m.text(1, v.name);
  if (!v.type.empty()) {
    m.text(2, v.type);
    return m;
  }
  if (v.dtype == DType::kUndefined && !v.has_shape) return m;  // known by name only: the reader infers the rest
  m.message(2, outer);
  return m;
}

}  // namespace

std::string write_onnx(const Graph& g) {
  uint64_t size = 0;
  for (const Tensor& t : g.initializers) size += t.data.size();
  if (size > (uint64_t{1} << 31) - (1 << 20)) {
    throw UnsupportedError("the model's tensors take " + std::to_string(size) +
                           " bytes; one ONNX file holds less than 2 GiB");
  }
  Message graph;
  graph.reserve(size + (size >> 6) + 65536);  // else it is copied each time it grows
  for (const Node& n : g.nodes) graph.message(1, node(n));
  graph.text(2, g.name.empty() ? "main_graph" : g.name);
  for (const Tensor& t : g.initializers) {
    switch (t.form) {
      case Tensor::Form::kDense:
        write_tensor(graph, 5, t);
        break;
      case Tensor::Form::kMessage:
        graph.text(5, text(t));
        break;
      case Tensor::Form::kSparseMessage:
        graph.text(15, text(t));
        break;
    }
  }
  for (const ValueInfo& v : g.inputs) graph.message(11, value_info(v));
  if (g.ir_version < 4)  // where initializers must be inputs as well; the reader takes them out again
    for (const Tensor& t : g.initializers) {
      ValueInfo v{t.name, t.dtype, {}, true};
      for (int64_t d : t.dims) v.shape.push_back({d, ""});
      graph.message(11, value_info(v));
    }
  for (const ValueInfo& v : g.outputs) graph.message(12, value_info(v));

  Message model;
  model.reserve(size + (size >> 6) + 65536);
  model.integer(1, g.ir_version);
  model.text(2, "secateur");
  model.message(7, graph);
  for (const auto& [domain, version] : g.opsets) {
    Message opset;
    if (!domain.empty()) opset.text(1, domain);
    opset.integer(2, version);
    model.message(8, opset);
  }
  for (const Function& f : g.functions) model.text(25, f.message.bytes);
  return model.take();
}

}  // namespace secateur
