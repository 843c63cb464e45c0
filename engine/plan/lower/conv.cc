// Conv -> one call of a convolution kernel, dense or sparse as the cost model says.
#include "kernels/conv/conv.h"
#include "plan/lower/handlers.h"
#include "plan/lower/layer.h"
#include "plan/lower/window.h"

namespace secateur {
namespace {

struct ConvStep {
  std::shared_ptr<const PackedConv> packed;
  int64_t batch;
  int x, residual, y, scratch;
  void run(const Exec& e) const noexcept {
    ConvArgs args;
    args.x = e.f32(x);
    args.y = e.f32_out(y);
    args.residual = e.f32(residual);
    args.batch = batch;
    args.scratch = scratch < 0 ? nullptr : e.ptr[scratch];
    args.threads = e.threads;
    packed->kernel->run(*packed, args);
  }
};

// A convolution whose weights are computed while running: nothing to pack, plain loops. Correct, slow, rare (no
// exporter writes it for inference). Weights are only known then, so passes fused nothing into it but an activation.
struct DynamicConvStep {
  ConvShape s;
  Activation act;
  int64_t batch;
  int x, w, bias, y;
  void run(const Exec& e) const noexcept {
    const int out_h = s.conv_h(), out_w = s.conv_w(), in_c = s.in_c / s.groups, out_c = s.out_c / s.groups;
    const int64_t plane = int64_t{s.in_h} * s.in_w;
    float* to = e.f32_out(y);
    for (int64_t n = 0; n < batch; ++n) {
      for (int o = 0; o < s.out_c; ++o) {
        const float* image = e.f32(x) + (n * s.in_c + int64_t{o / out_c} * in_c) * plane;
        const float* kernel = e.f32(w) + int64_t{o} * in_c * s.kernel_h * s.kernel_w;
        for (int i = 0; i < out_h; ++i) {
          for (int j = 0; j < out_w; ++j) {
            float sum = bias >= 0 ? e.f32(bias)[o] : 0.0f;
            for (int c = 0; c < in_c; ++c) {
              for (int u = 0; u < s.kernel_h; ++u) {
                const int64_t row = int64_t{i} * s.stride_h - s.pad_top + int64_t{u} * s.dilation_h;
                if (row < 0 || row >= s.in_h) continue;
                for (int v = 0; v < s.kernel_w; ++v) {
                  const int64_t col = int64_t{j} * s.stride_w - s.pad_left + int64_t{v} * s.dilation_w;
                  if (col < 0 || col >= s.in_w) continue;
                  sum += kernel[(int64_t{c} * s.kernel_h + u) * s.kernel_w + v] * image[c * plane + row * s.in_w + col];
                }
              }
            }
            if (sum < 0) sum *= act.slope;
            sum = sum < act.lo ? act.lo : sum;
            *to++ = sum > act.hi ? act.hi : sum;
          }
        }
      }
    }
  }
};

std::string conv_key(const ConvShape& s, const Epilogue& e) {
  std::string key = epilogue_key(e);
  for (int v : {s.in_c, s.in_h, s.in_w, s.out_c, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w, s.pad_top, s.pad_left,
                s.pad_bottom, s.pad_right, s.dilation_h, s.dilation_w, s.groups})
    key += "," + std::to_string(v);
  return key;
}

struct ConvLayer {
  using Candidate = ConvCandidate;
  using Packed = PackedConv;

  const Lowering& L;
  ConvShape s;
  Epilogue e;
  ConvDensity density;
  int64_t batch;
  int x, w, bias;

