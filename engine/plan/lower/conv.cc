// Conv -> one call of a convolution kernel, dense or sparse as the cost model says.
#include <algorithm>
#include <climits>

#include "kernels/conv/conv.h"
#include "plan/lower/choose.h"
#include "plan/lower/handlers.h"
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

int to_int(Lowering& L, const Node& n, int64_t v) {
  if (v < 0 || v > INT_MAX / 4) L.invalid(n, "a size of " + std::to_string(v) + " is out of range");
  return static_cast<int>(v);
}

}  // namespace


void lower_conv(Lowering& L, const Node& n) {
  conv(L, n, L.in_f32(n, 0), L.in_f32(n, 1), L.has(n, 2) ? L.in_f32(n, 2) : -1, L.has(n, 3) ? L.in_f32(n, 3) : -1);
}

void conv(Lowering& L, const Node& n, int x, int w, int bias, int residual) {
  const Dims xd = L.dims(x), wd = L.dims(w);
  const int spatial = static_cast<int>(xd.size()) - 2;
  if (spatial != 1 && spatial != 2)
    L.unsupported(n, "input " + dims_text(xd) + ", supported: rank 3 (1-D) and 4 (2-D)");
  if (wd.size() != xd.size()) L.invalid(n, "weight " + dims_text(wd) + " does not fit input " + dims_text(xd));
  const int64_t groups = attr_i(n, "group", 1);
  if (groups < 1 || wd[0] % groups || wd[1] > INT_MAX / groups || wd[1] * groups != xd[1] || wd[0] == 0 || xd[1] == 0)
    L.invalid(n, "weight " + dims_text(wd) + " with group " + std::to_string(groups) + " does not fit input " + dims_text(xd));
  const auto kernel_attr = attr_is(n, "kernel_shape", Dims(wd.begin() + 2, wd.end()));
  if (kernel_attr != Dims(wd.begin() + 2, wd.end())) L.invalid(n, "kernel_shape does not agree with the weight " + dims_text(wd));
  if (bias >= 0 && L.dims(bias) != Dims{wd[0]}) L.invalid(n, "bias " + dims_text(L.dims(bias)) + " does not fit weight " + dims_text(wd));
  const Window win = read_window(L, n, Dims(xd.begin() + 2, xd.end()), kernel_attr, false);

  L.check_size(n, {xd[0], xd[1], win.in[0] + win.begin[0] + win.end[0], win.in[1] + win.begin[1] + win.end[1]});
  L.check_size(n, {xd[0], wd[0], win.out[0], win.out[1]}, static_cast<double>(product({xd[0], L.value(w).numel(), win.out[0], win.out[1]})));
  ConvShape s;
  s.in_c = to_int(L, n, xd[1]);
  s.out_c = to_int(L, n, wd[0]);
  s.groups = to_int(L, n, groups);
  s.in_h = to_int(L, n, win.in[0]), s.in_w = to_int(L, n, win.in[1]);
  s.kernel_h = to_int(L, n, win.kernel[0]), s.kernel_w = to_int(L, n, win.kernel[1]);
  s.stride_h = to_int(L, n, win.stride[0]), s.stride_w = to_int(L, n, win.stride[1]);
  s.dilation_h = to_int(L, n, win.dilation[0]), s.dilation_w = to_int(L, n, win.dilation[1]);
  s.pad_top = to_int(L, n, win.begin[0]), s.pad_left = to_int(L, n, win.begin[1]);
  s.pad_bottom = to_int(L, n, win.end[0]), s.pad_right = to_int(L, n, win.end[1]);

  // Kernels count the cells of one image, padding included, in 32 bits.
  const auto cells = [](int64_t c, int64_t h, int64_t w) { return static_cast<double>(c) * static_cast<double>(h) * static_cast<double>(w); };
  if (cells(xd[1], win.in[0] + win.begin[0] + win.end[0], win.in[1] + win.begin[1] + win.end[1]) > INT_MAX / 2 ||
      cells(wd[0], win.out[0], win.out[1]) > INT_MAX / 2)
    L.unsupported(n, "an image of more than 2^30 values");

  Dims out{xd[0], wd[0]};
  for (int i = 2 - spatial; i < 2; ++i) out.push_back(win.out[static_cast<size_t>(i)]);
  Epilogue e;
  e.act = fused_activation(n);

  StepInfo info;
  info.weight = wd;
  info.n_weights = L.value(w).numel();
  info.macs = product({xd[0], s.weight_count(), win.out[0], win.out[1]});
  info.in = xd;

  const bool pooled = n.post.pool;
  Dims stored = out;
  if (pooled) {
    if (spatial != 2 || win.out[0] < 2 || win.out[1] < 2) L.invalid(n, "the 2x2 pool after it does not fit " + dims_text(out));
    stored[2] = win.out[0] / 2, stored[3] = win.out[1] / 2;
  }
  if (L.is_empty(stored)) {
    const int y = residual >= 0 ? L.temp(DType::kFloat, stored) : L.out(n, 0, DType::kFloat, stored);
    if (residual >= 0) L.out(n, 0, DType::kFloat, broadcast_dims(L, n, y, residual));
    return;
  }
  if (!L.value(w).constant || (bias >= 0 && !L.value(bias).constant) || L.value(x).numel() == 0) {
    if (residual >= 0 || pooled) L.unsupported(n, "weights that are not constant, or an input without elements");
    const int y = L.out(n, 0, DType::kFloat, out);
    info.kernel = "conv_plain_f32_ref";
    info.why = L.value(x).numel() == 0 ? "all of the input is padding" : "the weights are not constant";
    L.emit(n, DynamicConvStep{s, e.act, xd[0], x, w, bias, y}, {x, w, bias}, {y}, info);
    return;
  }

  // A residual of another shape broadcasts: then it is not the kernel's, but an Add of its own after it.
  const bool broadcast_residual = residual >= 0 && L.dims(residual) != out;
  e.residual = residual >= 0 && !broadcast_residual;
  const Activation after = e.act;
  if (broadcast_residual) e.act = Activation::none();

  const auto* weights = reinterpret_cast<const float*>(L.value(w).constant);
  const auto* b = bias >= 0 ? reinterpret_cast<const float*>(L.value(bias).constant) : nullptr;
  const ConvDensity density = measure_density(s, weights);
  info.nnz = density.nnz;
  if (pooled) e.pool = Pool2x2::kMax;
  const auto ways = [&](int tilings) { return conv_candidates(L.isa(), s, e, density, L.allow_sparse(), tilings); };
  auto offered = ways(1);
  const bool split_pool = pooled && offered.empty();
  if (split_pool) {
    e.pool = Pool2x2::kNone;
    offered = ways(1);
  }
  if (offered.empty()) L.unsupported(n, "no kernel covers this convolution");
  const auto y_bytes = static_cast<size_t>(xd[0] * s.out_c * conv_out_h(s, e) * conv_out_w(s, e)) * sizeof(float);
  const auto choice = choose<PackedConv>(
      L, n,
      {"conv/" + conv_key(s, e), {w, bias}, xd[0], static_cast<double>(xd[0]), conv_reason(offered, density), [&] { return pattern_hash(weights, info.n_weights); }},
      offered, ways, [&](const ConvCandidate& c) { return c.kernel->pack(*c.kernel, s, e, weights, b, c.tile); },
      [&](auto p, int tx, int tr, int ty, int ts) { return ConvStep{std::move(p), xd[0], tx, tr, ty, ts}; },
      [&](const PackedConv& p) {
        return Tuner::Memory{L.value(x).nbytes(), y_bytes, e.residual ? y_bytes : 0,
                             p.scratch_bytes_per_thread * static_cast<size_t>(L.threads())};
      });
  const auto& packed = choice.packed;

  const int y = split_pool ? L.temp(DType::kFloat, out)
                           : broadcast_residual ? L.temp(DType::kFloat, out) : L.out(n, 0, DType::kFloat, stored);
  const size_t bytes = packed->scratch_bytes_per_thread * static_cast<size_t>(L.threads());
  const int scratch = bytes ? L.scratch(bytes) : -1;
  info.kernel = choice.way.kernel->name;
  info.predicted_us = choice.way.predicted_us * static_cast<double>(xd[0]);
  info.why = choice.why;
  if (!packed->note.empty()) info.why += (info.why.empty() ? "" : "; ") + packed->note;
  info.packed_bytes = static_cast<int64_t>(packed->packed_bytes);
  if (e.residual) info.why += "; residual fused";
  L.emit(n, ConvStep{packed, xd[0], x, e.residual ? residual : -1, y, scratch}, {x, e.residual ? residual : -1, scratch},
         {y, scratch}, info);
  if (split_pool) {
    const int final_y = L.out(n, 0, DType::kFloat, stored);
    lower_max_pool_2x2(L, n, y, final_y);
  }
  if (broadcast_residual) {
    const Dims sum = broadcast_dims(L, n, y, residual);
    const int final_y = L.out(n, 0, DType::kFloat, sum);
    lower_add(L, n, y, residual, final_y, after);
  }
}

}  // namespace secateur
