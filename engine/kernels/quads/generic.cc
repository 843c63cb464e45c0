// Tensors of quads, once for all ISAs: compiled for every level of kernels/table.h.
#include "kernels/quads/quads.h"
#include "kernels/table.h"
#include "simd/int8_here.h"

namespace secateur {
namespace {

constexpr int kRows = 16, kRowQuads = 16;  // of a square of words that is turned at once

// Rows of n words `step` apart -> to[j * to_step + i], m rows.
SECATEUR_INLINE void turn(const int32_t* from, int64_t step, int m, int n, int32_t* to, int64_t to_step) {
  if (m == kRows && n == kRowQuads) {
    for (int i = 0; i < kRows; i += Q::kLanes)
      for (int j = 0; j < kRowQuads; j += Q::kLanes)
        store_turned(reinterpret_cast<const float*>(from + i * step + j), step,
                     reinterpret_cast<float*>(to + j * to_step + i), to_step);
    return;
  }
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < m; ++i) to[j * to_step + i] = from[i * step + j];
}

// One image of x [pixels][channels] -> y [quads][pixels][4]
inline void quantize_rows(const QuantizeArgs& a, const Sum& s) {
  const int64_t n_quads = (a.s.channels + 3) / 4, rows = a.s.pixels;
  auto* y = reinterpret_cast<int32_t*>(a.y);
  alignas(64) int32_t square[kRows][kRowQuads + 16];
  for (int64_t t0 = 0; t0 < rows; t0 += kRows) {
    const int n = rows - t0 < kRows ? static_cast<int>(rows - t0) : kRows;
    for (int64_t q0 = 0; q0 < n_quads; q0 += kRowQuads) {
      const int m = n_quads - q0 < kRowQuads ? static_cast<int>(n_quads - q0) : kRowQuads;
      for (int t = 0; t < n; ++t) {
        const float* x = a.x + (t0 + t) * a.s.channels + 4 * q0;
        auto* bytes = reinterpret_cast<uint8_t*>(square[t]);
        // Lanes beyond the last channel are read as 0.
        for (int c = 0; c < 4 * m; c += Q::kLanes) {
          const int64_t left = a.s.channels - 4 * q0 - c;
          store_bytes(from_float(x + c, Q::mask(0, left < Q::kLanes ? static_cast<int>(left) : Q::kLanes), s), a.zero,
                      bytes + c);
        }
      }
      turn(square[0], kRowQuads + 16, n, m, y + q0 * rows + t0, rows);
    }
  }
}

// One image of x [quads][pixels][4] -> y [pixels][channels]
inline void dequantize_rows(const DequantizeArgs& a) {
  const int64_t n_quads = (a.s.channels + 3) / 4, rows = a.s.pixels;
  const auto* x = reinterpret_cast<const int32_t*>(a.x);
  alignas(64) int32_t square[kRows][kRowQuads + 16] = {};
  for (int64_t t0 = 0; t0 < rows; t0 += kRows) {
    const int n = rows - t0 < kRows ? static_cast<int>(rows - t0) : kRows;
    for (int64_t q0 = 0; q0 < n_quads; q0 += kRowQuads) {
      const int m = n_quads - q0 < kRowQuads ? static_cast<int>(n_quads - q0) : kRowQuads;
      turn(x + q0 * rows + t0, rows, m, n, square[0], kRowQuads + 16);
      for (int t = 0; t < n; ++t) {
        float* y = a.y + (t0 + t) * a.s.channels + 4 * q0;
        const auto* bytes = reinterpret_cast<const uint8_t*>(square[t]);
        for (int c = 0; c < 4 * m && 4 * q0 + c < a.s.channels; c += Q::kLanes) {
          const int64_t left = a.s.channels - 4 * q0 - c;
          bytes_to_float(load_bytes(bytes + c), 0, a.zero, a.scale, y + c,
                         left < Q::kLanes ? static_cast<int>(left) : Q::kLanes);
        }
      }
    }
  }
}

inline void quantize_quads(const QuantizeArgs& a) {
  const Sum s{a.scale, static_cast<float>(0 - a.zero), static_cast<float>(255 - a.zero), 0, 0, 0, 0};
  if (a.s.rows || a.s.pixels == 1) {
    QuantizeArgs image = a;
    for (int64_t n = 0; n < a.s.batch; ++n, image.x += a.s.channels, image.y += (a.s.channels + 3) / 4 * 4)
      quantize_rows(image, s);
    return;
  }
  const int64_t n_quads = (a.s.channels + 3) / 4, pixels = a.s.pixels;
  for (int64_t n = 0; n < a.s.batch; ++n)
    for (int64_t q = 0; q < n_quads; ++q) {
      const float* x = a.x + (n * a.s.channels + 4 * q) * pixels;
      auto* y = reinterpret_cast<int32_t*>(a.y) + (n * n_quads + q) * pixels;
      const int n_channels = a.s.channels - 4 * q < 4 ? static_cast<int>(a.s.channels - 4 * q) : 4;
      for (int64_t j = 0; j < pixels; j += 2 * Q::kLanes) {
        H h[4];
        const int left = pixels - j < 2 * Q::kLanes ? static_cast<int>(pixels - j) : 2 * Q::kLanes;
        const auto first = Q::mask(0, left), second = Q::mask(0, left - Q::kLanes);
        for (int k = 0; k < 4; ++k) {
          if (k >= n_channels) {
            h[k] = narrow_words(Q::zero(), Q::zero());
            continue;
          }
          const float* p = x + k * pixels + j;
          h[k] = narrow_words(from_float(p, first, s), from_float(p + Q::kLanes, second, s));
        }
        Q u, v;
        quads(h[0], h[1], h[2], h[3], a.zero, 0, 255, &u, &v);
        u.store_first(y + j, left);
        if (left > Q::kLanes) v.store_first(y + j + Q::kLanes, left - Q::kLanes);
      }
    }
}

inline void dequantize_quads(const DequantizeArgs& a) {
  if (a.s.rows || a.s.pixels == 1) {
    DequantizeArgs image = a;
    for (int64_t n = 0; n < a.s.batch; ++n, image.y += a.s.channels, image.x += (a.s.channels + 3) / 4 * 4)
      dequantize_rows(image);
    return;
  }
  const int64_t n_quads = (a.s.channels + 3) / 4, pixels = a.s.pixels;
  for (int64_t n = 0; n < a.s.batch; ++n)
    for (int64_t q = 0; q < n_quads; ++q) {
      float* y = a.y + (n * a.s.channels + 4 * q) * pixels;
      const auto* x = reinterpret_cast<const int32_t*>(a.x) + (n * n_quads + q) * pixels;
      const int n_channels = a.s.channels - 4 * q < 4 ? static_cast<int>(a.s.channels - 4 * q) : 4;
      for (int64_t j = 0; j < pixels; j += Q::kLanes) {
        const int n = pixels - j < Q::kLanes ? static_cast<int>(pixels - j) : Q::kLanes;
        const Q w = Q::load_or(Q::zero(), Q::mask(0, n), x + j);
        for (int k = 0; k < n_channels; ++k) bytes_to_float(w, k, a.zero, a.scale, y + k * pixels + j, n);
      }
    }
}

// Least and largest, 0 included. Comparisons skip NaN; side by side, the loops become vectors of any ISA.
inline void range_run(int64_t n, const float* x, float* lo, float* hi) {
  constexpr int kSide = 4 * Q::kLanes;
  float least[kSide] = {}, most[kSide] = {};
  int64_t i = 0;
  for (; i + kSide <= n; i += kSide)
    for (int k = 0; k < kSide; ++k) {
      least[k] = x[i + k] < least[k] ? x[i + k] : least[k];
      most[k] = x[i + k] > most[k] ? x[i + k] : most[k];
    }
  for (; i < n; ++i) {
    least[0] = x[i] < least[0] ? x[i] : least[0];
    most[0] = x[i] > most[0] ? x[i] : most[0];
  }
  for (int k = 1; k < kSide; ++k) {
    least[0] = least[k] < least[0] ? least[k] : least[0];
    most[0] = most[k] > most[0] ? most[k] : most[0];
  }
  *lo = least[0], *hi = most[0];
}

inline void turn_words(int64_t rows, int64_t words, const uint8_t* x, uint8_t* y) {
  const auto* from = reinterpret_cast<const int32_t*>(x);
  auto* to = reinterpret_cast<int32_t*>(y);
  for (int64_t i = 0; i < rows; i += kRows)
    for (int64_t j = 0; j < words; j += kRowQuads)
      turn(from + i * words + j, words, rows - i < kRows ? static_cast<int>(rows - i) : kRows,
           words - j < kRowQuads ? static_cast<int>(words - j) : kRowQuads, to + j * rows + i, rows);
}

inline void quantize_run(const RunArgs& a) {
  const Sum s{a.scale, static_cast<float>(0 - a.zero), static_cast<float>(255 - a.zero), 0, 0, 0, 0};
  const auto* x = static_cast<const float*>(a.x);
  auto* y = static_cast<uint8_t*>(a.y);
  for (int64_t i = 0; i < a.n; i += Q::kLanes) {
    const int left = a.n - i < Q::kLanes ? static_cast<int>(a.n - i) : Q::kLanes;
    uint8_t bytes[Q::kLanes];
    uint8_t* to = left == Q::kLanes ? y + i : bytes;
    store_bytes(from_float(x + i, Q::mask(0, left), s), a.zero, to);
    if (a.flip)
      for (int k = 0; k < Q::kLanes; ++k) to[k] ^= a.flip;
    for (int k = 0; k < left && to == bytes; ++k) y[i + k] = bytes[k];
  }
}

inline void dequantize_run(const RunArgs& a) {
  const auto* x = static_cast<const uint8_t*>(a.x);
  auto* y = static_cast<float*>(a.y);
  for (int64_t i = 0; i < a.n; i += Q::kLanes) {
    const int left = a.n - i < Q::kLanes ? static_cast<int>(a.n - i) : Q::kLanes;
    uint8_t bytes[Q::kLanes] = {};
    const uint8_t* from = x + i;
    if (left < Q::kLanes || a.flip) {
      for (int k = 0; k < left; ++k) bytes[k] = from[k] ^ a.flip;
      from = bytes;
    }
    bytes_to_float(load_bytes(from), 0, a.zero, a.scale, y + i, left);
  }
}

inline void add_quads(const QAddArgs& a) {
  const Sum s{1, 0, 0, a.scale0, a.scale1, a.zero1, a.zero0};
  const auto *x0 = reinterpret_cast<const int32_t*>(a.x0), *x1 = reinterpret_cast<const int32_t*>(a.x1);
  auto* y = reinterpret_cast<int32_t*>(a.y);
  for (int64_t j = 0; j < a.words; j += 2 * Q::kLanes) {
    const int left = a.words - j < 2 * Q::kLanes ? static_cast<int>(a.words - j) : 2 * Q::kLanes;
    const auto first = Q::mask(0, left), second = Q::mask(0, left - Q::kLanes);
    const Q a0 = Q::load_or(Q::zero(), first, x0 + j), a1 = Q::load_or(Q::zero(), second, x0 + j + Q::kLanes);
    const Q b0 = Q::load_or(Q::zero(), first, x1 + j), b1 = Q::load_or(Q::zero(), second, x1 + j + Q::kLanes);
    H h[4];
    SECATEUR_UNROLL
    for (int k = 0; k < 4; ++k) h[k] = narrow_words(sum_bytes(a0, b0, s, k), sum_bytes(a1, b1, s, k));
    Q u, v;
    quads(h[0], h[1], h[2], h[3], a.zero, a.lo, a.hi, &u, &v);
    u.store_first(y + j, left);
    if (left > Q::kLanes) v.store_first(y + j + Q::kLanes, left - Q::kLanes);
  }
}

// Where the words of one column of a window lie for one vector of results: the same lanes in every row.
struct PoolColumn {
  int from, lo, hi;  // word of the row under lane 0; lanes inside
  bool whole;
};
SECATEUR_INLINE PoolColumn pool_column(const QPoolArgs& a, int j, int v, int count) {
  PoolColumn c;
  c.from = j * a.stride_w + v * a.dilation_w - a.pad_left;
  c.lo = c.from >= 0 ? 0 : (-c.from + a.stride_w - 1) / a.stride_w;
  const int hi = c.from >= a.in_w ? 0 : (a.in_w - c.from + a.stride_w - 1) / a.stride_w;
  c.hi = hi < count ? hi : count;
  c.whole = c.lo == 0 && c.hi == Q::kLanes && c.from + a.stride_w * Q::kLanes <= a.in_w;
  return c;
}
SECATEUR_INLINE Q pool_words(const QPoolArgs& a, const PoolColumn& c, const int32_t* line) {
  if (a.stride_w == 1)
    return c.whole ? Q::load(line + c.from) : Q::load_or(Q::zero(), Q::mask(c.lo, c.hi), line + c.from);
  if (a.stride_w == 2)
    return c.whole ? Q::load_even(line + c.from) : Q::load_even_or(Q::zero(), Q::even(c.lo, c.hi), line + c.from);
  int32_t t[Q::kLanes] = {};
  for (int k = c.lo; k < c.hi; ++k) t[k] = line[c.from + k * a.stride_w];
  return Q::load(t);
}

// Windows of 2x2 side by side, whose rows are whole vectors or two of whose rows are one: what most nets have.
inline bool halves(const QPoolArgs& a) {
  const bool window = a.kernel_h == 2 && a.kernel_w == 2 && a.stride_h == 2 && a.stride_w == 2;
  const bool inside = a.pad_top == 0 && a.pad_left == 0 && a.dilation_h == 1 && a.dilation_w == 1 &&
                      2 * a.out_h <= a.in_h && 2 * a.out_w == a.in_w;
  return window && inside && (a.out_w % Q::kLanes == 0 || (a.in_w == Q::kLanes && a.out_h % 2 == 0));
}

inline void max_pool_halves(const QPoolArgs& a) {
  const auto* x = reinterpret_cast<const int32_t*>(a.x);
  auto* y = reinterpret_cast<int32_t*>(a.y);
  const int64_t line = a.in_w, plane = line * a.in_h;
  const auto rows = [line](const int32_t* p) { return maximum(Q::load(p), Q::load(p + line)); };
  const bool narrow = a.in_w == Q::kLanes;  // two rows of results make a vector
  for (int64_t k = 0; k < a.planes; ++k, x += plane)
    for (int i = 0; i < a.out_h; i += narrow ? 2 : 1) {
      const int32_t* p = x + 2 * i * line;
      for (int j = 0; j < a.in_w; j += narrow ? Q::kLanes : 2 * Q::kLanes, y += Q::kLanes) {
        const Q first = rows(p + j), second = rows(narrow ? p + 2 * line : p + j + Q::kLanes);
        maximum(Q::evens(first, second), Q::odds(first, second)).store(y);
      }
    }
}

inline void max_pool_quads(const QPoolArgs& a) {
  if (halves(a)) return max_pool_halves(a);
  constexpr int kKept = 16;  // columns of a window that are looked up once
  for (int j = 0; j < a.out_w; j += Q::kLanes) {
    const int count = a.out_w - j < Q::kLanes ? a.out_w - j : Q::kLanes;
    PoolColumn columns[kKept], beyond;
    for (int v = 0; v < a.kernel_w && v < kKept; ++v) columns[v] = pool_column(a, j, v, count);
    for (int64_t plane = 0; plane < a.planes; ++plane) {
      const auto* x = reinterpret_cast<const int32_t*>(a.x) + plane * a.in_h * a.in_w;
      auto* y = reinterpret_cast<int32_t*>(a.y) + plane * a.out_h * a.out_w + j;
      for (int i = 0; i < a.out_h; ++i, y += a.out_w) {
        Q best = Q::zero();
        for (int u = 0; u < a.kernel_h; ++u) {
          const int row = i * a.stride_h + u * a.dilation_h - a.pad_top;
          if (row < 0 || row >= a.in_h) continue;
          const int32_t* line = x + int64_t{row} * a.in_w;
          for (int v = 0; v < a.kernel_w; ++v) {
            const PoolColumn& c = v < kKept ? columns[v] : (beyond = pool_column(a, j, v, count));
            if (c.lo < c.hi) best = maximum(best, pool_words(a, c, line));
          }
        }
        best.store_first(y, count);
      }
    }
  }
}

}  // namespace

namespace SECATEUR_LEVEL {
extern const QuadsKernels quads_row = {kIsa,         quantize_quads, dequantize_quads, add_quads, max_pool_quads,
                                       quantize_run, dequantize_run, turn_words,       range_run};
}
}  // namespace secateur
