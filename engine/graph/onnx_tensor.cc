// Tensors and attributes of an ONNX file.
#include <bit>
#include <cstring>
#include <set>
#include <string_view>

#include "base/error.h"
#include "graph/check.h"
#include "graph/once.h"
#include "graph/onnx_parts.h"
#include "graph/onnx_raw.h"
#include "graph/wire.h"

static_assert(std::endian::native == std::endian::little, "the readers copy little-endian data as it stands");

namespace secateur {
namespace {

template <class T>
void append(std::vector<uint8_t>& out, T v) {
  uint8_t b[sizeof(T)];
  std::memcpy(b, &v, sizeof(T));
  out.insert(out.end(), b, b + sizeof(T));
}

}  // namespace

DType data_type(int64_t code, const std::string& what) {
  if (code > 0 && code <= kLastDType) return static_cast<DType>(code);
  throw UnsupportedError(what + ": ONNX data type " + std::to_string(code) + " is not known");
}

Tensor read_tensor(Wire w, const std::string& where) {
  const std::string_view message = w.rest();
  Tensor t;
  t.dtype = DType::kUndefined;
  int64_t code = 0;
  bool has_raw = false, external = false, segment = false;
  std::string_view raw;
  std::vector<float> floats;
  std::vector<double> doubles;
  std::vector<int64_t> int32s, int64s;
  std::vector<uint64_t> uint64s;
  const int64_t start = w.offset();
  while (w.next()) {
    switch (w.field) {
      case 1:
        w.each_varint("tensor dims", [&](uint64_t v) { t.dims.push_back(static_cast<int64_t>(v)); });
        break;
      case 2:
        code = w.integer("tensor data type");
        break;
      case 3:
        segment = true, w.skip();
        break;
      case 4:
        w.each_fixed<float>("float_data", [&](float v) { floats.push_back(v); });
        break;
      case 5:
        w.each_varint("int32_data", [&](uint64_t v) { int32s.push_back(static_cast<int64_t>(v)); });
        break;
      case 7:
        w.each_varint("int64_data", [&](uint64_t v) { int64s.push_back(static_cast<int64_t>(v)); });
        break;
      case 8:
        t.name = w.text("tensor name");
        break;
      case 9:
        raw = w.bytes("raw_data"), has_raw = true;
        break;
      case 10:
        w.each_fixed<double>("double_data", [&](double v) { doubles.push_back(v); });
        break;
      case 11:
        w.each_varint("uint64_data", [&](uint64_t v) { uint64s.push_back(v); });
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
  const std::string what = where.empty() ? "tensor '" + t.name + "'" : where;
  if (external)
    throw UnsupportedError(what + ": its data is in an external file, which is not read; save the model as one file");
  t.dtype = segment ? DType::kUndefined : data_type(code, what);
  if (t.dims.size() > 64) throw FormatError("ONNX: " + what + " has " + std::to_string(t.dims.size()) + " dims", start);
  const size_t size = dtype_size(t.dtype);
  const auto n = static_cast<uint64_t>(checked_numel(t.dims, size, "ONNX: " + what, start));
  if (size == 0) {
    t.form = Tensor::Form::kMessage;
    t.data.assign(message.begin(), message.end());
    return t;
  }
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
      throw FormatError("ONNX: " + what + ": value " + std::to_string(v) + " does not fit " + dtype_name(t.dtype),
                        start);
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
          case DType::kInt32:
            append(t.data, static_cast<int32_t>(narrow(v, INT32_MIN, INT32_MAX)));
            break;
          case DType::kInt16:
            append(t.data, static_cast<int16_t>(narrow(v, INT16_MIN, INT16_MAX)));
            break;
          case DType::kInt8:
            append(t.data, static_cast<int8_t>(narrow(v, INT8_MIN, INT8_MAX)));
            break;
          case DType::kUInt8:
            append(t.data, static_cast<uint8_t>(narrow(v, 0, UINT8_MAX)));
            break;
          case DType::kBool:
            append(t.data, static_cast<uint8_t>(narrow(v, 0, 1)));
            break;
          default:
            append(t.data, static_cast<uint16_t>(narrow(v, 0, UINT16_MAX)));  // uint16, float16, bfloat16 bits
        }
      }
  }
  return t;
}

Tensor read_sparse(Wire w) {
  const std::string_view message = w.rest();
  check_sparse(w);
  Tensor t;
  t.dtype = DType::kUndefined;
  t.form = Tensor::Form::kSparseMessage;
  t.data.assign(message.begin(), message.end());
  while (w.next()) {
    if (w.field == 1) {
      Wire values = w.message("values of a sparse tensor");
      while (values.next()) {
        if (values.field == 8) t.name = values.text("tensor name");
        else values.skip();
      }
    } else if (w.field == 3) {
      w.each_varint("tensor dims", [&](uint64_t v) { t.dims.push_back(static_cast<int64_t>(v)); });
    } else {
      w.skip();
    }
  }
  if (t.dims.size() > 64) w.fail("a sparse tensor has " + std::to_string(t.dims.size()) + " dims");
  return t;
}

void read_attribute(Wire w, Node& node, std::set<std::string>& captures, const std::string& where) {
  const Wire message = w;
  bool raw = false;
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
      case 1:
        name = w.text("attribute name");
        break;
      case 2:
        f = w.fixed<float>("attribute float"), seen = 1;
        break;
      case 3:
        i = w.integer("attribute integer"), seen = 2;
        break;
      case 4:
        s = std::string(w.bytes("attribute string")), seen = 3;
        break;
      case 5:
        tensor =
            std::make_shared<Tensor>(read_tensor(w.message("attribute tensor"), where + ", attribute '" + name + "'")),
        seen = 4;
        break;
      case 7:
        w.each_fixed<float>("attribute floats", [&](float v) { floats.push_back(v); }), seen = 6;
        break;
      case 8:
        w.each_varint("attribute ints", [&](uint64_t v) { ints.push_back(static_cast<int64_t>(v)); }), seen = 7;
        break;
      case 9:
        strings.emplace_back(w.bytes("attribute strings")), seen = 8;
        break;
      case 6:   // subgraph
      case 10:  // lists of tensors, subgraphs, sparse tensors, types
      case 11:
      case 14:
      case 15:
      case 21:  // a function's own attribute
      case 22:
      case 23:
        raw = true;
        w.skip();
        break;
      case 20:
        kind = w.integer("attribute type");
        break;
      default:
        w.skip();
    }
  }
  if (name.empty()) w.fail(where + " has an attribute without a name");
  if (raw || (tensor && tensor->opaque()) || kind > 8) {
    check_attribute(message, captures);
    a.value = Raw{std::string(message.rest())};
    kind = -1;
  }
  switch (kind ? kind : seen) {
    case -1:
    case 0:
      break;
    case 1:
      a.value = f;
      break;
    case 2:
      a.value = i;
      break;
    case 3:
      a.value = std::move(s);
      break;
    case 4:
      if (!tensor) w.fail(where + ": attribute '" + name + "' says tensor and holds none");
      a.value = std::move(tensor);
      break;
    case 6:
      a.value = std::move(floats);
      break;
    case 7:
      a.value = std::move(ints);
      break;
    case 8:
      a.value = std::move(strings);
      break;
    default:
      w.fail(where + ": attribute '" + name + "' says kind " + std::to_string(kind) + " and holds none");
  }
  if (!node.attrs.emplace(std::move(name), std::move(a)).second) w.fail(where + " has an attribute twice");
}

}  // namespace secateur