  const float* constant(int id) const {
    return id < 0 ? nullptr : reinterpret_cast<const float*>(L.value(id).constant);
  }
  std::vector<Candidate> candidates(int tilings) const {
    return conv_candidates(L.isa(), s, e, density, L.allow_sparse(), tilings);
  }
  std::unique_ptr<Packed> pack(const Candidate& c) const {
    return c.kernel->pack(*c.kernel, s, e, constant(w), constant(bias), c.tile);
  }
  ConvStep step(std::shared_ptr<const Packed> p, int from, int residual, int to, int scratch) const {
    return {std::move(p), batch, from, residual, to, scratch};
  }
  Tuner::Memory memory(const Packed& p) const {
    const auto y = static_cast<size_t>(batch * s.out_c * conv_out_h(s, e) * conv_out_w(s, e)) * sizeof(float);
    return {L.value(x).nbytes(), y, e.residual ? y : 0, p.scratch_bytes_per_thread * static_cast<size_t>(L.threads())};
  }
  std::string key() const { return "conv/" + conv_key(s, e); }
  std::vector<int> constants() const { return {w, bias}; }
  std::string kind() const {
    const double read = double(s.in_c) * s.in_h * s.in_w, written = double(s.out_c) * s.conv_h() * s.conv_w();
    return conv_kind(s, double(density.nnz) / double(density.weights), 4 * (read + written));
  }
  int64_t rows() const { return batch; }
  double times() const { return static_cast<double>(batch); }
  uint64_t pattern() const { return pattern_hash(constant(w), s.weight_count()); }
};

// Nothing to pack: plain loops.
void dynamic_conv(Lowering& L, const Node& n, const ConvShape& s, int x, int w, int bias, const Dims& out,
                  StepInfo info) {
  const int y = L.out(n, 0, DType::kFloat, out);
  info.kernel = "conv_plain_f32_ref";
  info.why = L.value(x).numel() == 0 ? "all of the input is padding" : "the weights are not constant";
  L.emit(n, DynamicConvStep{s, fused_activation(n), out[0], x, w, bias, y}, {x, w, bias}, {y}, info);
}

// The result's shape before the pool, and behind it where one was fused.
Dims out_dims(const ConvShape& s, int64_t batch, size_t rank) {
  Dims out{batch, s.out_c};
  if (rank == 4) out.push_back(s.conv_h());
  out.push_back(s.conv_w());
  return out;
}
Dims pooled_dims(Lowering& L, const Node& n, const Dims& out) {
  if (!n.post.pool) return out;
  if (out.size() != 4 || out[2] < 2 || out[3] < 2) L.invalid(n, "the 2x2 pool after it does not fit " + dims_text(out));
  return {out[0], out[1], out[2] / 2, out[3] / 2};
}

}  // namespace

void lower_conv(Lowering& L, const Node& n) {
  conv(L, n, L.in_f32(n, 0), L.in_f32(n, 1), L.has(n, 2) ? L.in_f32(n, 2) : -1, L.has(n, 3) ? L.in_f32(n, 3) : -1);
}

void conv(Lowering& L, const Node& n, int x, int w, int bias, int residual) {
  const Dims xd = L.dims(x), wd = L.dims(w);
  const ConvShape s = read_conv_shape(L, n, xd, wd);
  if (bias >= 0 && L.dims(bias) != Dims{wd[0]})
    L.invalid(n, "bias " + dims_text(L.dims(bias)) + " does not fit weight " + dims_text(wd));
  const Dims out = out_dims(s, xd[0], xd.size()), stored = pooled_dims(L, n, out);
  StepInfo info;
  info.weight = wd;
  info.n_weights = L.value(w).numel();
  info.macs = product({xd[0], s.weight_count(), s.conv_h(), s.conv_w()});
  info.in = xd;
  if (L.is_empty(stored)) {
    const int y = residual >= 0 ? L.temp(DType::kFloat, stored) : L.out(n, 0, DType::kFloat, stored);
    if (residual >= 0) L.out(n, 0, DType::kFloat, broadcast_dims(L, n, y, residual));
    return;
  }
  if (!L.value(w).constant || (bias >= 0 && !L.value(bias).constant) || L.value(x).numel() == 0) {
    if (residual >= 0 || n.post.pool) L.unsupported(n, "weights that are not constant, or an input without elements");
    return dynamic_conv(L, n, s, x, w, bias, out, info);
  }
  ConvLayer layer{L, s, {}, measure_density(s, reinterpret_cast<const float*>(L.value(w).constant)), xd[0], x, w, bias};
  info.nnz = layer.density.nnz;
  layer.e.act = fused_activation(n);
  const Residual r = split_residual(L, residual, out, layer.e);
  if (n.post.pool) layer.e.pool = Pool2x2::kMax;
  auto offered = ways_of(L, layer, 1);
  const bool pool_after = n.post.pool && offered.empty();
  if (pool_after) {
    layer.e.pool = Pool2x2::kNone;
    offered = ways_of(L, layer, 1);
  }
  if (offered.empty()) L.unsupported(n, "no kernel covers this convolution");
  const auto chosen = choose(L, n, layer, offered, conv_reason(offered, layer.density));
  info.anywhere = chosen.way.kernel->family == ConvFamily::kDepthwise;
  const bool temporary = pool_after || r.added >= 0;
  const int y = temporary ? L.temp(DType::kFloat, out) : L.out(n, 0, DType::kFloat, stored);
  emit_layer(L, n, layer, chosen, x, r.fused, y, info, r.fused >= 0 ? "; residual fused" : "");
  if (pool_after) lower_max_pool_2x2(L, n, y, L.out(n, 0, DType::kFloat, stored));
  add_residual(L, n, r, y);
}

}  // namespace secateur
