// A kernel of its own for every result channel, over one channel of the image: no panel. Included by generic.cc.
//
// Four rows of the result at a time, so that a row of the image is loaded for all of them. Rows outside the image are a
// row of zeros; columns outside are masked in the vectors at the borders, and the last vector of a row overlaps the one
// before it. A strip of rows is worked on in columns of vectors: weights are loaded once for it. Under stride 2 the
// sums stand as shuffles within half a register leave them, until they are stored.
#pragma once

#include <algorithm>

#include "kernels/conv/depthwise_view.h"

namespace secateur {
namespace {

constexpr int kDepthRows = kDepthwiseRows;

// Which lanes of a vector's taps lie outside the image: none, some of the taps left or right of the middle one, any.
enum class Edge { kNone, kLeft, kRight, kAny };

// A vector of results, and where its taps lie in a row of the image.
struct Column {
  int j, count;  // first result, how many are stored
  Edge edge;
  Vec::Mask masks[kDepthwiseKernel][2];
};

// Where tap k of `width` is loaded from: its own place or, under stride 2, that of a neighbour it shares two vectors
// with. The last tap is the odd one of a pair, so that nothing beyond it is read.
struct Place {
  int base;
  bool odd;
};
template <int S>
SECATEUR_INLINE constexpr Place place_of(int k, int width) {
  if (S == 1 || k == 0) return {k, false};
  return k % 2 == 1 || k == width - 1 ? Place{k - 1, true} : Place{k, false};
}

template <int S>
SECATEUR_INLINE Column column_of(const DepthwiseView& v, int j) {
  Column c;
  c.j = j;
  c.count = v.cols - j < kLanes ? v.cols - j : kLanes;
  bool left = false, right = false, other = c.count < kLanes;
  const int middle = v.kernel_w / 2;
  for (int k = 0; k < v.kernel_w; ++k) {
    const int base = place_of<S>(k, v.kernel_w).base, from = j * S + base * v.dilation_w - v.pad_left;
    for (int part = 0; part < S; ++part) {
      const int lo = -from - part * kLanes, hi = v.in_w - from - part * kLanes;
      c.masks[base][part] = Vec::mask(lo, hi);
      if (lo <= 0 && hi >= kLanes) continue;
      (part == 0 && base < middle && hi >= kLanes ? left : S == 1 && base > middle && lo <= 0 ? right : other) = true;
    }
  }
  c.edge = other || (left && right) ? Edge::kAny : left ? Edge::kLeft : right ? Edge::kRight : Edge::kNone;
  return c;
}

// Tap k of a row, for the results from j on.
template <int S, Edge kEdge>
SECATEUR_INLINE Vec tap(const DepthwiseView& v, const float* row, int j, int k, int width, const Column& c) {
  const Place place = place_of<S>(k, width);
  const int middle = width / 2;
  const float* at = row + j * S + place.base * v.dilation_w - v.pad_left;
  const bool masked = kEdge == Edge::kAny || (kEdge == Edge::kLeft && place.base < middle) ||
                      (kEdge == Edge::kRight && place.base > middle);
  const Vec a = masked ? Vec::load_masked(at, c.masks[place.base][0]) : Vec::load(at);
  if constexpr (S == 1) {
    return a;
  } else {
    const Vec b = kEdge == Edge::kAny ? Vec::load_masked(at + kLanes, c.masks[place.base][1]) : Vec::load(at + kLanes);
    return place.odd ? odd_near(a, b) : even_near(a, b);
  }
}

// What a channel's results are made of.
struct Channel {
  const float* x;  // its first pixel
  float* y;
  const float* residual;  // or null
  const float* w;
  float bias;
  bool spill;  // a vector may write behind a row that is shorter: what is there is written after it
};

// Rows row0 to row_end of the result of one channel, from results j on, a vector at a time. KH, KW: the kernel's size,
// 0 = any.
template <int KH, int KW, int S, Edge kEdge>
void depthwise_rows(const DepthwiseView& v, const Channel& channel, const Column& c, int end, int row0, int row_end) {
  constexpr bool kWhole = kEdge != Edge::kAny;
  constexpr bool kInRegisters = KH * KW > 0 && KH * KW <= 9;
  constexpr int kTaps = kInRegisters ? KH * KW : 1;
  Vec weights[kTaps];
  if constexpr (kInRegisters) {
    SECATEUR_UNROLL
    for (int k = 0; k < kTaps; ++k) weights[k] = Vec::set1(channel.w[k]);
  }
  const bool plain = !channel.residual && v.slope == 1.0f;
  const Vec lo = Vec::set1(v.lo), hi = Vec::set1(v.hi);
  const int64_t cols = v.cols;
  constexpr int kShared = (kDepthRows - 1) * S + KH;
  const float* rows[KH > 0 ? kShared : kDepthRows * kDepthwiseKernel];
  for (; row0 < row_end; row0 += kDepthRows) {
    // The last rows overlap those before them.
    const int n_rows = v.rows < kDepthRows ? v.rows : kDepthRows, first = std::min(row0, v.rows - n_rows);
    const int top = first * v.step_h - v.pad_top;
    const auto row = [&](int r) { return r >= 0 && r < v.in_h ? channel.x + int64_t{r} * v.in_w : v.zeros; };
    if (KH > 0 && top >= 0 && top + kShared <= v.in_h) {
      SECATEUR_UNROLL
      for (int i = 0; i < kShared; ++i) rows[i] = channel.x + int64_t{top + i} * v.in_w;
    } else if (KH > 0) {
      for (int i = 0; i < kShared; ++i) rows[i] = row(top + i);
    } else {
      for (int r = 0; r < kDepthRows; ++r)
        for (int u = 0; u < v.kernel_h; ++u) rows[r * v.kernel_h + u] = row(top + r * v.step_h + u * v.dilation_h);
    }
    for (int j = c.j; j < end; j += kLanes) {
      Vec sums[kDepthRows];
      SECATEUR_UNROLL
      for (int r = 0; r < kDepthRows; ++r) sums[r] = Vec::set1(channel.bias);
      if constexpr (kInRegisters) {
        SECATEUR_UNROLL
        for (int i = 0; i < kShared; ++i) {
          Vec x[KW];
          SECATEUR_UNROLL
          for (int k = 0; k < KW; ++k) x[k] = held(tap<S, kEdge>(v, rows[i], j, k, KW, c));
          SECATEUR_UNROLL
          for (int r = 0; r < kDepthRows; ++r) {
            const int u = i - r * S;
            if (u < 0 || u >= KH) continue;
            SECATEUR_UNROLL
            for (int k = 0; k < KW; ++k) sums[r] = fma(weights[u * KW + k], x[k], sums[r]);
          }
        }
      } else if constexpr (KH * KW > 0) {
        SECATEUR_UNROLL
        for (int k = 0; k < KW; ++k) {
          Vec x[kShared];
          SECATEUR_UNROLL
          for (int i = 0; i < kShared; ++i) x[i] = held(tap<S, kEdge>(v, rows[i], j, k, KW, c));
          SECATEUR_UNROLL
          for (int u = 0; u < KH; ++u) {
            const Vec weight = Vec::set1(channel.w[u * KW + k]);
            SECATEUR_UNROLL
            for (int r = 0; r < kDepthRows; ++r) sums[r] = fma(weight, x[r * S + u], sums[r]);
          }
        }
      } else {
        for (int u = 0; u < v.kernel_h; ++u)
          for (int k = 0; k < v.kernel_w; ++k) {
            const Vec weight = Vec::set1(channel.w[u * v.kernel_w + k]);
            SECATEUR_UNROLL
            for (int r = 0; r < kDepthRows; ++r)
              sums[r] = fma(weight, tap<S, kEdge>(v, rows[r * v.kernel_h + u], j, k, v.kernel_w, c), sums[r]);
          }
      }
      float* y = channel.y + first * cols + j;
      if (plain && n_rows == kDepthRows) {
        SECATEUR_UNROLL
        for (int r = 0; r < kDepthRows; ++r, y += cols) {
          const Vec x = min(hi, max(lo, S == 2 ? in_order(sums[r]) : sums[r]));
          kWhole || channel.spill ? x.store(y) : x.store_first(y, c.count);
        }
        continue;
      }
      const float* residual = channel.residual ? channel.residual + (y - channel.y) : channel.y;
      for (int r = 0; r < n_rows; ++r, y += cols, residual += cols) {
        Vec x = S == 2 ? in_order(sums[r]) : sums[r];
        if (channel.residual) x = x + (kWhole ? Vec::load(residual) : Vec::load_range(residual, 0, c.count));
        x = activate(x, v);
        kWhole ? x.store(y) : x.store_first(y, c.count);
      }
    }
  }
}

using DepthwiseFn = void (*)(const DepthwiseView&, const Channel&, const Column&, int, int, int);

// A run of vectors alike: those at the borders are alone.
struct Run {
  Column c;
  int end;
  DepthwiseFn fn;
};
constexpr int kRuns = 4;  // at a time

template <int K, int S>
SECATEUR_INLINE DepthwiseFn depthwise_unrolled(Edge edge) {
  if (edge == Edge::kNone) return depthwise_rows<K, K, S, Edge::kNone>;
  if (edge == Edge::kLeft) return depthwise_rows<K, K, S, Edge::kLeft>;
  if constexpr (S == 1)
    if (edge == Edge::kRight) return depthwise_rows<K, K, S, Edge::kRight>;
  return depthwise_rows<K, K, S, Edge::kAny>;
}
template <int S>
SECATEUR_INLINE DepthwiseFn depthwise_function(const DepthwiseView& v, bool unrolled, Edge edge) {
  if (unrolled) return v.kernel_h == 3 ? depthwise_unrolled<3, S>(edge) : depthwise_unrolled<5, S>(edge);
  return edge == Edge::kNone ? depthwise_rows<0, 0, S, Edge::kNone> : depthwise_rows<0, 0, S, Edge::kAny>;
}

// Strip by strip, so that a large image comes from memory as it lies there.
SECATEUR_INLINE void depthwise_channel(const DepthwiseView& v, const ConvTask& t, int o, const Run* runs, int n) {
  const float* x = t.x + o / v.per_channel * v.in_plane;
  const int64_t y = o * v.out_plane;
  const Channel channel{x,
                        t.y + y,
                        t.residual ? t.residual + y : nullptr,
                        v.weights + int64_t{o} * v.kernel_h * v.kernel_w,
                        v.bias[o],
                        (t.part_end - o) * v.out_plane >= int64_t{v.rows - 1} * v.cols + kLanes};
  for (int row0 = 0; row0 < v.rows; row0 += v.strip)
    for (int i = 0; i < n; ++i) runs[i].fn(v, channel, runs[i].c, runs[i].end, row0, std::min(v.rows, row0 + v.strip));
}

template <int S>
SECATEUR_INLINE void depthwise_strips(const DepthwiseView& v, const ConvTask& t, bool unrolled) {
  Run runs[kRuns];
  int n = 0;
  for (int j = 0; j < v.cols;) {
    Run& run = runs[n++];
    run.c = column_of<S>(v, j + kLanes > v.cols && v.cols > kLanes ? v.cols - kLanes : j);
    run.end = run.c.j + run.c.count;
    // Further vectors inside: the last result's last tap is what they read last.
    const int last = v.in_w - 1 - (v.kernel_w - 1) * v.dilation_w + v.pad_left - (S == 2 && v.kernel_w == 1);
    while (run.c.edge == Edge::kNone && run.end + kLanes <= v.cols && (run.end + kLanes - 1) * S <= last)
      run.end += kLanes;
    run.fn = depthwise_function<S>(v, unrolled, run.c.edge);
    j = run.end;
    if (n < kRuns && j < v.cols) continue;
    for (int o = t.part_begin; o < t.part_end; ++o) depthwise_channel(v, t, o, runs, n);
    n = 0;
  }
}

SECATEUR_INLINE void depthwise_task(const ConvView& view, const ConvTask& t) {
  const auto& v = static_cast<const DepthwiseView&>(view);
  const bool unrolled =
      v.step_h == v.step_w && v.dilation_h == 1 && v.kernel_h == v.kernel_w && (v.kernel_h == 3 || v.kernel_h == 5);
  if (v.step_w == 1) {
    depthwise_strips<1>(v, t, unrolled);
  } else {
    depthwise_strips<2>(v, t, unrolled);
  }
}

}  // namespace
}  // namespace secateur
