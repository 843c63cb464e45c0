// The oracle: the formula of conv.h, loop for loop.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/conv/rows.h"

namespace secateur {
namespace {

struct PackedRef final : PackedConv {
  std::vector<float> weights, bias;
};

float activate(float v, const Activation& a) {
  if (v < 0) v *= a.slope;
  return std::min(std::max(v, a.lo), a.hi);
}

// One output of the convolution before the pool, activated.
float cell(const PackedRef& p, const float* x, const float* residual, int o, int i, int j) {
  const ConvShape& s = p.shape;
  const int group_in = s.in_c / s.groups, first = o / (s.out_c / s.groups) * group_in;
  float sum = p.bias[o];
  for (int c = 0; c < group_in; ++c)
    for (int u = 0; u < s.kernel_h; ++u)
      for (int v = 0; v < s.kernel_w; ++v) {
        const float w = p.weights[((int64_t{o} * group_in + c) * s.kernel_h + u) * s.kernel_w + v];
        const int r = i * s.stride_h + u * s.dilation_h - s.pad_top, q = j * s.stride_w + v * s.dilation_w - s.pad_left;
        if (w == 0 || r < 0 || r >= s.in_h || q < 0 || q >= s.in_w) continue;
        sum += w * x[(int64_t{first + c} * s.in_h + r) * s.in_w + q];
      }
  if (residual) sum += residual[(int64_t{o} * s.conv_h() + i) * s.conv_w() + j];
  return activate(sum, p.epilogue.act);
}

}  // namespace

bool conv_ref_supports(const ConvShape&, const Epilogue& e) { return !(e.residual && e.pool != Pool2x2::kNone); }

std::unique_ptr<PackedConv> conv_ref_pack(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e,
                                          const float* weights, const float* bias, const Tile&) {
  auto p = std::make_unique<PackedRef>();
  p->kernel = &kernel;
  p->shape = s;
  p->epilogue = e;
  p->weights.assign(weights, weights + s.weight_count());
  p->bias.assign(s.out_c, 0.0f);
  if (bias) p->bias.assign(bias, bias + s.out_c);
  p->nnz = s.weight_count() - std::count(p->weights.begin(), p->weights.end(), 0.0f);
  p->packed_bytes = (p->weights.size() + p->bias.size()) * sizeof(float);
  p->note = "plain loops";
  return p;
}

void conv_ref_run(const PackedConv& packed, const ConvArgs& args) {
  const auto& p = static_cast<const PackedRef&>(packed);
  const ConvShape& s = p.shape;
  const int oh = conv_out_h(s, p.epilogue), ow = conv_out_w(s, p.epilogue);
  const int64_t x_step = args.x_batch_stride ? args.x_batch_stride : int64_t{s.in_c} * s.in_h * s.in_w;
  const int64_t y_step = args.y_batch_stride ? args.y_batch_stride : int64_t{s.out_c} * oh * ow;
  for (int64_t n = 0; n < args.batch; ++n)
    for (int o = 0; o < s.out_c; ++o)
      for (int i = 0; i < oh; ++i)
        for (int j = 0; j < ow; ++j) {
          const float* x = args.x + n * x_step;
          const float* residual = args.residual ? args.residual + n * y_step : nullptr;
          float* y = args.y + n * y_step + (int64_t{o} * oh + i) * ow + j;
          if (p.epilogue.pool == Pool2x2::kNone) {
            *y = cell(p, x, residual, o, i, j);
          } else {
            float best = cell(p, x, nullptr, o, 2 * i, 2 * j);
            for (int k = 1; k < 4; ++k) best = std::max(best, cell(p, x, nullptr, o, 2 * i + k / 2, 2 * j + k % 2));
            *y = best;
          }
        }
}

namespace ref {
void no_task(const ConvView&, const ConvTask&) {}  // run() does it all
}  // namespace ref

}  // namespace secateur
