// What is looked at in the parts of an ONNX file that stay raw: which outer values a subgraph reads, that no tensor in
// it keeps its data in another file, and how a type is called. Nesting is bounded.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "graph/wire.h"

namespace secateur {

// Values read by the subgraphs of an AttributeProto and made outside of them go into `captures`.
// All throw UnsupportedError for external data and for subgraphs nested deeper than any runtime reads.
void check_attribute(Wire attribute, std::set<std::string>& captures);
void check_function(Wire function);
void check_sparse(Wire sparse_tensor);

// A TypeProto in ONNX Runtime's words: "seq(map(string,tensor(float)))".
std::string type_text(std::string_view type);
// "float", "int64": an element type in the same words; "unknown" if there is none.
std::string_view element_text(int64_t data_type);

}  // namespace secateur
