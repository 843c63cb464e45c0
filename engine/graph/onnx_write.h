// A small writer of ONNX's protobuf wire format: the graph as a ModelProto, initializers as raw data.
#pragma once

#include <string>

#include "graph/graph.h"

namespace secateur {

// The same graph, the same bytes: fields in tag order, no doc strings, no value_info. `producer_name` is "secateur".
// Throws UnsupportedError when the file would pass protobuf's limit of 2 GiB.
std::string write_onnx(const Graph& graph);

}  // namespace secateur
