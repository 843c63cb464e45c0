#include "plan/inspect.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "graph/attrs.h"
#include "graph/check.h"
#include "graph/passes/passes.h"
#include "graph/passes/quant.h"
#include "plan/session.h"

namespace secateur {
namespace {

int64_t log2_ceil(int64_t n) {
  int64_t bits = 0;
  while ((int64_t{1} << bits) < n) ++bits;
  return bits;
}

// [rows][cols][cell]: outputs, inputs, kernel positions.
struct Matrix {
  const float* data;
  int64_t rows, cols, cell;
  bool transposed;  // stored [cols][rows][cell]
  float at(int64_t r, int64_t c, int64_t k) const {
    return data[(transposed ? c * rows + r : r * cols + c) * cell + k];
  }
};

std::string of(int64_t part, int64_t all, const char* what) {
  return std::to_string(part) + " of " + std::to_string(all) + " " + what;
}

// The most outputs B such that the weights of any B neighbours, at one input and position, are all zero or all not; 0 =
// none.
int64_t block_height(const Matrix& m) {
  constexpr int64_t kMost = 16;
  bool whole[] = {m.rows >= 2, m.rows >= 4, m.rows >= 8, m.rows >= 16};
  for (int64_t r = 0; r < m.rows; r += kMost) {
    const int64_t rows = std::min(kMost, m.rows - r);
    for (int64_t c = 0; c < m.cols; ++c)
      for (int64_t k = 0; k < m.cell; ++k) {
        uint32_t set = 0;
        for (int64_t i = 0; i < rows; ++i) set |= uint32_t{m.at(r + i, c, k) != 0.0f} << i;
        for (int64_t b = 2, j = 0; b <= kMost && set != 0; b *= 2, ++j)
          for (int64_t i = 0; i < rows && whole[j]; i += b) {
            const uint32_t part = (set >> i) & ((1u << b) - 1), full = (1u << std::min(b, rows - i)) - 1;
            whole[j] = part == 0 || part == full;
          }
      }
    if (!whole[0] && !whole[1] && !whole[2] && !whole[3]) return 0;
  }
  int64_t most = 0;
  for (int64_t b = 2, j = 0; b <= kMost; b *= 2, ++j)
    if (whole[j]) most = b;
  return most;
}

// Four neighbouring inputs of an output, at one position, are all zero or all not.
bool whole_rows_of_four(const Matrix& m) {
  if (m.cols < 4) return false;
  for (int64_t r = 0; r < m.rows; ++r)
    for (int64_t c = 0; c < m.cols; c += 4)
      for (int64_t k = 0; k < m.cell; ++k) {
        const int64_t n = std::min<int64_t>(4, m.cols - c);
        int64_t set = 0;
        for (int64_t i = 0; i < n; ++i) set += m.at(r, c + i, k) != 0.0f;
        if (set != 0 && set != n) return false;
      }
  return true;
}

// The kernels that are not empty follow few patterns of as many places each; kernels with fewer lie inside one of them.
void find_patterns(const Matrix& m, LayerReport& report) {
  constexpr int64_t kMostCells = 32, kMostPatterns = 32, kKernelsEach = 4;
  if (m.cell < 2 || m.cell > kMostCells) return;
  std::set<uint32_t> masks;
  int64_t kernels = 0, places = 0;
  for (int64_t r = 0; r < m.rows; ++r)
    for (int64_t c = 0; c < m.cols; ++c) {
      uint32_t mask = 0;
      for (int64_t k = 0; k < m.cell; ++k) mask |= uint32_t{m.at(r, c, k) != 0.0f} << k;
      if (mask == 0) continue;
      ++kernels;
      places = std::max<int64_t>(places, std::popcount(mask));
      masks.insert(mask);
      if (std::ssize(masks) > 4 * kMostPatterns) return;
    }
  std::vector<uint32_t> patterns;
  for (uint32_t mask : masks)
    if (std::popcount(mask) == places) patterns.push_back(mask);
  const auto inside = [&](uint32_t mask) {
    return std::any_of(patterns.begin(), patterns.end(), [&](uint32_t p) { return (mask & ~p) == 0; });
  };
  if (places == m.cell || std::ssize(patterns) > kMostPatterns || kernels < kKernelsEach * std::ssize(patterns) ||
      !std::all_of(masks.begin(), masks.end(), inside))
    return;
  report.structure.push_back(std::to_string(patterns.size()) + " patterns of " + std::to_string(places) + " in " +
                             std::to_string(m.cell));
}

void find_structure(const Matrix& m, int64_t nnz, LayerReport& report) {
  const int64_t n = m.rows * m.cols * m.cell;
  if (n == 0 || nnz == n) return;
  std::vector<int64_t> per_row(static_cast<size_t>(m.rows), 0), per_col(static_cast<size_t>(m.cols), 0);
  std::vector<uint8_t> column(static_cast<size_t>(m.cols * m.cell), 0);  // is an input read at a position?
  int64_t empty_kernels = 0;
  struct Nm {
    int64_t n, m, run = 0, kept = 0;
    bool holds = true;
  } patterns[] = {{1, 4}, {2, 4}, {1, 2}, {4, 8}};
  for (int64_t r = 0; r < m.rows; ++r) {
    for (auto& p : patterns) p.run = p.kept = 0;
    // Input channels run fastest within a kernel position, as the N:M literature counts.
    for (int64_t k = 0; k < m.cell; ++k) {
      for (int64_t c = 0; c < m.cols; ++c) {
        const bool set = m.at(r, c, k) != 0.0f;
        per_row[static_cast<size_t>(r)] += set;
        per_col[static_cast<size_t>(c)] += set;
        column[static_cast<size_t>(c * m.cell + k)] |= set;
        for (auto& p : patterns) {
          p.kept += set;
          if (++p.run == p.m) {
            p.holds = p.holds && p.kept <= p.n;
            p.run = p.kept = 0;
          }
        }
      }
    }
    if (m.cell > 1) {
      for (int64_t c = 0; c < m.cols; ++c) {
        bool any = false;
        for (int64_t k = 0; k < m.cell; ++k) any = any || m.at(r, c, k) != 0.0f;
        empty_kernels += !any;
      }
    }
  }
  const auto zero_rows = std::count(per_row.begin(), per_row.end(), 0);
  const auto zero_cols = std::count(per_col.begin(), per_col.end(), 0);
  if (zero_rows) report.structure.push_back(of(zero_rows, m.rows, "outputs zero"));
  if (zero_cols) report.structure.push_back(of(zero_cols, m.cols, "inputs unused"));
  const auto zero_columns = std::count(column.begin(), column.end(), 0);
  if (zero_columns > zero_cols * m.cell) report.structure.push_back(of(zero_columns, m.cols * m.cell, "columns zero"));
  if (m.cell > 1 && empty_kernels) report.structure.push_back(of(empty_kernels, m.rows * m.cols, "kernels empty"));
  // A pattern says something only where zeros are not so many that any matrix would follow it.
  const double density = static_cast<double>(nnz) / static_cast<double>(n);
  for (const auto& p : patterns) {
    if (p.holds && m.cols * m.cell >= p.m && density > 0.6 * static_cast<double>(p.n) / static_cast<double>(p.m)) {
      report.structure.push_back(std::to_string(p.n) + ":" + std::to_string(p.m));
      break;
    }
  }
  if (nnz && zero_rows == 0)
    if (const int64_t height = block_height(m)) report.structure.push_back(std::to_string(height) + "x1 blocks");
  if (nnz && zero_cols == 0 && whole_rows_of_four(m)) report.structure.push_back("1x4 blocks");
  find_patterns(m, report);
}

// All values k * step with integer k: the grid of uniform quantization.
void find_grid(std::vector<float> values, LayerReport& report) {
  if (values.size() < 2 || static_cast<int64_t>(values.size()) >= 4096) return;
  if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) return;  // NaN has no order
  values.push_back(0.0f);
  std::sort(values.begin(), values.end());
  double step = INFINITY;
  for (size_t i = 1; i < values.size(); ++i)
    step = std::min(step, static_cast<double>(values[i]) - static_cast<double>(values[i - 1]));
  if (!(step > 0) || !std::isfinite(step)) return;
  int64_t lo = 0, hi = 0;
  // Float rounding of k * step is relative to the value: 2^-22 of it, plus what the step itself was rounded by.
  const double top =
      std::max(std::fabs(static_cast<double>(values.front())), std::fabs(static_cast<double>(values.back())));
  for (float v : values) {
    const double k = std::round(static_cast<double>(v) / step);
    if (std::fabs(k) > 32768 || std::fabs(static_cast<double>(v) - k * step) > 1e-3 * step + top * 0x1p-20) return;
    lo = std::min(lo, static_cast<int64_t>(k)), hi = std::max(hi, static_cast<int64_t>(k));
  }
  const int64_t levels = hi - lo + 1;
  if (static_cast<int64_t>(values.size()) * 3 < levels || values.size() < 3) return;
  char text[64];
  std::snprintf(text, sizeof text, "uniform, %lld levels, step %.4g", static_cast<long long>(levels), step);
  report.structure.emplace_back(text);
}

// The constant weights of an operator of integers, less their zero points; without dimensions when there are none.
Tensor integer_weights(const Node& n, const std::unordered_map<std::string, const Tensor*>& constant) {
  const bool linear = n.op == "QLinearConv" || n.op == "QLinearMatMul",
             conv = n.op == "QLinearConv" || n.op == "ConvInteger";
  Tensor t;
  if (!n.domain.empty() || (!linear && n.op != "ConvInteger" && n.op != "MatMulInteger")) return t;
  const auto value = [&](size_t slot) {
    const auto it = slot < n.inputs.size() ? constant.find(n.inputs[slot]) : constant.end();
    return it == constant.end() ? nullptr : it->second;
  };
  const Tensor *w = value(linear ? 3 : 1), *zero = value(linear ? 5 : 3);
  if (!w || w->dims.size() < 2 || (w->dtype != DType::kInt8 && w->dtype != DType::kUInt8)) return t;
  const size_t axis = conv ? 0 : w->dims.size() - 1;
  if (zero && (zero->dtype != w->dtype || (zero->numel() != 1 && zero->numel() != w->dims[axis]))) zero = nullptr;
  const auto values = less_zeros(*w, zero, axis);
  t.dtype = DType::kFloat;
  t.dims = w->dims;
  t.data.resize(values.size() * 4);
  for (size_t i = 0; i < values.size(); ++i) reinterpret_cast<float*>(t.data.data())[i] = static_cast<float>(values[i]);
  return t;
}

}  // namespace

