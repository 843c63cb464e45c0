// A kernel of its own for every channel, written once for all ISAs. Include after exactly one simd/int8_*.h.
//
// Four neighbours of a pixel, k = 0..3, are turned into words of one channel each: their product with four columns of
// that channel's kernel row is one instruction, and its lanes stand as the bytes of the result do. A row of the image
// is turned once for all rows of the result that it belongs to.
#pragma once

#include "kernels/qconv/panel.h"

namespace secateur {
namespace {

constexpr int kDepthRows = Q::kLanes == 16 ? 4 : 1;  // of the result at a time: 16 registers of sums

// All lanes inside the image or some; of every word or every second.
enum class Reach { kWhole, kPart, kEven, kPartEven };
constexpr int kMaxGroups = 4;  // of four columns of a kernel

// Where the words of a kernel column lie for one vector of results: the same lanes in every row.
struct Column {
  int64_t at;  // word of the image row
  Q::Mask part;
  Q::Even even;
};
struct Columns {
  Column at[kMaxGroups][4];
  Reach reach;
};

inline Columns columns_of(const QConvView& v, int first) {
  Columns c{};
  bool whole = true;
  for (int k = 0; k < v.kernel_w; ++k) {
    Column& column = c.at[k / 4][k % 4];
    const int from = first * v.stride_w + k - v.pad_left, left = v.in_w - from, half = v.stride_w - 1;
    int lo = from >= 0 ? 0 : (-from + half) >> half, hi = left <= 0 ? 0 : (left + half) >> half;
    hi = hi < Q::kLanes ? hi : Q::kLanes;
    lo = lo < hi ? lo : hi;
    whole = whole && lo == 0 && hi == Q::kLanes && from + v.stride_w * Q::kLanes <= v.in_w;
    column.at = from;
    column.part = Q::mask(lo, hi);
    column.even = lo < hi ? Q::even(lo, hi) : Q::even(0, 0);
  }
  c.reach = v.stride_w == 2 ? (whole ? Reach::kEven : Reach::kPartEven) : whole ? Reach::kWhole : Reach::kPart;
  return c;
}

template <Reach kReach>
SECATEUR_INLINE Q load(const Column& c, Q zero, const int32_t* line) {
  if constexpr (kReach == Reach::kWhole) return Q::load(line + c.at);
  else if constexpr (kReach == Reach::kPart) return Q::load_or(zero, c.part, line + c.at);
  else if constexpr (kReach == Reach::kEven) return Q::load_even(line + c.at);
  else return Q::load_even_or(zero, c.even, line + c.at);
}

// Sums of four channels that stand as a result's bytes do, to the planes of their channels.
SECATEUR_NOINLINE void store_channels(const QConvView& v, Q* sums, int quad, int64_t pixel, int count, void* y) {
  turn_lanes(sums);
  for (int k = 0; k < 4 && 4 * quad + k < v.out_c; ++k) {
    const int o = 4 * quad + k;
    const Q q = v.output == kQF32 ? to_float(sums[k], v.scale[o], v.offset[o]) : sums[k];
    int32_t* to = static_cast<int32_t*>(y) + o * v.out_plane + pixel;
    if (count == Q::kLanes) {
      q.store(to);
    } else {
      q.store_masked(to, Q::mask(0, count));
    }
  }
}

// One vector of columns of a quad's result, `count` of them stored. kRows, kStride: kernel_h and stride_h, or 0.
// kPlanes: not bytes.
template <int kRows, int kStride, Reach kReach, bool kPlanes>
void depthwise_columns(const QConvView& v, const int32_t* x, void* all, int quad, int column, const int32_t* weights,
                       Q bias, Q scale, const Columns& columns, int count) {
  const Q zero = Q::set1(v.x_zero);
  const int kernel_h = kRows ? kRows : v.kernel_h, stride = kRows ? kStride : v.stride_h;
  const int groups = kRows ? 1 : (v.kernel_w + 3) / 4, n_rows = (kDepthRows - 1) * stride + kernel_h;
  const int y_zero = v.zero, lo = v.lo, hi = v.hi, rows = v.rows, in_h = v.in_h,
            last_columns = v.kernel_w - 4 * (groups - 1);
  const int n_parts = kRows ? 1 : v.n_parts;
  int32_t* y = static_cast<int32_t*>(all) + quad * v.out_plane + column;
  for (int row0 = 0; row0 < rows; row0 += kDepthRows, y += int64_t{kDepthRows} * v.cols) {
    Q sums[kDepthRows][4];
    SECATEUR_UNROLL
    for (int r = 0; r < kDepthRows; ++r) {
      SECATEUR_UNROLL
      for (int k = 0; k < 4; ++k) sums[r][k] = bias;
    }
    for (int g = 0; g < groups; ++g) {
      const Column* c = columns.at[g];
      const int n_columns = g + 1 < groups ? 4 : last_columns;
      const auto row = [&](int i) {
        const int at = row0 * stride + i - v.pad_top;
        Q turned[4] = {zero, zero, zero, zero};
        if (at >= 0 && at < in_h) {
          const int32_t* line = x + int64_t{at} * v.in_w;
          // Weights of columns that a kernel has not are zero: any word will do.
          const Q t0 = load<kReach>(c[0], zero, line), t1 = n_columns > 1 ? load<kReach>(c[1], zero, line) : t0;
          const Q t2 = n_columns > 2 ? load<kReach>(c[2], zero, line) : t0,
                  t3 = n_columns > 3 ? load<kReach>(c[3], zero, line) : t0;
          interleave(t0, t1, t2, t3, turned);
        }
        const X e0 = expand(turned[0]), e1 = expand(turned[1]), e2 = expand(turned[2]), e3 = expand(turned[3]);
        SECATEUR_UNROLL
        for (int r = 0; r < kDepthRows; ++r) {
          const int u = i - r * stride;
          if (u < 0 || u >= kernel_h) continue;
          for (int part = 0; part < n_parts; ++part) {
            const auto w = load_lanes(weights + part * v.part_words + (int64_t{u} * groups + g) * 4 * kWeightWords);
            sums[r][0] = dot(sums[r][0], e0, w);
            sums[r][1] = dot(sums[r][1], e1, w);
            sums[r][2] = dot(sums[r][2], e2, w);
            sums[r][3] = dot(sums[r][3], e3, w);
          }
        }
      };
      if constexpr (kRows != 0) {
        SECATEUR_UNROLL
        for (int i = 0; i < (kDepthRows - 1) * kStride + kRows; ++i) row(i);
      } else {
        for (int i = 0; i < n_rows; ++i) row(i);
      }
    }
    SECATEUR_UNROLL
    for (int r = 0; r < kDepthRows; ++r) {
      if (row0 + r >= rows) break;
      if constexpr (kPlanes) {
        Q four[4] = {sums[r][0], sums[r][1], sums[r][2], sums[r][3]};
        store_channels(v, four, quad, int64_t{row0 + r} * v.cols + column, count, all);
        continue;
      }
      const Q q = join(narrow_words(rescaled(sums[r][0], scale), rescaled(sums[r][1], scale)),
                       narrow_words(rescaled(sums[r][2], scale), rescaled(sums[r][3], scale)), y_zero, lo, hi);
      int32_t* to = y + int64_t{r} * v.cols;
      if (count == Q::kLanes) {
        q.store(to);
      } else {
        q.store_masked(to, Q::mask(0, count));
      }
    }
  }
}

using DepthwiseFn = void (*)(const QConvView&, const int32_t*, void*, int, int, const int32_t*, Q, Q, const Columns&,
                             int);

template <int kRows, int kStride, bool kPlanes>
DepthwiseFn depthwise_function(Reach reach) {
  return reach == Reach::kWhole  ? depthwise_columns<kRows, kStride, Reach::kWhole, kPlanes>
         : reach == Reach::kPart ? depthwise_columns<kRows, kStride, Reach::kPart, kPlanes>
         : reach == Reach::kEven ? depthwise_columns<kRows, kStride, Reach::kEven, kPlanes>
                                 : depthwise_columns<kRows, kStride, Reach::kPartEven, kPlanes>;
}

template <bool kPlanes>
DepthwiseFn depthwise_function(const QConvView& v, Reach reach) {
  const bool three = v.kernel_h == 3 && v.kernel_w <= 4 && v.n_parts == 1;
  return three && v.stride_h == 1   ? depthwise_function<3, 1, kPlanes>(reach)
         : three && v.stride_h == 2 ? depthwise_function<3, 2, kPlanes>(reach)
                                    : depthwise_function<0, 0, kPlanes>(reach);
}

inline void depthwise_task(const QConvView& v, const QConvTask& t) {
  for (int j = 0; j < v.cols; j += Q::kLanes) {
    const int count = v.cols - j < Q::kLanes ? v.cols - j : Q::kLanes;
    const Columns columns = columns_of(v, j);
    const DepthwiseFn fn =
        v.output == kQU8 ? depthwise_function<false>(v, columns.reach) : depthwise_function<true>(v, columns.reach);
    for (int quad = t.quad_begin; quad < t.quad_end; ++quad) {
      const int32_t* weights = v.weights + int64_t{quad} * v.kernel_h * ((v.kernel_w + 3) / 4) * 4 * kWeightWords;
      fn(v, reinterpret_cast<const int32_t*>(t.x) + quad * v.in_plane, t.y, quad, j, weights,
         repeat4(v.bias + 4 * quad), repeat4(v.scale + 4 * quad), columns, count);
    }
  }
}

}  // namespace
}  // namespace secateur
