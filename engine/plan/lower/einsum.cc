// Einsum of one or two operands: every operand is put into the order [batch, free, summed], then one product does it.
#include <algorithm>
#include <map>

#include "kernels/move/move.h"
#include "kernels/reduce/reduce.h"
#include "plan/lower/handlers.h"
#include "plan/lower/product.h"

namespace secateur {
namespace {

struct CopyStep {
  Copy c;
  int x, y;
  void run(const Exec& e) const noexcept { copy_ref(c, e.ptr[x], e.ptr[y]); }
};

struct SumStep {
  Reduce p;
  int x, y;
  void run(const Exec& e) const noexcept { reduce_f32_ref(p, e.f32(x), e.f32_out(y)); }
};

StepInfo named(const char* kernel) {
  StepInfo info;
  info.kernel = kernel;
  return info;
}

// Labels of one operand, one per axis; axes of an ellipsis get characters below ' ', counted from the right.
std::string labels_of(Lowering& L, const Node& n, std::string text, size_t rank) {
  std::erase(text, ' ');
  const size_t dots = text.find("...");
  std::string labels = text;
  if (dots != std::string::npos) {
    const size_t named = text.size() - 3;
    if (named > rank) L.invalid(n, "term '" + text + "' has more labels than axes");
    std::string extra;
    for (size_t i = rank - named; i-- > 0;) extra += static_cast<char>(1 + i);
    labels = text.substr(0, dots) + extra + text.substr(dots + 3);
  }
  if (labels.size() != rank) L.invalid(n, "term '" + text + "' does not fit a rank of " + std::to_string(rank));
  for (char c : labels)
    if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c > 0 && c < 9))
      L.invalid(n, "equation has the label '" + std::string(1, c) + "'");
  return labels;
}

using Sizes = std::map<char, int64_t>;

// Value `x` with labels `have`, its axes in the order of `want` (a label twice in `have`: the diagonal).
int arranged(Lowering& L, const Node& n, int x, const std::string& have, const std::string& want, const Sizes& size) {
  const Dims& xd = L.dims(x);
  Copy c;
  c.rank = static_cast<int>(want.size());
  Dims out;
  int64_t run = 1;
  std::map<char, int64_t> stride;
  for (size_t i = have.size(); i-- > 0; run *= xd[i]) stride[have[i]] += run;
  for (size_t i = 0; i < want.size(); ++i) {
    out.push_back(size.at(want[i]));
    c.dims[i] = out.back();
    c.stride_src[i] = stride[want[i]];
  }
  if (have == want) return x;
  const int y = L.temp(DType::kFloat, out);
  run = 1;
  for (size_t i = want.size(); i-- > 0; run *= out[i]) c.stride_dst[i] = run;
  simplify(c);
  L.emit(n, CopyStep{c, x, y}, {x}, {y}, named("copy"));
  return y;
}

// Sums `x`, labelled `labels`, over those not in `kept`; the others stay in order.
int summed(Lowering& L, const Node& n, int x, std::string& labels, const std::string& kept) {
  SumStep s{{}, x, -1};
  s.p.op = ReduceOp::kSum;
  s.p.rank = static_cast<int>(labels.size());
  Dims out;
  std::string left;
  for (size_t i = 0; i < labels.size(); ++i) {
    s.p.dims[i] = L.dims(x)[i];
    s.p.reduce[i] = kept.find(labels[i]) == std::string::npos;
    if (!s.p.reduce[i]) out.push_back(s.p.dims[i]), left += labels[i];
  }
  if (left == labels) return x;
  s.y = L.temp(DType::kFloat, out);
  L.emit(n, s, {x}, {s.y}, named("reduce_ref"));
  labels = left;
  return s.y;
}

std::string unique(const std::string& labels) {
  std::string s;
  for (char c : labels)
    if (s.find(c) == std::string::npos) s += c;
  return s;
}

}  // namespace

