#include "graph/attrs.h"

#include "base/error.h"
#include "graph/check.h"

namespace secateur {
namespace {

template <class T>
const T* get(const Node& n, const char* name, const char* kind) {
  const auto it = n.attrs.find(name);
  if (it == n.attrs.end()) return nullptr;
  if (const T* v = std::get_if<T>(&it->second.value)) return v;
  throw FormatError("node '" + node_label(n) + "' (" + n.op + "): attribute '" + name + "' is not " + kind);
}

}  // namespace

const Attribute* find_attr(const Node& n, const char* name) {
  const auto it = n.attrs.find(name);
  return it == n.attrs.end() ? nullptr : &it->second;
}
bool has_attr(const Node& n, const char* name) { return n.attrs.count(name) != 0; }

int64_t attr_i(const Node& n, const char* name, int64_t fallback) {
  const auto* v = get<int64_t>(n, name, "an integer");
  return v ? *v : fallback;
}
float attr_f(const Node& n, const char* name, float fallback) {
  const auto* v = get<float>(n, name, "a float");
  return v ? *v : fallback;
}
std::string attr_s(const Node& n, const char* name, const char* fallback) {
  const auto* v = get<std::string>(n, name, "a string");
  return v ? *v : fallback;
}
std::vector<int64_t> attr_is(const Node& n, const char* name, std::vector<int64_t> fallback) {
  const auto* v = get<std::vector<int64_t>>(n, name, "a list of integers");
  return v ? *v : fallback;
}

}  // namespace secateur
