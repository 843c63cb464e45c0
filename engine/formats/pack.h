// Writing .sct (docs/format.md). Reading is in unpack.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/tensor.h"
#include "graph/graph.h"

namespace secateur {

// One part of a file: `kind` is header, graph, tensor, `level <k>` or checksum; the nbytes of all sections add up to
// the file.
struct SectionInfo {
  std::string name, kind, dtype;
  std::vector<int64_t> shape;
  sct::TensorReport report;
};

// The smallest coding of the graph, found from its values alone.
// Throws UnsupportedError (string tensors, texts with zero bytes) or FormatError (an inconsistent graph).
std::vector<uint8_t> pack(const Graph& graph);

// One file with all levels of a net, from loose to tight: equal graphs, whose tensors are told level from level. Small
// where a tensor's values are some of those of the level before, and zeros. Throws the same, and UsageError.
std::vector<uint8_t> pack_levels(const std::vector<Graph>& graphs);

// The smallest coding of an ONNX file: of its graph, or of the very bytes where the graph holds what .sct has no words
// for (subgraphs, functions, strings, types of few bits). Throws FormatError, or UnsupportedError for external data.
std::vector<uint8_t> pack(std::span<const uint8_t> onnx);

// A coding of an ONNX file whose very bytes unpack_onnx() will give back. Throws the same.
std::vector<uint8_t> pack_exact(std::span<const uint8_t> onnx);

// The graph as a .sct file carries it: initializers in order of first use, default attributes left out,
// zeros of weights without a sign.
Graph canonical(const Graph& graph);

}  // namespace secateur
