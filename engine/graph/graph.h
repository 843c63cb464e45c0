// The graph every reader produces and every pass, packer and plan consumes: ONNX's own notions, nothing more.
// An .onnx file and a .sct file of the same network become the same Graph.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace secateur {

// ONNX TensorProto.DataType numbers; only what the readers accept.
enum class DType : int32_t {
  kUndefined = 0, kFloat = 1, kUInt8 = 2, kInt8 = 3, kUInt16 = 4, kInt16 = 5, kInt32 = 6, kInt64 = 7,
  kString = 8, kBool = 9, kFloat16 = 10, kDouble = 11, kUInt32 = 12, kUInt64 = 13, kBFloat16 = 16,
};

size_t dtype_size(DType t);          // bytes per element; 0 for kString, kUndefined
const char* dtype_name(DType t);     // "float32", "int64", ...

// A dense constant: raw little-endian bytes in C order, exactly numel * dtype_size long.
struct Tensor {
  std::string name;
  DType dtype = DType::kFloat;
  std::vector<int64_t> dims;
  std::vector<uint8_t> data;

  int64_t numel() const;
  const float* f32() const { return reinterpret_cast<const float*>(data.data()); }
  const int64_t* i64() const { return reinterpret_cast<const int64_t*>(data.data()); }
};

struct Attribute {
  // Empty = ONNX UNDEFINED. Order of alternatives is part of the .sct format's attribute kinds.
  std::variant<std::monostate, float, int64_t, std::string, std::shared_ptr<Tensor>, std::vector<float>,
               std::vector<int64_t>, std::vector<std::string>> value;
};

struct Node {
  std::string name;                            // may be empty
  std::string op;                              // "Conv"
  std::string domain;                          // "" or "ai.onnx" is stored as ""
  std::vector<std::string> inputs;             // "" = optional input left out
  std::vector<std::string> outputs;
  std::map<std::string, Attribute> attrs;      // sorted: canonical order
};

// One axis: a fixed size (>= 0), or -1 with `symbol` (possibly empty) for a free one.
struct Dim {
  int64_t size = -1;
  std::string symbol;
};

struct ValueInfo {
  std::string name;
  DType dtype = DType::kFloat;
  std::vector<Dim> shape;
  bool has_shape = true;
};

struct Graph {
  std::string name;
  int64_t ir_version = 8;
  std::map<std::string, int64_t> opsets;       // domain -> version; "" is the default domain
  std::vector<ValueInfo> inputs;               // without initializers
  std::vector<ValueInfo> outputs;
  std::vector<Tensor> initializers;            // file order
  std::vector<Node> nodes;                     // topological order as in the file
};

}  // namespace secateur
