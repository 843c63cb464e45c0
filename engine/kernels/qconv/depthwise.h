// A kernel of its own for every channel, written once for all ISAs. Include after exactly one simd/int8_*.h.
//
// Four neighbours of a pixel, k = 0..3, are turned into words of one channel each: their product with four columns of
// that channel's kernel row is one instruction, and its lanes stand as the bytes of the result do. A row of the image
// is turned once for all rows of the result that it belongs to.
#pragma once

#include "kernels/qconv/panel.h"

namespace secateur {
namespace {

// How products are made: as the level makes them, or of bytes where their 16-bit sums do not saturate. kRows: of the
// result at a time, as the registers of sums allow.
struct AsLevel {
  static constexpr int kWords = kWeightWords, kRows = Q::kLanes == 16 ? 4 : 1;
  static SECATEUR_INLINE X operand(Q x) { return expand(x); }
  static SECATEUR_INLINE auto weights(const int32_t* p) { return load_lanes(p); }
  template <class T>
  static SECATEUR_INLINE Q add(Q a, X x, const T& w) {
    return dot(a, x, w);
  }
};
#if SECATEUR_BYTE_PAIRS
struct OfBytes {
  static constexpr int kWords = 1, kRows = Q::kLanes == 16 ? 4 : 2;
  static SECATEUR_INLINE Q operand(Q x) { return x; }
  static SECATEUR_INLINE Q weights(const int32_t* p) { return repeat4(p); }
  static SECATEUR_INLINE Q add(Q a, Q x, Q w) { return dot_bytes(a, x, w); }
};
#endif

// All lanes inside the image or some; of every word or every second.
enum class Reach { kWhole, kPart, kEven, kPartEven };
constexpr int kMaxGroups = 4;  // of four columns of a kernel

// Where the words of a kernel column lie for one vector of results: the same lanes in every row.
struct Column {
  int64_t at;  // word of the image row
  bool whole;  // all lanes inside
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
    column.whole = lo == 0 && hi == Q::kLanes && from + v.stride_w * Q::kLanes <= v.in_w;
    whole = whole && column.whole;
    column.at = from;
    column.part = Q::mask(lo, hi);
    column.even = lo < hi ? Q::even(lo, hi) : Q::even(0, 0);
  }
  c.reach = v.stride_w == 2 ? (whole ? Reach::kEven : Reach::kPartEven) : whole ? Reach::kWhole : Reach::kPart;
  return c;
}

template <Reach kReach>
SECATEUR_INLINE Q load(const Column& c, Q zero, const int32_t* line) {
  // Of the columns of a vector at the edge, most are whole.
  if constexpr (kReach == Reach::kWhole) return Q::load(line + c.at);
  else if constexpr (kReach == Reach::kPart)
    return c.whole ? Q::load(line + c.at) : Q::load_or(zero, c.part, line + c.at);
  else if constexpr (kReach == Reach::kEven) return Q::load_even(line + c.at);
  else return c.whole ? Q::load_even(line + c.at) : Q::load_even_or(zero, c.even, line + c.at);
}

// Sums of four channels that stand as a result's bytes do, to the planes of their channels.
SECATEUR_NOINLINE void store_channels(const QConvView& v, Q* sums, int quad, int64_t pixel, int count, void* y) {
  turn_lanes(sums);
  for (int k = 0; k < 4 && 4 * quad + k < v.out_c; ++k) {
    const int o = 4 * quad + k;
    const Q q = v.output == kQF32 ? to_float(sums[k], v.scale[o], v.offset[o]) : sums[k];
    int32_t* to = static_cast<int32_t*>(y) + o * v.out_plane + pixel;
    q.store_first(to, count);
  }
}

// One vector of columns of a quad's result, `count` of them stored. kRows, kStride: kernel_h and stride_h of a 3x3
// kernel, or 0. kPlanes: not bytes.
template <class Products, int kRows, int kStride, Reach kReach, bool kPlanes>
void depthwise_columns(const QConvView& v, const int32_t* x, void* all, int quad, int column, const int32_t* weights,
                       Q bias, Q scale, const Columns& columns, int count) {
  constexpr int kDepthRows = Products::kRows;
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
      // Copies: what is stored might be their memory, as far as a compiler knows.
      const Column c[4] = {columns.at[g][0], columns.at[g][1], columns.at[g][2], columns.at[g][3]};
      const int n_columns = kRows ? 3 : g + 1 < groups ? 4 : last_columns;
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
        const auto e0 = Products::operand(turned[0]), e1 = Products::operand(turned[1]),
                   e2 = Products::operand(turned[2]), e3 = Products::operand(turned[3]);
        SECATEUR_UNROLL
        for (int r = 0; r < kDepthRows; ++r) {
          const int u = i - r * stride;
          if (u < 0 || u >= kernel_h) continue;
          for (int part = 0; part < n_parts; ++part) {
            const auto w =
                Products::weights(weights + part * v.part_words + (int64_t{u} * groups + g) * 4 * Products::kWords);
            sums[r][0] = Products::add(sums[r][0], e0, w);
            sums[r][1] = Products::add(sums[r][1], e1, w);
            sums[r][2] = Products::add(sums[r][2], e2, w);
            sums[r][3] = Products::add(sums[r][3], e3, w);
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
      q.store_first(to, count);
    }
  }
}

using DepthwiseFn = void (*)(const QConvView&, const int32_t*, void*, int, int, const int32_t*, Q, Q, const Columns&,
                             int);

template <class Products, int kRows, int kStride, bool kPlanes>
DepthwiseFn depthwise_function(Reach reach) {
  return reach == Reach::kWhole  ? depthwise_columns<Products, kRows, kStride, Reach::kWhole, kPlanes>
         : reach == Reach::kPart ? depthwise_columns<Products, kRows, kStride, Reach::kPart, kPlanes>
         : reach == Reach::kEven ? depthwise_columns<Products, kRows, kStride, Reach::kEven, kPlanes>
                                 : depthwise_columns<Products, kRows, kStride, Reach::kPartEven, kPlanes>;
}

template <class Products, bool kPlanes>
DepthwiseFn depthwise_function(const QConvView& v, Reach reach) {
  const bool three = v.kernel_h == 3 && v.kernel_w == 3 && v.n_parts == 1;
  return three && v.stride_h == 1   ? depthwise_function<Products, 3, 1, kPlanes>(reach)
         : three && v.stride_h == 2 ? depthwise_function<Products, 3, 2, kPlanes>(reach)
                                    : depthwise_function<Products, 0, 0, kPlanes>(reach);
}

template <class Products>
void depthwise_quad(const QConvView& v, const QConvTask& t, const int32_t* weights, int quad, int column,
                    const Columns& columns) {
  const DepthwiseFn fn = v.output == kQU8 ? depthwise_function<Products, false>(v, columns.reach)
                                          : depthwise_function<Products, true>(v, columns.reach);
  const int64_t words = int64_t{v.kernel_h} * ((v.kernel_w + 3) / 4) * 4 * Products::kWords;
  const int count = v.cols - column < Q::kLanes ? v.cols - column : Q::kLanes;
  fn(v, reinterpret_cast<const int32_t*>(t.x) + quad * v.in_plane, t.y, quad, column, weights + quad * words,
     repeat4(v.bias + 4 * quad), repeat4(v.scale + 4 * quad), columns, count);
}

inline void depthwise_task(const QConvView& v, const QConvTask& t) {
  for (int next = 0; next < v.cols; next += Q::kLanes) {
    // The last vector is a whole one again: it repeats some columns of the one before.
    const int j = v.cols < Q::kLanes || next + Q::kLanes <= v.cols ? next : v.cols - Q::kLanes;
    const Columns columns = columns_of(v, j);
    for (int quad = t.quad_begin; quad < t.quad_end; ++quad) {
#if SECATEUR_BYTE_PAIRS
      if (v.in_bytes && v.in_bytes[quad]) {
        depthwise_quad<OfBytes>(v, t, v.byte_weights, quad, j, columns);
        continue;
      }
#endif
      depthwise_quad<AsLevel>(v, t, v.weights, quad, j, columns);
    }
  }
}

}  // namespace
}  // namespace secateur
