// A small bounded reader of ONNX's protobuf wire format. No protobuf library, nothing executed, no length trusted.
#pragma once

#include <cstdint>
#include <span>

#include "graph/graph.h"

namespace secateur {

// Reads a ModelProto. Every length is checked against what is left of its message before anything is allocated, nesting
// is bounded, dims are multiplied with overflow checks and must agree with the bytes present.
// Inputs that are also initializers (old IR versions) are dropped from `inputs`; `Constant` nodes stay nodes.
// What the Graph has no notion of (subgraphs, functions, strings, sparse tensors, sequences) is kept as it stands:
// graph.h. Throws FormatError (damaged, with byte offset) or UnsupportedError (external data, wherever it hides).
Graph read_onnx(std::span<const uint8_t> bytes);

}  // namespace secateur
