// Rare or short: plain loops.
#include <algorithm>
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
          const int row = i * a.stride_h + u * a.dilation_h - a.pad_top, col = j * a.stride_w - a.pad_left;
          if (row < 0 || row >= a.in_h) continue;
          const int from = col >= 0 ? 0 : (-col + a.dilation_w - 1) / a.dilation_w;
          const int to = col >= a.in_w ? 0 : std::min(a.kernel_w, (a.in_w - col + a.dilation_w - 1) / a.dilation_w);
          const uint8_t* p = x + (int64_t{row} * a.in_w + col) * 4;
          for (int v = from; v < to;) {
            // Bytes 0, 2 and 1, 3 as pairs of 16 bits: 256 pixels fit.
            uint32_t even = 0, odd = 0;
            for (const int stop = std::min(to, v + 256); v < stop; ++v, ++count) {
              uint32_t word;
              std::memcpy(&word, p + int64_t{v} * a.dilation_w * 4, 4);
              even += word & 0x00ff00ff, odd += word >> 8 & 0x00ff00ff;
            }
            sum[0] += static_cast<int32_t>(even & 0xffff), sum[1] += static_cast<int32_t>(odd & 0xffff);
            sum[2] += static_cast<int32_t>(even >> 16), sum[3] += static_cast<int32_t>(odd >> 16);
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

// Where plain element (image, channel, pixel) lies.
static int64_t plain_at(const QuadsShape& s, int64_t n, int64_t c, int64_t j) {
  return s.rows ? j * s.channels + c : (n * s.channels + c) * s.pixels + j;
}

void quads_pack(const QuadsShape& s, const uint8_t* x, uint8_t* y, uint8_t flip) {
  const int64_t n_quads = (s.channels + 3) / 4;
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t c = 0; c < n_quads * 4; ++c) {
      uint8_t* to = y + (n * n_quads + c / 4) * s.pixels * 4 + c % 4;
      for (int64_t j = 0; j < s.pixels; ++j) to[4 * j] = c < s.channels ? x[plain_at(s, n, c, j)] ^ flip : uint8_t{0};
    }
}

void quads_unpack(const QuadsShape& s, const uint8_t* x, uint8_t* y, uint8_t flip) {
  const int64_t n_quads = (s.channels + 3) / 4;
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t c = 0; c < s.channels; ++c) {
      const uint8_t* from = x + (n * n_quads + c / 4) * s.pixels * 4 + c % 4;
      for (int64_t j = 0; j < s.pixels; ++j) y[plain_at(s, n, c, j)] = from[4 * j] ^ flip;
    }
}

}  // namespace secateur
