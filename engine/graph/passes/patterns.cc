// Functions that exporters write out in small operators, put together again: GELU, SiLU, hard-swish, Mish, LayerNorm,
// RMSNorm, attention. Each becomes the ONNX operator of that name (of whatever opset), which has one handler and
// kernel.
#include <cmath>
#include <limits>
#include <optional>

#include "graph/attrs.h"
#include "graph/passes/passes.h"
#include "graph/passes/rewriter.h"

namespace secateur {
namespace {

using Axes = std::vector<int64_t>;

class Matcher {
 public:
  explicit Matcher(Graph& graph) : r(graph) {}

  Rewriter r;

  bool is(int i, const char* op) const {
    return i >= 0 && r.node(static_cast<size_t>(i)).op == op && r.node(static_cast<size_t>(i)).domain.empty();
  }
  const Node& at(int i) const { return r.node(static_cast<size_t>(i)); }

  // The maker of `value` if it is an `op`, else -1.
  int maker(const std::string& value, const char* op) const {
    const int i = r.producer(value);
    return is(i, op) && !at(i).inputs.empty() ? i : -1;
  }
  // The only reader of node i's output if it is an `op`, else -1.
  int reader(int i, const char* op) const {
    if (i < 0 || at(i).outputs.size() != 1) return -1;
    const int j = r.only_consumer(at(i).outputs[0]);
    return is(j, op) ? j : -1;
  }
  std::optional<float> scalar(const std::string& value) const {
    const Tensor* t = r.f32(value);
    return t && t->numel() == 1 ? std::optional<float>(t->f32()[0]) : std::nullopt;
  }
  bool is_scalar(const std::string& value, double want) const {
    const auto v = scalar(value);
    return v && std::fabs(static_cast<double>(*v) - want) <= 1e-3 * std::fabs(want);
  }
  // Node i has two inputs, one of them the constant `want`: the other one, else "".
  std::string beside(int i, double want) const {
    if (i < 0 || at(i).inputs.size() != 2) return "";
    for (size_t k = 0; k < 2; ++k)
      if (is_scalar(at(i).inputs[k], want)) return at(i).inputs[1 - k];
    return "";
  }
  // Node i has two inputs, one of them `value`: the other one, else "".
  std::string beside(int i, const std::string& value) const {
    if (i < 0 || at(i).inputs.size() != 2) return "";
    if (at(i).inputs[0] == value) return at(i).inputs[1];
    return at(i).inputs[1] == value ? at(i).inputs[0] : "";
  }
  // x in x * factor or x / (1 / factor).
  std::string scaled_from(const std::string& value, double factor) const {
    if (const int mul = maker(value, "Mul"); mul >= 0) return beside(mul, factor);
    if (const int div = maker(value, "Div"); div >= 0 && is_scalar(at(div).inputs[1], 1 / factor))
      return at(div).inputs[0];
    return "";
  }
  bool is_square(const std::string& value, const std::string& x) const {
    if (const int pow = maker(value, "Pow"); pow >= 0) return at(pow).inputs[0] == x && is_scalar(at(pow).inputs[1], 2);
    const int mul = maker(value, "Mul");
    return mul >= 0 && at(mul).inputs == std::vector<std::string>{x, x};
  }
  bool is_cube(const std::string& value, const std::string& x) const {
    if (const int pow = maker(value, "Pow"); pow >= 0) return at(pow).inputs[0] == x && is_scalar(at(pow).inputs[1], 3);
    const int mul = maker(value, "Mul");
    const std::string square = beside(mul, x);
    return mul >= 0 && !square.empty() && is_square(square, x);
  }
  // The last axis reduced by `op` and kept: what is reduced, else "".
  std::string reduced_last(const std::string& value, const char* op) const {
    const int i = maker(value, op);
    if (i < 0 || attr_i(at(i), "keepdims", 1) == 0) return "";
    Axes axes = attr_is(at(i), "axes");
    if (at(i).inputs.size() > 1 && !r.ints(at(i).inputs[1], axes)) return "";
    return axes == Axes{-1} ? at(i).inputs[0] : "";
  }
  // Is node i a choice between two values?
  bool selects(int i) const { return is(i, "Where") && at(i).inputs.size() == 3; }
  // The last node of the pattern becomes `op`; what nobody reads any more is swept. The name stays, for reports.
  void replace(int last, const char* op, std::vector<std::string> inputs) {
    Node n = at(last);
    n.op = op;
    n.inputs = std::move(inputs);
    n.attrs.clear();
    n.post = from_layer(n.post);
    r.replace(static_cast<size_t>(last), std::move(n));
  }
  void set(int i, const char* name, Attribute value) { r.attrs(static_cast<size_t>(i))[name] = std::move(value); }
};

// half * (1 + inner) * x in any order of the products, where `one` is the node 1 + inner: the last product, else -1.
int gated(const Matcher& m, int one, const std::string& x) {
  const int first = m.reader(one, "Mul");
  if (first < 0) return -1;
  const std::string other = m.beside(first, m.at(one).outputs[0]);
  if (other == x) {  // x (1 + inner), then 0.5
    const int last = m.reader(first, "Mul");
    return m.beside(last, 0.5) == m.at(first).outputs[0] ? last : -1;
  }
  if (m.is_scalar(other, 0.5)) {  // 0.5 (1 + inner), then x
    const int last = m.reader(first, "Mul");
    return m.beside(last, m.at(first).outputs[0]) == x ? last : -1;
  }
  return m.scaled_from(other, 0.5) == x ? first : -1;  // (0.5 x) (1 + inner)
}

int fuse_gelu(Matcher& m, int i) {
  const bool exact = m.is(i, "Erf");
  if (!exact && !m.is(i, "Tanh")) return 0;
  const std::string inner = m.at(i).inputs[0];
  std::string x;
  if (exact) {
    x = m.scaled_from(inner, std::sqrt(0.5));
  } else {
    const std::string sum = m.scaled_from(inner, std::sqrt(2 / 3.14159265358979));
    const int add = sum.empty() ? -1 : m.maker(sum, "Add");
    for (size_t k = 0; add >= 0 && k < 2; ++k) {
      const std::string base = m.at(add).inputs[k], cube = m.scaled_from(m.at(add).inputs[1 - k], 0.044715);
      if (!cube.empty() && m.is_cube(cube, base)) x = base;
    }
  }
  const int one = m.reader(i, "Add");
  if (x.empty() || one < 0 || m.beside(one, 1.0).empty()) return 0;
  const int last = gated(m, one, x);
  if (last < 0) return 0;
  m.replace(last, "Gelu", {x});
  if (!exact) m.set(last, "approximate", {std::string("tanh")});
  return 1;
}

int fuse_gate(Matcher& m, int i) {
  if (!m.is(i, "Mul") || m.at(i).inputs.size() != 2) return 0;
  for (size_t k = 0; k < 2; ++k) {
    const std::string x = m.at(i).inputs[k], gate = m.at(i).inputs[1 - k];
    const int maker = m.r.producer(gate);
    if (maker < 0 || m.r.only_consumer(gate) != i) continue;
    if (m.is(maker, "Sigmoid") && m.at(maker).inputs[0] == x) {
      m.replace(i, "Swish", {x});
      return 1;
    }
    if (m.is(maker, "Tanh")) {
      const int plus = m.maker(m.at(maker).inputs[0], "Softplus");
      if (plus < 0 || m.at(plus).inputs[0] != x) continue;
      m.replace(i, "Mish", {x});
      return 1;
    }
    bool hard = m.is(maker, "HardSigmoid") && m.at(maker).inputs[0] == x &&
                std::fabs(attr_f(m.at(maker), "alpha", 0.2f) - 1.0f / 6) < 1e-4f &&
                attr_f(m.at(maker), "beta", 0.5f) == 0.5f;
    // clip(x + 3, 0, 6) / 6; the division may come after the product.
    const std::string inside = m.scaled_from(gate, 1.0 / 6);
    const int after = m.reader(i, "Div"), after_mul = m.reader(i, "Mul");
    const bool later = (after >= 0 && m.is_scalar(m.at(after).inputs[1], 6)) || !m.beside(after_mul, 1.0 / 6).empty();
    const int clip = m.maker(inside.empty() && later ? gate : inside, "Clip");
    if (!hard && clip >= 0) {
      const Node& c = m.at(clip);
      const bool bounds = c.inputs.size() == 3 && m.scalar(c.inputs[1]) == 0.0f && m.scalar(c.inputs[2]) == 6.0f;
      hard = bounds && m.beside(m.maker(c.inputs[0], "Add"), 3.0) == x;
    }
    if (!hard) continue;
    m.replace(!inside.empty() || m.is(maker, "HardSigmoid") ? i : after >= 0 ? after : after_mul, "HardSwish", {x});
    return 1;
  }
  return 0;
}

// The node after i that multiplies (adds) by a constant vector: scale (bias) of a normalisation.
int parameter(const Matcher& m, int i, const char* op, std::string& name) {
  const int next = m.reader(i, op);
  if (next < 0) return -1;
  name = m.beside(next, m.at(i).outputs[0]);
  const Tensor* t = name.empty() ? nullptr : m.r.f32(name);
  return t && t->dims.size() == 1 ? next : -1;
}

// i: the Sqrt of mean(d^2) + eps.
int fuse_norm(Matcher& m, int i) {
  if (!m.is(i, "Sqrt")) return 0;
  const int add = m.maker(m.at(i).inputs[0], "Add");
  if (add < 0 || m.at(add).inputs.size() != 2) return 0;
  std::string squares;
  std::optional<float> eps;
  for (size_t k = 0; k < 2; ++k)
    if (const auto v = m.scalar(m.at(add).inputs[k]); v && *v >= 0)
      eps = v, squares = m.reduced_last(m.at(add).inputs[1 - k], "ReduceMean");
  if (squares.empty() || !eps) return 0;
  // d / root, or d * (1 / root)
  int last = m.reader(i, "Div");
  std::string d;
  if (last >= 0 && m.at(last).inputs[1] == m.at(i).outputs[0]) {
    d = m.at(last).inputs[0];
    if (m.is_scalar(d, 1.0)) {
      const std::string inverse = m.at(last).outputs[0];
      last = m.reader(last, "Mul");
      d = m.beside(last, inverse);
    }
  } else if (const int inverse = m.reader(i, "Reciprocal"); inverse >= 0) {
    last = m.reader(inverse, "Mul");
    d = m.beside(last, m.at(inverse).outputs[0]);
  }
  if (last < 0 || d.empty()) return 0;
  // d = x - mean(x): LayerNorm; two Subs of the same operands are one. d = x: RMSNorm.
  const auto centred = [&](const std::string& value) {
    const int sub = m.maker(value, "Sub");
    return sub >= 0 && m.reduced_last(m.at(sub).inputs[1], "ReduceMean") == m.at(sub).inputs[0] ? m.at(sub).inputs[0]
                                                                                                : std::string();
  };
  std::string squared;
  if (const int pow = m.maker(squares, "Pow"); pow >= 0) squared = m.at(pow).inputs[0];
  else if (const int mul = m.maker(squares, "Mul"); mul >= 0) squared = m.at(mul).inputs[0];
  if (squared.empty() || !m.is_square(squares, squared)) return 0;
  const std::string x = centred(d);
  const bool layer = !x.empty() && centred(squared) == x;
  if (!layer && squared != d) return 0;
  std::string scale, bias;
  const int scaled = parameter(m, last, "Mul", scale);
  // The operator wants a scale; without one the small operators stay.
  if (scaled < 0) return 0;
  const int shifted = layer ? parameter(m, scaled, "Add", bias) : -1;
  const int end = shifted >= 0 ? shifted : scaled;
  std::vector<std::string> inputs{layer ? x : d, scale};
  if (shifted >= 0) inputs.push_back(bias);
  m.replace(end, layer ? "LayerNormalization" : "RMSNormalization", inputs);
  m.set(end, "epsilon", {*eps});
  return 1;
}

// x and the factor in x * c or x / c with a scalar constant; x itself otherwise.
std::string unscaled(const Matcher& m, const std::string& value, float& factor) {
  const int i = m.r.producer(value);
  if (i < 0 || m.at(i).inputs.size() != 2 || m.r.only_consumer(value) < 0) return value;
  for (size_t k = 0; k < 2; ++k) {
    const auto c = m.scalar(m.at(i).inputs[k]);
    if (!c || !std::isfinite(*c) || *c == 0.0f) continue;
    if (m.is(i, "Mul")) factor *= *c;
    else if (m.is(i, "Div") && k == 1) factor /= *c;
    else continue;
    return m.at(i).inputs[1 - k];
  }
  return value;
}

// value = Transpose(perm) of something: that, else "".
std::string transposed(const Matcher& m, const std::string& value, const Axes& perm) {
  const int i = m.maker(value, "Transpose");
  return i >= 0 && attr_is(m.at(i), "perm") == perm ? m.at(i).inputs[0] : std::string();
}

// Exporters that give 0 to rows that may see no key, as Attention does, where softmax alone is NaN, write one of two
// forms.
//
// Behind node i, the Softmax: Where(IsNaN(s), 0, s), else i itself.
int without_nan(const Matcher& m, int i) {
  const std::string& s = m.at(i).outputs[0];
  const auto readers = m.r.consumers(s);
  if (readers.size() != 2 || m.r.is_output(s)) return i;
  for (const size_t reader : readers) {
    const int where = static_cast<int>(reader);
    if (!m.selects(where) || m.at(where).inputs[2] != s || m.scalar(m.at(where).inputs[1]) != 0.0f) continue;
    const std::string& asked = m.at(where).inputs[0];
    if (const int nan = m.maker(asked, "IsNaN");
        nan >= 0 && m.at(nan).inputs[0] == s && m.r.only_consumer(asked) == where)
      return where;
  }
  return i;
}

// Behind node i, the second product: * Where(sees, 1, 0), while the scores had Where(sees, mask, 0) added, with
// sees = ReduceMax(mask) > -inf. Then `mask` becomes that inner one; else i itself.
int of_rows_that_see(const Matcher& m, int i, std::string& mask) {
  const int added = m.r.producer(mask), mul = m.reader(i, "Mul");
  if (!m.selects(added) || mul < 0 || m.scalar(m.at(added).inputs[2]) != 0.0f) return i;
  const std::string sees = m.at(added).inputs[0], inner = m.at(added).inputs[1];
  const int factor = m.r.producer(m.beside(mul, m.at(i).outputs[0]));
  if (!m.selects(factor) || m.at(factor).inputs[0] != sees) return i;
  if (m.scalar(m.at(factor).inputs[1]) != 1.0f || m.scalar(m.at(factor).inputs[2]) != 0.0f) return i;
  const int more = m.maker(sees, "Greater");
  if (more < 0 || m.at(more).inputs.size() != 2 ||
      m.scalar(m.at(more).inputs[1]) != -std::numeric_limits<float>::infinity())
    return i;
  if (m.reduced_last(m.at(more).inputs[0], "ReduceMax") != inner) return i;
  mask = inner;
  return mul;
}

// i: the Softmax between the two products.
int fuse_attention(Matcher& m, int i, int64_t opset) {
  if (!m.is(i, "Softmax")) return 0;
  const int64_t axis = attr_i(m.at(i), "axis", opset >= 13 ? -1 : 1);
  const int weights = without_nan(m, i), second = m.reader(weights, "MatMul");
  if ((axis != -1 && axis != 3) || second < 0 || m.at(second).inputs[0] != m.at(weights).outputs[0]) return 0;
  std::string score = m.at(i).inputs[0], mask;
  float scale = 1.0f;
  if (m.r.only_consumer(score) != i) return 0;
  if (const int add = m.maker(score, "Add"); add >= 0 && m.at(add).inputs.size() == 2) {
    for (size_t k = 0; k < 2 && mask.empty(); ++k) {
      float f = 1.0f;
      const std::string side = unscaled(m, m.at(add).inputs[k], f);
      if (m.maker(side, "MatMul") < 0 || m.r.only_consumer(side) < 0 || m.r.only_consumer(m.at(add).inputs[k]) < 0)
        continue;
      mask = m.at(add).inputs[1 - k];
      score = side;
      scale = f;
    }
    if (mask.empty()) return 0;
  } else {
    score = unscaled(m, score, scale);
  }
  const int first = m.maker(score, "MatMul");
  if (first < 0 || m.r.only_consumer(score) < 0) return 0;
  std::string q = unscaled(m, m.at(first).inputs[0], scale), k = unscaled(m, m.at(first).inputs[1], scale),
              v = m.at(second).inputs[1];
  RowsFirst rows_first;
  if (const std::string from = transposed(m, k, {0, 2, 3, 1}); !from.empty()) {
    k = from;
    rows_first.k = true;
  } else if (const std::string swapped = transposed(m, k, {0, 1, 3, 2}); !swapped.empty()) {
    k = unscaled(m, swapped, scale);
    if (const std::string inner = transposed(m, k, {0, 2, 1, 3}); !inner.empty()) {
      k = inner;
      rows_first.k = true;
    }
  } else if (const std::string flat = transposed(m, k, {0, 2, 1}); !flat.empty()) {
    k = flat;  // [batch * heads, rows, dim]
  } else {
    return 0;
  }
  if (const std::string from = transposed(m, q, {0, 2, 1, 3}); !from.empty()) {
    q = from;
    rows_first.q = true;
  }
  if (const std::string from = transposed(m, v, {0, 2, 1, 3}); !from.empty()) {
    v = from;
    rows_first.v = true;
  }
  int last = mask.empty() ? second : of_rows_that_see(m, second, mask);
  if (const int back = m.reader(last, "Transpose"); back >= 0 && attr_is(m.at(back), "perm") == Axes{0, 2, 1, 3}) {
    last = back;
    rows_first.y = true;
  }
  std::vector<std::string> inputs{q, k, v};
  if (!mask.empty()) inputs.push_back(mask);
  m.replace(last, "Attention", inputs);
  m.set(last, "scale", {scale});
  for (const char* heads : {"q_num_heads", "kv_num_heads"})
    m.set(last, heads, {int64_t{1}});  // of rank 3: [batch * heads, rows, dim]
  m.r.post(static_cast<size_t>(last)).rows_first = rows_first;
  return 1;
}

}  // namespace

void fuse_patterns(Graph& graph, Notes& notes) {
  const auto opset = graph.opsets.find("");
  const int64_t version = opset == graph.opsets.end() ? 0 : opset->second;
  const std::pair<const char*, int (*)(Matcher&, int)> rules[] = {
      {"GELU", fuse_gelu}, {"SiLU, Mish or hard-swish", fuse_gate}, {"LayerNorm or RMSNorm", fuse_norm}};
  for (const auto& [name, rule] : rules) {
    Matcher m(graph);
    int count = 0;
    for (size_t i = 0; i < m.r.size(); ++i)
      if (m.r.node(i).domain.empty() && !m.r.node(i).inputs.empty()) count += rule(m, static_cast<int>(i));
    m.r.sweep();
    if (count) notes.push_back("found " + std::to_string(count) + " " + name + " in small operators");
  }
  Matcher m(graph);
  int count = 0;
  for (size_t i = 0; i < m.r.size(); ++i)
    if (m.r.node(i).domain.empty() && !m.r.node(i).inputs.empty())
      count += fuse_attention(m, static_cast<int>(i), version);
  m.r.sweep();
  if (count) notes.push_back("found " + std::to_string(count) + " attention in small operators");
}

// y = LayerNorm(a + b) in one pass over memory, where nothing else reads the sum. A layer that makes a or b could take
// the Add too, but its kernel would fetch the residual column by column.
void fuse_norm_residuals(Graph& graph, Notes& notes) {
  Matcher m(graph);
  int count = 0;
  for (size_t i = 0; i < m.r.size(); ++i) {
    const Node& n = m.r.node(i);
    if (!m.is(static_cast<int>(i), "LayerNormalization") || n.inputs.size() < 2 || n.inputs.size() > 3) continue;
    const int add = m.maker(n.inputs[0], "Add");
    if (add < 0 || m.at(add).inputs.size() != 2 || m.r.only_consumer(n.inputs[0]) != static_cast<int>(i)) continue;
    if (m.r.constant(m.at(add).inputs[0]) || m.r.constant(m.at(add).inputs[1])) continue;
    const std::string a = m.at(add).inputs[0], b = m.at(add).inputs[1];
    m.r.kill(static_cast<size_t>(add));
    m.r.set_input(i, 0, a);
    m.r.set_input(i, 3, b);
    ++count;
  }
  m.r.sweep();
  if (count) notes.push_back("fused " + std::to_string(count) + " additions into LayerNormalization");
}

}  // namespace secateur
