// Reading a node's attributes with a default; a wrong kind is a FormatError naming the node.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"

namespace secateur {

int64_t attr_i(const Node& n, const char* name, int64_t fallback);
float attr_f(const Node& n, const char* name, float fallback);
std::string attr_s(const Node& n, const char* name, const char* fallback);
std::vector<int64_t> attr_is(const Node& n, const char* name, std::vector<int64_t> fallback = {});
bool has_attr(const Node& n, const char* name);
const Attribute* find_attr(const Node& n, const char* name);

}  // namespace secateur