std::vector<LayerReport> inspect_layers(const Graph& graph) {
  Graph folded = graph;
  for (size_t i = 0; i < folded.nodes.size(); ++i) folded.nodes[i].post.layer = static_cast<int64_t>(i);
  std::vector<Node> written = folded.nodes;
  // An operator the engine does not have still has weights worth a look: fold what can be, show the rest as it stands.
  try {
    Notes notes;
    upgrade(folded, notes);
    written = folded.nodes;
  } catch (const UnsupportedError&) {
  }
  fold_constants(folded);
  std::unordered_map<std::string, const Tensor*> constant;
  for (const auto& t : folded.initializers) constant[t.name] = &t;
  std::unordered_map<std::string, const Tensor*> stored;
  for (const auto& t : graph.initializers) stored[t.name] = &t;
  std::unordered_map<std::string, const Node*> maker;
  for (const auto& n : written)
    for (const auto& out : n.outputs)
      if (!out.empty()) maker[out] = &n;

  std::set<std::string> counted;
  std::vector<LayerReport> reports;
  for (const Node& n : folded.nodes) {
    LayerReport report;
    report.index = std::max<int64_t>(n.post.layer, 0);
    report.name = node_label(n);
    report.op = graph.nodes[static_cast<size_t>(report.index)].op;
    int64_t stored_bits = 0;
    // Constants behind each input, through the constant nodes that make them.
    for (size_t slot = 0; slot < n.inputs.size(); ++slot) {
      if (!constant.count(n.inputs[slot])) continue;
      std::vector<std::string> open{n.inputs[slot]};
      std::unordered_set<std::string> seen;
      while (!open.empty()) {
        const std::string name = open.back();
        open.pop_back();
        if (name.empty() || !seen.insert(name).second) continue;
        if (const auto s = stored.find(name); s != stored.end()) {
          if (slot == 1 && s->second->numel() > 1 && s->second->dtype != DType::kFloat)
            stored_bits = std::max<int64_t>(stored_bits, static_cast<int64_t>(dtype_size(s->second->dtype)) * 8);
          if (!counted.insert(name).second) continue;
          report.constants.push_back(name);
          report.nbytes += static_cast<int64_t>(s->second->data.size());
        } else if (const auto m = maker.find(name); m != maker.end()) {
          const Node& from = *m->second;
          if (from.op == "Constant") {
            if (!counted.insert(name).second) continue;
            if (const Attribute* a = find_attr(from, "value"))
              if (const auto* t = std::get_if<std::shared_ptr<Tensor>>(&a->value); t && *t) {
                report.constants.push_back(name);
                report.nbytes += static_cast<int64_t>((*t)->data.size());
              }
          }
          if (slot == 1 && from.op == "DequantizeLinear") report.structure.push_back("quantized (DequantizeLinear)");
          for (const auto& in : from.inputs) open.push_back(in);
        }
      }
    }
    const bool weighted = n.domain.empty() && n.inputs.size() > 1 &&
                          (n.op == "Conv" || n.op == "ConvTranspose" || n.op == "Gemm" || n.op == "MatMul");
    const Tensor integers = integer_weights(n, constant);
    const Tensor* w = weighted && constant.count(n.inputs[1]) ? constant[n.inputs[1]]
                      : integers.dims.empty()                 ? nullptr
                                                              : &integers;
    if (w == &integers) stored_bits = 8;
    if (w && w->dtype == DType::kFloat && w->dims.size() >= 2) {
      report.shape = w->dims;
      report.n_weights = w->numel();
      std::vector<float> values;
      for (int64_t i = 0; i < w->numel(); ++i)
        if (w->f32()[i] != 0.0f) values.push_back(w->f32()[i]);
      report.nnz = static_cast<int64_t>(values.size());
      std::sort(values.begin(), values.end());
      values.erase(std::unique(values.begin(), values.end()), values.end());
      report.n_values = std::min<int64_t>(static_cast<int64_t>(values.size()), kManyValues);
      const bool zero = report.nnz < report.n_weights;
      // Few values name themselves; 500 different ones among 500 weights do not.
      const bool few = report.n_values <= 256 && report.n_values * 4 <= report.nnz;
      report.bits = few ? std::max<int64_t>(1, log2_ceil(report.n_values + zero)) : stored_bits ? stored_bits : 32;
      Matrix m{w->f32(), w->dims[0], w->dims[1], 1, false};
      const bool conv = n.op == "Conv" || n.op == "ConvInteger" || n.op == "QLinearConv";
      const bool back = n.op == "ConvTranspose";  // [inputs][outputs of a group][cell]
      if (conv || back)
        for (size_t i = 2; i < w->dims.size(); ++i) m.cell *= w->dims[i];
      if (back || (!conv && (n.op != "Gemm" || attr_i(n, "transB", 0) == 0)))
        m.rows = w->dims[1], m.cols = w->dims[0], m.transposed = true;
      if (back ? attr_i(n, "group", 1) == 1 : conv || w->dims.size() == 2) find_structure(m, report.nnz, report);
      find_grid(values, report);
    }
    if (reports.empty() || reports.back().index != report.index) {
      reports.push_back(std::move(report));
      continue;
    }
    // What an old form became: one row for the file's node.
    report.constants.insert(report.constants.begin(), reports.back().constants.begin(), reports.back().constants.end());
    report.nbytes += reports.back().nbytes;
    reports.back() = std::move(report);
  }
  return reports;
}

}  // namespace secateur
