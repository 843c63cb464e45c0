// The networks every graph coder has read before its first bit. Part of the format: changing them changes the version.
#pragma once

#include "formats/graph_coder.h"

namespace secateur::sct {

// Models that have seen the priming networks; copied for each graph.
const GraphModels& primed_models();

// The priming networks as one stream, coded from empty models (used once, by tools that make prime.inc).
std::vector<uint8_t> encode_prime(const std::vector<Graph>& networks);

}  // namespace secateur::sct