void lower_einsum(Lowering& L, const Node& n) {
  const std::string equation = attr_s(n, "equation", "");
  const size_t arrow = equation.find("->");
  std::vector<std::string> terms(1);
  for (char c : equation.substr(0, arrow)) {
    if (c == ',') terms.emplace_back();
    else terms.back() += c;
  }
  if (terms.size() != n.inputs.size())
    L.invalid(n, "equation '" + equation + "' has " + std::to_string(terms.size()) + " terms for " +
                     std::to_string(n.inputs.size()) + " inputs");
  if (terms.size() > 2) L.unsupported(n, "equation '" + equation + "', supported: one or two operands");
  Sizes size;
  std::vector<int> x;
  std::vector<std::string> have;
  std::map<char, int> count;
  size_t dots = 0;
  for (size_t k = 0; k < terms.size(); ++k) {
    x.push_back(L.in_f32(n, k));
    const Dims& d = L.dims(x[k]);
    if (d.size() > kMaxRank) L.unsupported(n, "rank " + std::to_string(d.size()));
    have.push_back(labels_of(L, n, terms[k], d.size()));
    for (size_t i = 0; i < d.size(); ++i) {
      const auto [it, fresh] = size.emplace(have[k][i], d[i]);
      if (!fresh && it->second != d[i])
        L.unsupported(n,
                      "label sizes " + std::to_string(it->second) + " and " + std::to_string(d[i]) + " that broadcast");
      ++count[have[k][i]];
      if (have[k][i] < 9) dots = std::max(dots, static_cast<size_t>(have[k][i]));
    }
  }
  std::string want;
  if (arrow == std::string::npos) {
    for (const auto& [c, times] : count)
      if (c < 9 || times == 1) want += c;  // in alphabetical order
    std::reverse(want.begin(), want.begin() + static_cast<int64_t>(dots));
  } else {
    std::string text = equation.substr(arrow + 2);
    std::erase(text, ' ');
    const bool dotted = text.find("...") != std::string::npos;
    want = labels_of(L, n, text, text.size() - (dotted ? 3 : 0) + (dotted ? dots : 0));
  }
  if (unique(want) != want || want.size() > kMaxRank) L.invalid(n, "equation '" + equation + "'");
  for (char c : want)
    if (!size.count(c)) L.invalid(n, "equation '" + equation + "' makes a label from nothing");

  Dims out;
  for (char c : want) out.push_back(size.at(c));
  int last;
  std::string order;
  for (size_t k = 0; k < x.size(); ++k) {
    // Diagonals first, then sums over what nobody else has.
    x[k] = arranged(L, n, x[k], have[k], unique(have[k]), size);
    have[k] = unique(have[k]);
    x[k] =
        summed(L, n, x[k], have[k],
               want + (x.size() == 2 ? (k == 0 ? unique(labels_of(L, n, terms[1], L.dims(L.in(n, 1)).size())) : have[0])
                                     : ""));
  }
  if (x.size() == 1) {
    last = x[0];
    order = have[0];
  } else {
    std::string batch, rows, columns, inner;
    for (char c : have[0]) {
      const bool other = have[1].find(c) != std::string::npos, kept = want.find(c) != std::string::npos;
      (other && kept ? batch : other ? inner : rows) += c;
    }
    for (char c : have[1])
      if (have[0].find(c) == std::string::npos) columns += c;
    const auto product = [&](const std::string& s) {
      int64_t p = 1;
      for (char c : s) p *= size.at(c);
      return p;
    };
    const int a = arranged(L, n, x[0], have[0], batch + rows + inner, size);
    // The right operand as it stands, if the product can read it so.
    const bool turned = have[1] == batch + columns + inner;
    const int b = turned ? x[1] : arranged(L, n, x[1], have[1], batch + inner + columns, size);
    MatMul p;
    p.m = product(rows), p.n = product(columns), p.k = product(inner);
    p.a_row = p.k, p.b_row = turned ? 1 : p.n, p.b_col = turned ? p.k : 1;
    p.rank = 1;
    p.dims[0] = product(batch);
    p.a_batch[0] = p.m * p.k, p.b_batch[0] = p.k * p.n;
    order = batch + rows + columns;
    Dims made;
    for (char c : order) made.push_back(size.at(c));
    last = order == want ? L.out(n, 0, DType::kFloat, made) : L.temp(DType::kFloat, made);
    emit_matmul(L, n, p, a, b, last);
    if (order == want) return;
  }
  if (order == want) return L.alias(n, 0, last, out);
  L.alias(n, 0, arranged(L, n, last, order, want, size), out);
}

}  // namespace secateur
