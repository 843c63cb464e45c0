// Packs and runs layers whose result channels read one channel each.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "kernels/conv/depthwise_view.h"
#include "kernels/conv/rows.h"
#include "kernels/conv/tiling.h"

namespace secateur {
namespace {

struct PackedDepthwise final : PackedConv {
  DepthwiseView view{};
  std::vector<float> weights, bias, zeros;
  int together = 1;  // channels of a task
  double cycles = 0;
};

}  // namespace

// Kernels whose dilation skips columns under stride 2 would load every tap by itself.
bool conv_depthwise_supports(const ConvShape& s, const Epilogue& e) {
  return s.groups == s.in_c && e.pool == Pool2x2::kNone && s.stride_w <= 2 && s.kernel_h <= kDepthwiseKernel &&
         s.kernel_w <= kDepthwiseKernel && (s.stride_w == 1 || s.dilation_w == 1);
}

// Fitted on Zen 4, whose registers of 16 floats are worked on in halves.
double conv_depthwise_cycles(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e) {
  const bool unrolled =
      s.kernel_h == s.kernel_w && (s.kernel_h == 3 || s.kernel_h == 5) && s.stride_h == s.stride_w && s.dilation_h == 1;
  const int lanes = kernel.vector_lanes;
  const double taps = double(s.kernel_h) * s.kernel_w, work = lanes == 16 ? 1.75 : lanes == 8 ? 1.15 : 2.9;
  const double rows = (s.conv_h() + kDepthwiseRows - 1) / kDepthwiseRows, vectors = (s.conv_w() + lanes - 1) / lanes;
  const double vector = kDepthwiseRows * (taps * (unrolled ? 0.6 : 1.1) * (s.stride_w == 2 ? 2.1 : 1.0) + 2.5) * work;
  const double bytes =
      4.0 * (double(s.in_c) * s.in_h * s.in_w + double(s.out_c) * s.conv_h() * s.conv_w() * (e.residual ? 2 : 1));
  return 200 + s.out_c * (40 + rows * (8 + vector * vectors)) +
         0.02 * std::max(0.0, bytes - 0.5 * double(cpu().l2_bytes));
}

std::unique_ptr<PackedConv> conv_depthwise_pack(const ConvKernel& kernel, const ConvShape& s, const Epilogue& e,
                                                const float* weights, const float* bias, const Tile&) {
  auto p = std::make_unique<PackedDepthwise>();
  p->kernel = &kernel;
  p->shape = s;
  p->epilogue = e;
  p->density = measure_density(s, weights);
  p->nnz = p->density.nnz;
  p->weights.assign(weights, weights + s.weight_count());
  p->bias.assign(static_cast<size_t>(s.out_c), 0.0f);
  if (bias) std::copy_n(bias, s.out_c, p->bias.begin());
  p->zeros.assign(static_cast<size_t>(s.in_w), 0.0f);
  p->cycles = conv_depthwise_cycles(kernel, s, e);
  DepthwiseView& v = p->view;
  v.in_h = s.in_h, v.in_w = s.in_w;
  v.in_plane = int64_t{s.in_h} * s.in_w;
  v.step_h = s.stride_h, v.step_w = s.stride_w;
  v.pad_top = s.pad_top, v.pad_left = s.pad_left;
  v.kernel_h = s.kernel_h, v.kernel_w = s.kernel_w;
  v.dilation_h = s.dilation_h, v.dilation_w = s.dilation_w;
  v.per_channel = s.out_c / s.in_c;
  v.rows = s.conv_h(), v.cols = s.conv_w();
  v.out_c = s.out_c;
  v.out_plane = int64_t{v.rows} * v.cols;
  v.lo = e.act.lo, v.hi = e.act.hi, v.slope = e.act.slope;
  v.bias = p->bias.data();
  v.weights = p->weights.data();
  v.zeros = p->zeros.data();
  // Borders are passes of their own: over as many channels as stay in the first cache.
  const int64_t plane_bytes = 4 * (v.in_plane + v.out_plane);
  p->together = static_cast<int>(std::clamp<int64_t>(int64_t(cpu().l1d_bytes) / 2 / plane_bytes, 1, s.out_c));
  p->packed_bytes = (p->weights.size() + p->bias.size() + p->zeros.size()) * sizeof(float);
  // As many as stay in the first cache meanwhile.
  const int64_t row_bytes = 4 * (int64_t{v.in_w} * v.step_h + v.cols);
  const int64_t strip = int64_t(cpu().l1d_bytes) / 4 / row_bytes / kDepthwiseRows * kDepthwiseRows;
  v.strip = static_cast<int32_t>(std::max<int64_t>(strip, kDepthwiseRows));
  char text[60];
  std::snprintf(text, sizeof text, "no panel, %d channel%s at a time", p->together, p->together > 1 ? "s" : "");
  p->note = text;
  return p;
}

void conv_depthwise_run(const PackedConv& packed, const ConvArgs& args) {
  const auto& p = static_cast<const PackedDepthwise&>(packed);
  const ConvShape& s = p.shape;
  const int64_t x_step = args.x_batch_stride ? args.x_batch_stride : int64_t{s.in_c} * p.view.in_plane;
  const int64_t y_step = args.y_batch_stride ? args.y_batch_stride : int64_t{s.out_c} * p.view.out_plane;
  const int64_t parts = (s.out_c + p.together - 1) / p.together;
  const auto task = [&](int64_t index, int) {
    const int64_t image = index / parts, part = index % parts;
    ConvTask t{};
    t.x = args.x + image * x_step;
    t.y = args.y + image * y_step;
    t.residual = p.epilogue.residual ? args.residual + image * y_step : nullptr;
    t.part_begin = static_cast<int32_t>(part) * p.together;
    t.part_end = std::min(s.out_c, t.part_begin + p.together);
    p.kernel->task(p.view, t);
  };
  const bool large = p.cycles * double(args.batch) > kSerialMicroseconds * kCyclesPerMicrosecond;
  if (args.threads && args.threads->size() > 1 && large) {
    args.threads->parallel(args.batch * parts, task);
  } else {
    for (int64_t i = 0; i < args.batch * parts; ++i) task(i, 0);
  }
}

}  // namespace secateur
