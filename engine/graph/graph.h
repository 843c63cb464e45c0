// The graph every reader produces and every pass, packer and plan consumes: ONNX's own notions, nothing more.
// An .onnx file and a .sct file of the same network become the same Graph.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "graph/post_ops.h"

namespace secateur {

// ONNX TensorProto.DataType numbers. Strings, complex numbers and what comes after bfloat16 are known by name only.
enum class DType : int32_t {
  kUndefined = 0,
  kFloat = 1,
  kUInt8 = 2,
  kInt8 = 3,
  kUInt16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kString = 8,
  kBool = 9,
  kFloat16 = 10,
  kDouble = 11,
  kUInt32 = 12,
  kUInt64 = 13,
  kComplex64 = 14,
  kComplex128 = 15,
  kBFloat16 = 16,
  kFloat8E4M3FN = 17,
  kFloat8E4M3FNUZ = 18,
  kFloat8E5M2 = 19,
  kFloat8E5M2FNUZ = 20,
  kUInt4 = 21,
  kInt4 = 22,
  kFloat4E2M1 = 23,
  kFloat8E8M0 = 24,
  kUInt2 = 25,
  kInt2 = 26,
};
constexpr int kLastDType = 26;

size_t dtype_size(DType t);       // bytes per element; 0 for those known by name only
const char* dtype_name(DType t);  // "float32", "int64", ...

// A part of a file that the engine has no notion of: the bytes of its message, carried along and never looked into.
// Only nodes that are handed over (plan/support.h) touch one.
struct Raw {
  std::string bytes;
};

// A dense constant: raw little-endian bytes in C order, exactly numel * dtype_size long. Or, in another form, `data` is
// a whole message of the file: a TensorProto (strings, element types known by name only, segments) or a
// SparseTensorProto.
struct Tensor {
  enum class Form : uint8_t { kDense, kMessage, kSparseMessage };

  std::string name;
  DType dtype = DType::kFloat;  // dtype_size() is 0 if opaque
  std::vector<int64_t> dims;
  std::vector<uint8_t> data;
  Form form = Form::kDense;

  bool opaque() const { return form != Form::kDense; }

  int64_t numel() const;
  const float* f32() const { return reinterpret_cast<const float*>(data.data()); }
  const int64_t* i64() const { return reinterpret_cast<const int64_t*>(data.data()); }
};

struct Attribute {
  // Empty = ONNX UNDEFINED. Order of alternatives is part of the .sct format's attribute kinds. Raw: an AttributeProto
  // of any other kind, subgraphs above all.
  std::variant<std::monostate, float, int64_t, std::string, std::shared_ptr<Tensor>, std::vector<float>,
               std::vector<int64_t>, std::vector<std::string>, Raw>
      value;
};

struct Node {
  std::string name;                 // may be empty
  std::string op;                   // "Conv"
  std::string domain;               // "" or "ai.onnx" is stored as ""
  std::vector<std::string> inputs;  // "" = optional input left out
  std::vector<std::string> outputs;
  std::map<std::string, Attribute> attrs;  // sorted: canonical order
  std::string overload{};                  // which of the model's functions of that name
  std::vector<std::string> captures{};     // values of this graph that the node's subgraphs read; sorted, each once
  PostOps post{};                          // of the passes, never of a file
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
  std::string type{};  // a TypeProto, of what is not a tensor: sequence, map, optional, sparse
};

// A function that the model brings along: nodes call it as an operator.
struct Function {
  std::string domain, name;
  Raw message;
};

struct Graph {
  std::string name;
  int64_t ir_version = 8;
  std::map<std::string, int64_t> opsets;  // domain -> version; "" is the default domain
  std::vector<ValueInfo> inputs;          // without initializers
  std::vector<ValueInfo> outputs;
  std::vector<Tensor> initializers;  // file order
  std::vector<Node> nodes;           // topological order as in the file
  std::vector<Function> functions{};
};

}  // namespace secateur
