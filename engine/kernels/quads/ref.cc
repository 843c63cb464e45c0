// Rare or short: plain loops.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/quads/quads.h"
#include "kernels/table.h"

namespace secateur {
namespace {

// Half to even, without a branch that nobody can foresee; beyond 2^10 nobody asks which byte it is, NaN is the lower
// end.
float round_even(float v) {
  v = v > -1024.0f ? v : -1024.0f;
  v = v < 1024.0f ? v : 1024.0f;
  constexpr float magic = 12582912.0f;  // 1.5 * 2^23: no bits are left behind the point
  const float t = v + magic;
  return t - magic;
}

// Adds n words, `step` apart, byte by byte. A template, so that words side by side become vectors.
template <bool kSideBySide>
void add_bytes(const uint8_t* p, int n, int64_t step, int32_t sum[4]) {
  while (n > 0) {
    // Bytes 0, 2 and 1, 3 as pairs of 16 bits: 256 pixels fit.
    const int now = std::min(n, 256);
    uint32_t even = 0, odd = 0;
    for (int i = 0; i < now; ++i) {
      uint32_t word;
      std::memcpy(&word, p + i * (kSideBySide ? 1 : step) * 4, 4);
      even += word & 0x00ff00ff, odd += word >> 8 & 0x00ff00ff;
    }
    sum[0] += static_cast<int32_t>(even & 0xffff), sum[1] += static_cast<int32_t>(odd & 0xffff);
    sum[2] += static_cast<int32_t>(even >> 16), sum[3] += static_cast<int32_t>(odd >> 16);
    n -= now, p += now * step * 4;
  }
}

}  // namespace

void quads_average(const QAverageArgs& args) {
  QPoolArgs a = args.p;
  const bool whole =
      a.kernel_h == a.in_h && a.kernel_w == a.in_w && a.out_h == 1 && a.out_w == 1 && a.pad_top == 0 && a.pad_left == 0;
  if (whole && a.dilation_h == 1 && a.dilation_w == 1) {
    // One run.
    a.in_w = a.kernel_w = a.in_h * a.in_w;
    a.in_h = a.kernel_h = 1;
  }
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
          if (from >= to) continue;
          count += to - from;
          (a.dilation_w == 1 ? add_bytes<true> : add_bytes<false>)(p + int64_t{from} * a.dilation_w * 4, to - from,
                                                                   a.dilation_w, sum);
        }
        const int divisor = args.include_pad ? a.kernel_h * a.kernel_w : count;
        const float scale = divisor ? args.scale / static_cast<float>(divisor) : 0.0f;
        for (int k = 0; k < 4; ++k) {
          const float q =
              round_even(static_cast<float>(sum[k] - count * args.x_zero) * scale) + static_cast<float>(args.zero);
          const float low = q > 0.0f ? q : 0.0f;
          y[k] = static_cast<uint8_t>(low < 255.0f ? low : 255.0f);
        }
      }
  }
}

void quads_table(int64_t n, const uint8_t* x, const uint8_t table[256], uint8_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = table[x[i]];
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

SECATEUR_TABLE(SECATEUR_LEVELS, QuadsKernels, quads_row, quads_kernels)

}  // namespace secateur
