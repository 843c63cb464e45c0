// Operator name -> handler. A new operator is one row here and one function in a file of this folder.
#include <algorithm>
#include <string>

#include "plan/lower/handlers.h"

namespace secateur {
namespace {

struct Row {
  const char* op;
  LowerFn fn;
};

// Sorted, for the message and the search.
constexpr Row kRows[] = {
#define SECATEUR_OP(name, fn) {#name, fn},
#include "plan/lower/operators.inc"
#undef SECATEUR_OP
};

}  // namespace

LowerFn find_operator(const std::string& domain, const std::string& op) {
  if (!domain.empty()) return nullptr;
  const auto it = std::lower_bound(std::begin(kRows), std::end(kRows), op, [](const Row& r, const std::string& s) { return s > r.op; });
  return it != std::end(kRows) && op == it->op ? it->fn : nullptr;
}

std::string supported_operators() {
  std::string s;
  for (const Row& r : kRows) s += (s.empty() ? "" : ", ") + std::string(r.op);
  return s;
}

}  // namespace secateur
