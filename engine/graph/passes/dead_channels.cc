// Structured zeros become smaller dense layers: an output channel that is always zero, or that nobody reads, is removed
// from the layer that makes it and from the layer that reads it.
#include <algorithm>
#include <array>
#include <deque>
#include <optional>
#include <utility>

#include "graph/attrs.h"
#include "graph/check.h"
#include "graph/passes/passes.h"
#include "graph/passes/rewriter.h"

namespace secateur {
namespace {

bool is_conv(const Node& n) { return n.domain.empty() && n.op == "Conv"; }
bool is_linear(const Node& n) { return n.domain.empty() && (n.op == "Gemm" || n.op == "MatMul"); }
bool has_input(const Node& n, size_t i) { return i < n.inputs.size() && !n.inputs[i].empty(); }

// f(0) = 0 for the activation fused into n (pools keep zeros anyway).
bool keeps_zero(const Node& n) { return !n.post.act || (!(n.post.act->lo > 0.0f) && !(n.post.act->hi < 0.0f)); }

// A weight as [outer][axis][inner] around the axis that is cut.
struct Axis {
  int64_t outer = 1, count = 1, inner = 1;
};
Axis around(const std::vector<int64_t>& dims, size_t axis) {
  Axis a;
  for (size_t i = 0; i < dims.size(); ++i) (i < axis ? a.outer : i == axis ? a.count : a.inner) *= dims[i];
  return a;
}

// For each of `parts` equal runs along the axis: is any element not zero (NaN counts as not zero)?
std::vector<bool> alive(const Tensor& t, size_t axis, int64_t parts) {
  const Axis a = around(t.dims, axis);
  const int64_t run = a.count / parts;
  const float* w = t.f32();
  std::vector<bool> any(static_cast<size_t>(parts), false);
  for (int64_t o = 0; o < a.outer; ++o)
    for (int64_t k = 0; k < a.count; ++k)
      for (int64_t i = 0; i < a.inner; ++i)
        if (w[(o * a.count + k) * a.inner + i] != 0.0f) any[static_cast<size_t>(k / run)] = true;
  return any;
}

// Kernels take zeros in blocks of up to 16 output channels, counted from the first: of a sparse layer that comes in
// such blocks, a channel goes with its whole block only, or what is left would lie across the borders of others.
void keep_whole_blocks(const Tensor& t, size_t axis, std::vector<bool>& keep) {
  const Axis a = around(t.dims, axis);
  std::array<int64_t, 4> blocks{};  // of 16, 8, 4, 2 channels with any nonzero
  int64_t nnz = 0;
  for (int64_t o = 0; o < a.outer; ++o)
    for (int64_t i = 0; i < a.inner; ++i) {
      std::array<int64_t, 4> last{-1, -1, -1, -1};
      for (int64_t k = 0; k < a.count; ++k) {
        if (t.f32()[(o * a.count + k) * a.inner + i] == 0.0f) continue;
        ++nnz;
        for (size_t b = 0; b < 4; ++b)
          if (std::exchange(last[b], k / (16 >> b)) != k / (16 >> b)) ++blocks[b];
      }
    }
  if (2 * nnz > t.numel()) return;
  for (size_t b = 0; b < 4; ++b) {
    const int64_t size = 16 >> b;
    if (4 * blocks[b] * size > 5 * nnz) continue;
    for (size_t first = 0; first < keep.size(); first += static_cast<size_t>(size)) {
      const auto begin = keep.begin() + static_cast<ptrdiff_t>(first);
      const auto end = keep.begin() + static_cast<ptrdiff_t>(std::min(keep.size(), first + static_cast<size_t>(size)));
      if (std::find(begin, end, true) != end) std::fill(begin, end, true);
    }
    return;
  }
}

std::string cut(Rewriter& r, const std::string& name, size_t axis, const std::vector<bool>& keep) {
  const Tensor& t = *r.f32(name);
  const Axis a = around(t.dims, axis);
  const int64_t run = a.count / static_cast<int64_t>(keep.size());
  std::vector<float> data;
  for (int64_t o = 0; o < a.outer; ++o)
    for (int64_t k = 0; k < a.count; ++k)
      if (keep[static_cast<size_t>(k / run)])
        data.insert(data.end(), t.f32() + (o * a.count + k) * a.inner, t.f32() + (o * a.count + k + 1) * a.inner);
  auto dims = t.dims;
  dims[axis] = run * static_cast<int64_t>(std::count(keep.begin(), keep.end(), true));
  return r.add_f32(name, dims, data);
}

size_t out_axis(const Node& n) { return is_conv(n) || (n.op == "Gemm" && attr_i(n, "transB", 0)) ? 0 : 1; }
size_t in_axis(const Node& n) { return 1 - out_axis(n); }

// A layer whose output channels may be cut: constant weight and bias, no groups, no residual.
bool can_lose_rows(const Rewriter& r, const Node& n) {
  if (!is_conv(n) && !is_linear(n)) return false;
  if (n.inputs.size() < 2 || has_input(n, 3) || n.outputs.size() != 1) return false;
  const Tensor* w = r.f32(n.inputs[1]);
  if (!w || w->dims.size() < 2 || (is_linear(n) && w->dims.size() != 2)) return false;
  if (is_conv(n) && attr_i(n, "group", 1) != 1) return false;
  if (n.op == "Gemm" && attr_i(n, "transA", 0)) return false;
  if (has_input(n, 2)) {
    const Tensor* b = r.f32(n.inputs[2]);
    const int64_t channels = w->dims[out_axis(n)];
    if (!b || b->dims.size() != 1 || b->dims[0] != channels) return false;
  }
  return w->numel() > 0;
}

struct Path {
  size_t reader = 0;
  int flatten = -1;  // node index of a Flatten or Reshape on the way
};

// Follows the output of layer i through nodes that keep channels apart and zeros zero, down to the layer that reads it.
std::optional<Path> follow(Rewriter& r, size_t i) {
  Path path;
  const bool from_conv = is_conv(r.node(i));
  std::string value = r.node(i).outputs[0];
  for (;;) {
    const int next = r.only_consumer(value);
    if (next < 0) return std::nullopt;
    const auto k = static_cast<size_t>(next);
    const Node& n = r.node(k);
    if (!n.domain.empty() || n.inputs.empty() || n.inputs[0] != value) return std::nullopt;
    if (is_conv(n) || is_linear(n)) {
      // The value must be the data operand only, and channels must be where the reader looks for them.
      if (n.inputs.size() < 2 || !r.f32(n.inputs[1]) || r.f32(n.inputs[1])->dims.size() < 2) return std::nullopt;
      if (is_conv(n) && (!from_conv || path.flatten >= 0 || attr_i(n, "group", 1) != 1)) return std::nullopt;
      if (is_linear(n) && ((from_conv && path.flatten < 0) || r.f32(n.inputs[1])->dims.size() != 2))
        return std::nullopt;
      if (n.op == "Gemm" && attr_i(n, "transA", 0)) return std::nullopt;
      path.reader = k;
      return path;
    }
    const bool elementwise = n.op == "Relu" || n.op == "LeakyRelu" || n.op == "Tanh";
    const bool pool =
        n.op == "MaxPool" || n.op == "AveragePool" || n.op == "GlobalAveragePool" || n.op == "GlobalMaxPool";
    if (elementwise || (pool && from_conv && path.flatten < 0)) {
      if (n.outputs.size() > 1) return std::nullopt;
      value = n.outputs[0];
      continue;
    }
    if (!from_conv || path.flatten >= 0) return std::nullopt;
    bool flat = n.op == "Flatten" && attr_i(n, "axis", 1) == 1;
    if (n.op == "Reshape" && n.inputs.size() == 2 && attr_i(n, "allowzero", 0) == 0) {
      std::vector<int64_t> shape;
      flat = r.ints(n.inputs[1], shape) && shape.size() == 2;
    }
    if (!flat) return std::nullopt;
    path.flatten = next;
    value = n.outputs[0];
  }
}

}  // namespace

void remove_dead_channels(Graph& graph, Notes& notes) {
  Rewriter r(graph);
  // A cut may kill further channels of the reader and of the layer before: these are looked at again. Each cut removes
  // at least one channel, so it ends.
  std::deque<size_t> open;
  for (size_t i = 0; i < r.size(); ++i) open.push_back(i);
  std::vector<int> before(r.size(), -1);
  while (!open.empty()) {
    const size_t i = open.front();
    open.pop_front();
    if (r.dead(i) || !can_lose_rows(r, r.node(i))) continue;
    const auto path = follow(r, i);
    if (!path) continue;
    before[path->reader] = static_cast<int>(i);
    const Node& layer = r.node(i);
    const Node& reader = r.node(path->reader);
    const Tensor& w = *r.f32(layer.inputs[1]);
    const Tensor& v = *r.f32(reader.inputs[1]);
    const int64_t channels = w.dims[out_axis(layer)];
    const int64_t columns = v.dims[in_axis(reader)];
    if (columns == 0 || columns % channels || (path->flatten < 0 && columns != channels)) continue;
    std::vector<bool> keep = alive(w, out_axis(layer), channels);
    if (has_input(layer, 2)) {
      const Tensor& b = *r.f32(layer.inputs[2]);
      for (size_t c = 0; c < keep.size(); ++c) keep[c] = keep[c] || b.f32()[c] != 0.0f;
    }
    if (!keeps_zero(layer)) keep.assign(keep.size(), true);
    const std::vector<bool> read = alive(v, in_axis(reader), channels);
    for (size_t c = 0; c < keep.size(); ++c) keep[c] = keep[c] && read[c];
    auto left = std::count(keep.begin(), keep.end(), true);
    if (left < channels) {
      keep_whole_blocks(w, out_axis(layer), keep);
      left = std::count(keep.begin(), keep.end(), true);
    }
    if (left == 0) {
      keep[0] = true;  // a layer without channels is no layer
      left = 1;
    }
    if (left == channels) continue;
    if (path->flatten >= 0) {
      // Whatever it was written as, it now flattens per image; lowering checks that it did.
      Node flat = r.node(static_cast<size_t>(path->flatten));
      flat.op = "Flatten";
      flat.inputs.resize(1);
      flat.attrs.clear();
      flat.attrs["axis"].value = int64_t{1};
      flat.post = {};
      flat.post.spatial = columns / channels;
      r.replace(static_cast<size_t>(path->flatten), std::move(flat));
    }
    r.set_input(i, 1, cut(r, layer.inputs[1], out_axis(layer), keep));
    if (has_input(layer, 2)) r.set_input(i, 2, cut(r, layer.inputs[2], 0, keep));
    r.set_input(path->reader, 1, cut(r, reader.inputs[1], in_axis(reader), keep));
    notes.push_back("node '" + node_label(layer) + "': " + std::to_string(channels - left) + " of " +
                    std::to_string(channels) + " output channels are zero or unread; removed");
    open.push_back(path->reader);
    if (before[i] >= 0) open.push_back(static_cast<size_t>(before[i]));
  }
  r.sweep();
}

}  // namespace secateur
