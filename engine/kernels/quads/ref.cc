// Rare or short: plain loops.
#include <cmath>
#include <cstring>

#include "kernels/quads/quads.h"

namespace secateur {
namespace {

float round_even(float v) {
  const float f = std::floor(v), d = v - f;
  if (d < 0.5f) return f;
  if (d > 0.5f) return f + 1.0f;
  return std::fmod(f, 2.0f) == 0.0f ? f : f + 1.0f;
}

}  // namespace

void quads_average(const QAverageArgs& args) {
  const QPoolArgs& a = args.p;
  for (int64_t plane = 0; plane < a.planes; ++plane) {
    const uint8_t* x = a.x + plane * a.in_h * a.in_w * 4;
    uint8_t* y = a.y + plane * a.out_h * a.out_w * 4;
    for (int i = 0; i < a.out_h; ++i)
      for (int j = 0; j < a.out_w; ++j, y += 4) {
        int32_t sum[4] = {0, 0, 0, 0}, count = 0;
        for (int u = 0; u < a.kernel_h; ++u) {
          const int row = i * a.stride_h + u * a.dilation_h - a.pad_top;
          if (row < 0 || row >= a.in_h) continue;
          for (int v = 0; v < a.kernel_w; ++v) {
            const int col = j * a.stride_w + v * a.dilation_w - a.pad_left;
            if (col < 0 || col >= a.in_w) continue;
            const uint8_t* p = x + (int64_t{row} * a.in_w + col) * 4;
            for (int k = 0; k < 4; ++k) sum[k] += p[k];
            ++count;
          }
        }
        const float scale = count ? args.scale / static_cast<float>(count) : 0.0f;
        for (int k = 0; k < 4; ++k) {
          const float q = round_even(static_cast<float>(sum[k] - count * args.x_zero) * scale) + static_cast<float>(args.zero);
          y[k] = static_cast<uint8_t>(q > 0.0f ? q < 255.0f ? q : 255.0f : 0.0f);
        }
      }
  }
}

void quads_pack(const QuadsShape& s, const uint8_t* x, uint8_t* y, uint8_t flip) {
  const int64_t n_quads = (s.channels + 3) / 4;
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t c = 0; c < n_quads * 4; ++c) {
      uint8_t* to = y + (n * n_quads + c / 4) * s.pixels * 4 + c % 4;
      const uint8_t* from = x + (n * s.channels + c) * s.pixels;
      for (int64_t j = 0; j < s.pixels; ++j) to[4 * j] = c < s.channels ? from[j] ^ flip : uint8_t{0};
    }
}

void quads_unpack(const QuadsShape& s, const uint8_t* x, uint8_t* y, uint8_t flip) {
  const int64_t n_quads = (s.channels + 3) / 4;
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t c = 0; c < s.channels; ++c) {
      const uint8_t* from = x + (n * n_quads + c / 4) * s.pixels * 4 + c % 4;
      uint8_t* to = y + (n * s.channels + c) * s.pixels;
      for (int64_t j = 0; j < s.pixels; ++j) to[j] = from[4 * j] ^ flip;
    }
}

}  // namespace secateur
