// What the engine refuses of a graph, all of it at once: a lowering that goes on behind what is refused. Nothing is
// kept.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "plan/lowering.h"

namespace secateur {

struct Survey {
  struct Refusal {
    int64_t layer = -1;     // of the graph's nodes before the passes, -1: not known
    std::string node, why;  // the node's name
  };
  std::vector<Refusal> refused;
  bool fits = true;      // the shapes do not contradict the graph
  bool complete = true;  // every node was looked at, with the shapes of all it reads
};

// The element type and shape of a value behind a refused node; null or free axes where they are not known.
using TypeOf = std::function<const ValueInfo*(const std::string& value)>;

// `graph`: after the passes. `inputs`: one shape per graph input, empty optional where it is not known. `by_type`:
// refuse what touches float16 without asking the handlers, so that it needs no shapes.
Survey survey(const Graph& graph, Lowering& lowering, const std::vector<std::optional<Dims>>& inputs,
              const TypeOf& type_of, bool by_type);

// A value's shape, if all of it is known.
std::optional<Dims> known_dims(const ValueInfo& info);

// The element type of one of the node's values that no kernel computes in, with the value's name; empty if there is
// none.
std::string strange_type(const Node& n, const std::function<DType(const std::string& value)>& dtype_of);

// Sizes to try for free axes, one set after the other: of first axes, of all others. None is a promise.
struct Guess {
  int64_t first, other;
};
std::vector<Guess> guesses(const std::vector<ValueInfo>& inputs);
Dims guessed_dims(const ValueInfo& input, const Guess& guess);

}  // namespace secateur
