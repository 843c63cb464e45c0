// Parts of an ONNX file that onnx_read.cc puts together; each reads one message and trusts no length.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "graph/graph.h"
#include "graph/wire.h"

namespace secateur {

// UnsupportedError: no data type that is known; `what` names it.
DType data_type(int64_t code, const std::string& what);

// A TensorProto; `where` names it in errors, empty: by its own name.
Tensor read_tensor(Wire w, const std::string& where);

// Of a SparseTensorProto only the name and the shape are told, and that its data is here.
Tensor read_sparse(Wire w);

// An AttributeProto into `node`; names that a subgraph in it reads from outside go into `captures`.
void read_attribute(Wire w, Node& node, std::set<std::string>& captures, const std::string& where);

}  // namespace secateur
