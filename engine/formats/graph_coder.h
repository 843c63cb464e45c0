// The graph's stream, written once for both directions (docs/format.md, "Graph stream").
//
// Every field is a few binary decisions; each decision is predicted from several contexts at once, and all models have
// read a few well-known networks before (prime.inc), so that a usual network costs a few dozen bytes.
#pragma once

#include "formats/graph/interface.h"
#include "formats/graph/names.h"
#include "formats/graph/nodes.h"

namespace secateur::sct {

// Encoding reads `g` (canonical: see canonical.cc), decoding fills it. Tensors get name, dtype and dims, not data;
// `tensors` lists them in the order of their streams.
template <class C>
void code_graph(C& c, GraphModels& models, Graph& g, std::vector<Tensor*>& tensors) {
  GraphStream<C> s(c, models);
  std::unordered_set<std::string> taken;
  Types<C> types(s, taken);
  Interface<C> interface(s, taken);
  g.ir_version = static_cast<int64_t>(s.number(static_cast<uint64_t>(g.ir_version), {kIr}));
  code_opsets(s, g);
  interface.code(g.inputs, kInput);
  interface.code(g.outputs, kOutput);
  Nodes<C>(s, types, g).code();
  types.finish(g, tensors);
  if constexpr (!C::kEncoding) give_names(g, taken);
}

}  // namespace secateur::sct
