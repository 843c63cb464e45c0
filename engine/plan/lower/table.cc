// Operator name -> handler. A new operator is one row here and one function in a file of this folder.
#include <algorithm>
#include <span>
#include <string>

#include "graph/passes/passes.h"
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

// The domain com.microsoft: ONNX Runtime's own operators, which its optimizer and other exporters write.
constexpr Row kMicrosoft[] = {
#define SECATEUR_OP(name, fn) {#name, fn},
#include "plan/lower/operators_microsoft.inc"
#undef SECATEUR_OP
};

// Integer layers, which only the passes make (graph/passes/passes.h).
constexpr Row kQuads[] = {
    {"QuadAdd", lower_quad_add},         {"QuadAverage", lower_quad_average}, {"QuadConcat", lower_quad_concat},
    {"QuadConv", lower_quad_conv},       {"QuadLinear", lower_quad_linear},   {"QuadMaxPool", lower_quad_max_pool},
    {"QuadReshape", lower_quad_reshape}, {"QuadTable", lower_quad_table},
};

LowerFn search(std::span<const Row> rows, const std::string& op) {
  const auto it =
      std::lower_bound(rows.begin(), rows.end(), op, [](const Row& r, const std::string& s) { return s > r.op; });
  return it != rows.end() && op == it->op ? it->fn : nullptr;
}

}  // namespace

LowerFn find_operator(const std::string& domain, const std::string& op) {
  if (domain == "com.microsoft") return search(kMicrosoft, op);
  if (domain == kQuadsDomain) return search(kQuads, op);
  return domain.empty() ? search(kRows, op) : nullptr;
}

std::string supported_operators() {
  std::string s;
  for (const Row& r : kRows) s += (s.empty() ? "" : ", ") + std::string(r.op);
  return s;
}

}  // namespace secateur
