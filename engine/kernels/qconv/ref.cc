// The oracle: the formula of qconv.h, loop for loop.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/qconv/panel.h"
#include "kernels/qconv/rows.h"
#include "simd/gelu.h"

namespace secateur {
namespace {

struct PackedRef final : PackedQConv {
  std::vector<int16_t> w;
  std::vector<int32_t> bias;
  std::vector<float> scale, offset;
  uint8_t x_zero = 0;
};

float round_even(float v) {
  const float f = std::floor(v), d = v - f;
  if (d < 0.5f) return f;
  if (d > 0.5f) return f + 1.0f;
  return std::fmod(f, 2.0f) == 0.0f ? f : f + 1.0f;
}
// clamp(round(v) + zero, lo, hi)
int clamped(float v, int zero, int lo, int hi) {
  const float r = round_even(v) + static_cast<float>(zero);
  return !(r > static_cast<float>(lo)) ? lo : r >= static_cast<float>(hi) ? hi : static_cast<int>(r);
}

float gelu(float v) {
  const float steps = std::fabs(v) * kGeluStep, u = steps < kGeluLast ? steps : kGeluLast, n = round_even(u), d = u - n;
  float r = 0;
  for (int k = 3; k >= 0; --k) {
    const float product = r * d;
    r = product + kGelu[k][static_cast<int>(n)];
  }
  return v * (0.5f + std::copysign(r, v));
}

int32_t accumulate(const PackedRef& p, uint8_t x_zero, const uint8_t* x, int o, int i, int j) {
  const ConvShape& s = p.shape;
  const int group_in = s.in_c / s.groups, first = o / (s.out_c / s.groups) * group_in;
  auto sum = static_cast<uint32_t>(p.bias[o]);
  for (int c = 0; c < group_in; ++c)
    for (int u = 0; u < s.kernel_h; ++u)
      for (int v = 0; v < s.kernel_w; ++v) {
        const int r = i * s.stride_h + u * s.dilation_h - s.pad_top, q = j * s.stride_w + v * s.dilation_w - s.pad_left;
        if (r < 0 || r >= s.in_h || q < 0 || q >= s.in_w) continue;
        const int channel = first + c;
        const int value = x[((int64_t{channel / 4} * s.in_h + r) * s.in_w + q) * 4 + channel % 4] - x_zero;
        sum += static_cast<uint32_t>(value * p.w[((int64_t{o} * group_in + c) * s.kernel_h + u) * s.kernel_w + v]);
      }
  return static_cast<int32_t>(sum);
}

}  // namespace

bool qconv_ref_supports(const ConvShape&, const QEpilogue&) { return true; }

std::unique_ptr<PackedQConv> qconv_ref_pack(const QConvKernel& kernel, const ConvShape& s, const QEpilogue& e,
                                            const QWeights& w, const Tile&) {
  auto p = std::make_unique<PackedRef>();
  p->kernel = &kernel;
  p->shape = s;
  p->epilogue = e;
  for (int64_t i = 0; i < s.weight_count(); ++i) p->w.push_back(static_cast<int16_t>(w.at(i)));
  p->bias.assign(static_cast<size_t>(s.out_c), 0);
  if (w.bias) p->bias.assign(w.bias, w.bias + s.out_c);
  if (w.scale) p->scale.assign(w.scale, w.scale + s.out_c);
  p->offset.assign(static_cast<size_t>(s.out_c), 0.0f);
  if (w.offset) p->offset.assign(w.offset, w.offset + s.out_c);
  p->x_zero = w.x_zero;
  p->packed_bytes = p->w.size() + 8 * p->bias.size();
  p->note = "plain loops";
  return p;
}

void qconv_ref_run(const PackedQConv& packed, const QConvArgs& args) {
  const auto& p = static_cast<const PackedRef&>(packed);
  const ConvShape& s = p.shape;
  const QEpilogue& e = p.epilogue;
  const uint8_t x_zero = e.dynamic ? args.x_zero : p.x_zero;
  const int64_t plane = int64_t{s.conv_h()} * s.conv_w();
  const int64_t x_step = quads(s.in_c) * 4 * s.in_h * s.in_w, y_step = quads(s.out_c) * 4 * plane;
  for (int64_t n = 0; n < args.batch; ++n) {
    const uint8_t* x = args.x + n * x_step;
    for (int o = 0; o < 4 * quads(s.out_c); ++o)
      for (int i = 0; i < s.conv_h(); ++i)
        for (int j = 0; j < s.conv_w(); ++j) {
          const int64_t pixel = int64_t{i} * s.conv_w() + j, at = n * y_step + (o / 4 * plane + pixel) * 4 + o % 4;
          const int32_t acc = o < s.out_c ? accumulate(p, x_zero, x, o, i, j) : 0;
          if (e.output != QOutput::kU8) {
            if (o >= s.out_c) continue;
            const int64_t plain = (n * s.out_c + o) * plane + pixel, row = (n * plane + pixel) * s.out_c + o;
            if (e.output == QOutput::kF32Rows || e.output == QOutput::kF32) {
              const float scale = e.dynamic ? args.x_scale * p.scale[o] : p.scale[o];
              const float scaled = static_cast<float>(acc) * scale;
              static_cast<float*>(args.y)[e.output == QOutput::kF32 ? plain : row] = scaled + p.offset[o];
            } else {
              static_cast<int32_t*>(args.y)[e.output == QOutput::kI32 ? plain : row] = acc;
            }
            continue;
          }
          if (e.gelu) {
            const float scaled = static_cast<float>(acc) * (o < s.out_c ? p.scale[o] : 0.0f);
            const float y = gelu(scaled + (o < s.out_c ? p.offset[o] : 0.0f));
            static_cast<uint8_t*>(args.y)[at] = static_cast<uint8_t>(clamped(y * e.inverse, e.zero, e.lo, e.hi));
            continue;
          }
          int q = clamped(static_cast<float>(acc) * (o < s.out_c ? p.scale[o] : 0.0f), e.zero, e.lo, e.hi);
          if (e.residual) {
            const float left = static_cast<float>(q - e.zero) * e.a;
            const float right = static_cast<float>(args.residual[at] - e.r_zero) * e.b;
            q = clamped(left + right, e.sum_zero, e.sum_lo, e.sum_hi);
          }
          static_cast<uint8_t*>(args.y)[at] = static_cast<uint8_t>(q);
        }
  }
}

namespace ref {
void no_task(const QConvView&, const QConvTask&) {}  // run() does it all
}  // namespace ref

}  // namespace secateur
