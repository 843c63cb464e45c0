#include "graph/passes/passes.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "graph/attrs.h"
#include "graph/check.h"
#include "graph/passes/rewriter.h"

namespace secateur {
namespace {

bool is_linear(const Node& n) { return n.domain.empty() && (n.op == "Gemm" || n.op == "MatMul"); }
bool is_conv(const Node& n) { return n.domain.empty() && n.op == "Conv"; }
bool has_input(const Node& n, size_t i) { return i < n.inputs.size() && !n.inputs[i].empty(); }

// Output channels of a Conv or linear node with a constant float32 weight; 0 when it has none.
int64_t out_channels(const Rewriter& r, const Node& n) {
  if (n.inputs.size() < 2) return 0;
  const Tensor* w = r.f32(n.inputs[1]);
  if (!w) return 0;
  if (is_conv(n)) return w->dims.size() >= 3 ? w->dims[0] : 0;
  if (w->dims.size() != 2) return 0;
  return n.op == "Gemm" && attr_i(n, "transB", 0) ? w->dims[0] : w->dims[1];
}

// Weight and bias are known, so a kernel will be packed for them: only then are residuals and pools fused.
bool packable(const Rewriter& r, const Node& n) {
  return n.inputs.size() > 1 && r.f32(n.inputs[1]) && (!has_input(n, 2) || r.f32(n.inputs[2]));
}

// Norms and sums folded into one layer, per pass: exporters write one or two; each costs a pass over the weights.
constexpr int kMostFolds = 8;

// w and bias of node i scaled per output channel: w' = w * scale, b' = b * scale + shift.
bool scale_layer(Rewriter& r, size_t i, const std::vector<double>& scale, const std::vector<double>& shift) {
  const Node& n = r.node(i);
  const Tensor* w = r.f32(n.inputs[1]);
  const auto channels = static_cast<int64_t>(scale.size());
  if (!w || out_channels(r, n) != channels || channels == 0) return false;
  double alpha = 1.0, beta = 1.0;
  if (n.op == "Gemm") {
    alpha = attr_f(n, "alpha", 1.0f);
    beta = attr_f(n, "beta", 1.0f);
  }
  std::vector<double> bias(scale.size(), 0.0);
  if (has_input(n, 2)) {
    const Tensor* b = r.f32(n.inputs[2]);
    if (!b || (b->numel() != channels && b->numel() != 1) ||
        (b->numel() == channels && !b->dims.empty() && b->dims.back() != channels))
      return false;
    for (size_t c = 0; c < bias.size(); ++c) bias[c] = beta * static_cast<double>(b->f32()[b->numel() == 1 ? 0 : c]);
  }
  std::vector<float> b(scale.size());
  for (size_t c = 0; c < b.size(); ++c) b[c] = static_cast<float>(bias[c] * scale[c] + shift[c]);
  if (alpha != 1.0 || std::any_of(scale.begin(), scale.end(), [](double s) { return s != 1.0; })) {
    const bool rows = is_conv(n) || (n.op == "Gemm" && attr_i(n, "transB", 0));
    const auto count = static_cast<size_t>(w->numel());
    const size_t per_row = count / scale.size();
    std::vector<float> data(count);
    for (size_t k = 0; k < count; ++k) {
      const size_t c = rows ? k / per_row : k % scale.size();
      data[k] = static_cast<float>(alpha * static_cast<double>(w->f32()[k]) * scale[c]);
    }
    const auto dims = w->dims;
    r.set_input(i, 1, r.add_f32(n.outputs[0] + "/weight", dims, data));
  }
  r.set_input(i, 2, r.add_f32(n.outputs[0] + "/bias", {channels}, b));
  if (n.op == "Gemm") {
    r.attrs(i).erase("alpha");
    r.attrs(i).erase("beta");
  }
  return true;
}

}  // namespace

void remove_identities(Graph& graph, Notes& notes) {
  Rewriter r(graph);
  size_t count = 0;
  for (size_t i = 0; i < r.size(); ++i) {
    const Node& n = r.node(i);
    if (!n.domain.empty() || n.inputs.empty() || n.outputs.empty()) continue;
    bool drop = n.op == "Identity";
    if (n.op == "Dropout") {
      drop = n.outputs.size() == 1 || n.outputs[1].empty();
      if (has_input(n, 2)) {
        const Tensor* mode = r.constant(n.inputs[2]);
        drop = drop && mode && mode->dtype == DType::kBool && mode->numel() == 1 && mode->data[0] == 0;
      }
    }
    if (!drop) continue;
    const std::string from = n.outputs[0], to = n.inputs[0];
    if (r.is_output(from)) {
      // The value keeps the output's name if its maker can take it; else (an input or a constant handed through, a
      // value that is itself an output) the node stays: it costs nothing, lowering makes it a view.
      const int maker = r.producer(to);
      if (maker < 0 || r.is_output(to) || r.node(static_cast<size_t>(maker)).outputs[0] != to) continue;
      r.kill(i);
      r.redirect(to, from);
      r.take_output(static_cast<size_t>(maker), from);
    } else {
      r.kill(i);
      r.redirect(from, to);
    }
    ++count;
  }
  r.sweep();
  if (count) notes.push_back("removed " + std::to_string(count) + " Identity and Dropout nodes");
}

void fold_batch_norms(Graph& graph, Notes& notes) {
  Rewriter r(graph);
  size_t count = 0;
  std::vector<int> folds(r.size(), 0);
  for (size_t i = 0; i < r.size(); ++i) {
    const Node& n = r.node(i);
    if (n.op != "BatchNormalization" || !n.domain.empty() || n.inputs.size() != 5 || n.outputs.empty()) continue;
    if (attr_i(n, "training_mode", 0) != 0 || (n.outputs.size() > 1 && !n.outputs[1].empty())) continue;
    const int maker = r.producer(n.inputs[0]);
    if (maker < 0 || r.only_consumer(n.inputs[0]) != static_cast<int>(i)) continue;
    const auto p = static_cast<size_t>(maker);
    if ((!is_conv(r.node(p)) && !is_linear(r.node(p))) || folds[p] == kMostFolds) continue;
    const Tensor* t[4];
    bool ok = true;
    for (size_t k = 0; k < 4; ++k) {
      t[k] = r.f32(n.inputs[k + 1]);
      ok = ok && t[k] && t[k]->numel() == out_channels(r, r.node(p));
    }
    if (!ok) continue;
    const double eps = attr_f(n, "epsilon", 1e-5f);
    const auto channels = static_cast<size_t>(t[0]->numel());
    std::vector<double> scale(channels), shift(channels);
    for (size_t c = 0; c < channels; ++c) {
      scale[c] = static_cast<double>(t[0]->f32()[c]) / std::sqrt(static_cast<double>(t[3]->f32()[c]) + eps);
      shift[c] = static_cast<double>(t[1]->f32()[c]) - scale[c] * static_cast<double>(t[2]->f32()[c]);
    }
    // MatMul of rank 3 has its channels last, BatchNormalization means axis 1: only Gemm is surely a matrix.
    if (r.node(p).op == "MatMul") continue;
    if (!scale_layer(r, p, scale, shift)) continue;
    const std::string out = n.outputs[0];
    r.kill(i);
    r.take_output(p, out);
    ++folds[p];
    ++count;
  }
  r.sweep();
  if (count)
    notes.push_back("folded " + std::to_string(count) + " BatchNormalization nodes into the layers before them");
}

void fuse_bias(Graph& graph, Notes& notes) {
  Rewriter r(graph);
  size_t count = 0;
  std::vector<int> folds(r.size(), 0);
  for (size_t i = 0; i < r.size(); ++i) {
    const Node& n = r.node(i);
    if (n.op != "Add" || !n.domain.empty() || n.inputs.size() != 2) continue;
    for (size_t side = 0; side < 2; ++side) {
      const std::string value = n.inputs[side];
      const Tensor* b = r.f32(n.inputs[1 - side]);
      const int maker = r.producer(value);
      if (!b || maker < 0 || r.only_consumer(value) != static_cast<int>(i)) continue;
      const auto p = static_cast<size_t>(maker);
      const Node& layer = r.node(p);
      const int64_t channels = out_channels(r, layer);
      if (channels == 0 || b->numel() != channels || folds[p] == kMostFolds) continue;
      bool fits;
      if (is_conv(layer)) {
        // [C, 1, 1] or [1, C, 1, 1]: the weight's rank tells how many spatial axes there are.
        const size_t spatial = r.f32(layer.inputs[1])->dims.size() - 2;
        const size_t rank = b->dims.size();
        fits = (rank == spatial + 1 && b->dims[0] == channels) ||
               (rank == spatial + 2 && b->dims[0] == 1 && b->dims[1] == channels);
      } else {
        // [N] or, for a Gemm (whose result is a matrix), [1, N].
        fits = b->dims.size() == 1 || (layer.op == "Gemm" && b->dims.size() == 2 && b->dims[0] == 1);
        fits = fits && (is_linear(layer));
      }
      if (!fits) continue;
      const std::vector<float> before(b->f32(), b->f32() + channels);
      if (has_input(layer, 2) || layer.op == "Gemm") {
        const std::vector<double> one(static_cast<size_t>(channels), 1.0);
        if (!scale_layer(r, p, one, std::vector<double>(before.begin(), before.end()))) continue;
      } else {
        r.set_input(p, 2, r.add_f32(layer.outputs[0] + "/bias", {channels}, before));
      }
      const std::string out = n.outputs[0];
      r.kill(i);
      r.take_output(p, out);
      ++folds[p];
      ++count;
      break;
    }
  }
  r.sweep();
  if (count) notes.push_back("turned " + std::to_string(count) + " Add nodes into biases");
}

void fuse_pads(Graph& graph, Notes& notes) {
  Rewriter r(graph);
  size_t count = 0;
  for (size_t i = 0; i < r.size(); ++i) {
    const Node& n = r.node(i);
    if (n.op != "Pad" || !n.domain.empty() || !has_input(n, 1) || has_input(n, 3)) continue;
    if (attr_s(n, "mode", "constant") != "constant") continue;
    if (has_input(n, 2)) {
      const Tensor* v = r.f32(n.inputs[2]);
      if (!v || v->numel() != 1 || v->f32()[0] != 0.0f) continue;
    }
    std::vector<int64_t> pads;
    const int reader = r.only_consumer(n.outputs[0]);
    if (reader < 0 || !r.ints(n.inputs[1], pads)) continue;
    const auto c = static_cast<size_t>(reader);
    const Node& conv = r.node(c);
    if (!is_conv(conv) || conv.inputs[0] != n.outputs[0]) continue;
    // VALID, as TensorFlow's exporter writes it, is NOTSET without pads.
    const std::string mode = attr_s(conv, "auto_pad", "NOTSET");
    if (mode != "NOTSET" && mode != "VALID") continue;
    const Tensor* w = r.f32(conv.inputs[1]);
    if (!w || w->dims.size() < 3 || pads.size() != 2 * w->dims.size()) continue;
    const size_t rank = w->dims.size(), spatial = rank - 2;
    const std::vector<int64_t> none(2 * spatial, 0);
    auto own = mode == "VALID" ? none : attr_is(conv, "pads", none);
    bool ok = own.size() == 2 * spatial && pads[0] == 0 && pads[1] == 0 && pads[rank] == 0 && pads[rank + 1] == 0;
    for (int64_t v : pads) ok = ok && v >= 0 && v < (1 << 20);
    for (int64_t v : own) ok = ok && v >= 0 && v < (1 << 28);
    if (!ok) continue;
    for (size_t k = 0; k < spatial; ++k) {
      own[k] += pads[2 + k];
      own[spatial + k] += pads[rank + 2 + k];
    }
    r.attrs(c)["pads"].value = own;
    r.attrs(c).erase("auto_pad");
    const std::string in = n.inputs[0];
    r.kill(i);
    r.set_input(c, 0, in);
    ++count;
  }
  r.sweep();
  if (count) notes.push_back("merged " + std::to_string(count) + " Pad nodes into convolutions");
}

namespace {

// The Add at i goes into a layer that makes one of its operands. The layer moves down to the Add, where the other
// operand exists. Of two layers the later one: the other then is done by the time, and both orders give the same sum.
bool fuse_residual(Rewriter& r, size_t i) {
  const Node& n = r.node(i);
  int best = -1;
  size_t best_side = 0;
  for (size_t side = 0; side < 2; ++side) {
    const int maker = r.producer(n.inputs[side]);
    if (maker <= best || r.only_consumer(n.inputs[side]) != static_cast<int>(i)) continue;
    const Node& layer = r.node(static_cast<size_t>(maker));
    if ((!is_conv(layer) && !is_linear(layer)) || layer.post.act || has_input(layer, 3) || layer.post.pool) continue;
    if (!packable(r, layer)) continue;
    best = maker;
    best_side = side;
  }
  if (best < 0) return false;
  Node fused = r.node(static_cast<size_t>(best));
  fused.inputs.resize(4);
  fused.inputs[3] = n.inputs[1 - best_side];
  fused.outputs = {n.outputs[0]};
  r.kill(static_cast<size_t>(best));
  r.replace(i, std::move(fused));
  return true;
}

// What an activation node computes, where its bounds are known.
std::optional<FusedActivation> activation_of(const Rewriter& r, const Node& n) {
  FusedActivation act;
  if (n.op == "Relu") act.lo = 0.0f;
  if (n.op == "LeakyRelu") act.slope = attr_f(n, "alpha", 0.01f);
  if (n.op != "Clip") return act;
  for (size_t k = 1; k <= 2; ++k) {
    if (!has_input(n, k)) continue;
    const Tensor* t = r.f32(n.inputs[k]);
    if (!t || t->numel() != 1) return std::nullopt;
    (k == 1 ? act.lo : act.hi) = t->f32()[0];
  }
  return act.lo <= act.hi ? std::optional(act) : std::nullopt;
}

// The activation n goes into the node p before it.
bool fuse_activation(Rewriter& r, const Node& n, size_t p) {
  const Node& layer = r.node(p);
  const bool sum = layer.domain.empty() && (layer.op == "Add" || layer.op == "BatchNormalization");
  if ((!is_conv(layer) && !is_linear(layer) && !sum) || layer.post.act) return false;
  const auto act = activation_of(r, n);
  // max(f(a), f(b)) = f(max(a, b)) needs a rising f.
  if (!act || (layer.post.pool && act->slope < 0)) return false;
  r.post(p).act = act;
  return true;
}

// The 2x2 max pool n goes into the convolution p before it.
bool fuse_pool(Rewriter& r, const Node& n, size_t p) {
  using Ints = std::vector<int64_t>;
  const Node& layer = r.node(p);
  if (!is_conv(layer) || has_input(layer, 3) || layer.post.pool) return false;
  if (layer.post.act && layer.post.act->slope < 0) return false;
  if (n.outputs.size() > 1 && !n.outputs[1].empty()) return false;
  const Tensor* w = layer.inputs.size() > 1 ? r.f32(layer.inputs[1]) : nullptr;
  if (!w || w->dims.size() != 4 || !packable(r, layer)) return false;
  if (attr_is(n, "kernel_shape") != Ints{2, 2} || attr_is(n, "strides", {1, 1}) != Ints{2, 2} ||
      attr_is(n, "pads", {0, 0, 0, 0}) != Ints{0, 0, 0, 0} || attr_is(n, "dilations", {1, 1}) != Ints{1, 1} ||
      attr_i(n, "ceil_mode", 0) != 0 || attr_i(n, "storage_order", 0) != 0)
    return false;
  const std::string mode = attr_s(n, "auto_pad", "NOTSET");
  if (mode != "NOTSET" && mode != "VALID") return false;
  r.post(p).pool = true;
  return true;
}

}  // namespace

void fuse_epilogues(Graph& graph, Notes& notes) {
  Rewriter r(graph);
  size_t residuals = 0, activations = 0, pools = 0;
  for (size_t i = 0; i < r.size(); ++i) {
    if (r.dead(i)) continue;
    const Node& n = r.node(i);
    if (!n.domain.empty() || n.inputs.empty() || n.outputs.empty()) continue;
    if (n.op == "Add" && n.inputs.size() == 2) {
      residuals += fuse_residual(r, i);
      continue;
    }
    const bool act = n.op == "Relu" || n.op == "LeakyRelu" || n.op == "Clip";
    if (!act && n.op != "MaxPool") continue;
    const int maker = r.producer(n.inputs[0]);
    if (maker < 0 || r.only_consumer(n.inputs[0]) != static_cast<int>(i)) continue;
    const auto p = static_cast<size_t>(maker);
    if (!(act ? fuse_activation(r, n, p) : fuse_pool(r, n, p))) continue;
    ++(act ? activations : pools);
    const std::string out = n.outputs[0];
    r.kill(i);
    r.take_output(p, out);
  }
  r.sweep();
  if (residuals) notes.push_back("fused " + std::to_string(residuals) + " residual additions");
  if (activations) notes.push_back("fused " + std::to_string(activations) + " activations");
  if (pools) notes.push_back("fused " + std::to_string(pools) + " 2x2 max pools");
}

Notes run_passes(Graph& graph) {
  Notes notes;
  remove_identities(graph, notes);
  fuse_patterns(graph, notes);
  fold_batch_norms(graph, notes);
  fuse_bias(graph, notes);
  fold_batch_norms(graph, notes);
  fuse_pads(graph, notes);
  fuse_norm_residuals(graph, notes);
  fuse_epilogues(graph, notes);
  remove_dead_channels(graph, notes);
  return notes;
}

}  // namespace secateur
