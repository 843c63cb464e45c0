// A kernel of its own for every result channel, over one channel of the image: no panel. Included by generic.cc.
//
// Four rows of the result at a time, so that a row of the image is loaded for all of them. Rows outside the image are a
// row of zeros; columns outside are masked in the vectors at the borders, and the last vector of a row overlaps the one
// before it. Under stride 2 the sums stand as shuffles within half a register leave them, until they are stored.
#pragma once

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

// n_rows rows of the result of one channel, from results j on, a vector at a time. KH, KW: the kernel's size, 0 = any.
template <int KH, int KW, int S, Edge kEdge>
void depthwise_rows(const DepthwiseView& v, const float* const* rows, float* y, const float* residual, const float* w,
                    float bias, const Column& c, int end, int n_rows) {
  constexpr bool kWhole = kEdge != Edge::kAny;
  constexpr bool kInRegisters = KH * KW > 0 && KH * KW <= 9;
  constexpr int kTaps = kInRegisters ? KH * KW : 1;
  Vec weights[kTaps];
  if constexpr (kInRegisters) {
    SECATEUR_UNROLL
    for (int k = 0; k < kTaps; ++k) weights[k] = Vec::set1(w[k]);
  }
  for (int j = c.j; j < end; j += kLanes) {
    Vec sums[kDepthRows];
    SECATEUR_UNROLL
    for (int r = 0; r < kDepthRows; ++r) sums[r] = Vec::set1(bias);
    if constexpr (kInRegisters) {
      SECATEUR_UNROLL
      for (int i = 0; i < (kDepthRows - 1) * S + KH; ++i) {
        Vec x[KW];
        SECATEUR_UNROLL
        for (int k = 0; k < KW; ++k) x[k] = tap<S, kEdge>(v, rows[i], j, k, KW, c);
        SECATEUR_UNROLL
        for (int r = 0; r < kDepthRows; ++r) {
          const int u = i - r * S;
          if (u < 0 || u >= KH) continue;
          SECATEUR_UNROLL
          for (int k = 0; k < KW; ++k) sums[r] = fma(weights[u * KW + k], x[k], sums[r]);
        }
      }
    } else if constexpr (KH * KW > 0) {
      constexpr int kInputs = (kDepthRows - 1) * S + KH;
      SECATEUR_UNROLL
      for (int k = 0; k < KW; ++k) {
        Vec x[kInputs];
        SECATEUR_UNROLL
        for (int i = 0; i < kInputs; ++i) x[i] = tap<S, kEdge>(v, rows[i], j, k, KW, c);
        SECATEUR_UNROLL
        for (int u = 0; u < KH; ++u) {
          const Vec weight = Vec::set1(w[u * KW + k]);
          SECATEUR_UNROLL
          for (int r = 0; r < kDepthRows; ++r) sums[r] = fma(weight, x[r * S + u], sums[r]);
        }
      }
    } else {
      for (int u = 0; u < v.kernel_h; ++u)
        for (int k = 0; k < v.kernel_w; ++k) {
          const Vec weight = Vec::set1(w[u * v.kernel_w + k]);
          SECATEUR_UNROLL
          for (int r = 0; r < kDepthRows; ++r)
            sums[r] = fma(weight, tap<S, kEdge>(v, rows[r * v.kernel_h + u], j, k, v.kernel_w, c), sums[r]);
        }
    }
    SECATEUR_UNROLL
    for (int r = 0; r < kDepthRows; ++r) {
      if (r >= n_rows) break;
      Vec x = S == 2 ? in_order(sums[r]) : sums[r];
      const int64_t at = int64_t{r} * v.cols + j;
      if (kWhole) {
        if (residual) x = x + Vec::load(residual + at);
        activate(x, v).store(y + at);
      } else {
        if (residual) x = x + Vec::load_range(residual + at, 0, c.count);
        activate(x, v).store_first(y + at, c.count);
      }
    }
  }
}

using DepthwiseFn = void (*)(const DepthwiseView&, const float* const*, float*, const float*, const float*, float,
                             const Column&, int, int);

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

// Row by row, so that the image comes from memory as it lies there. A generic kernel has the rows of its results one
// after another, the others share them.
SECATEUR_INLINE void depthwise_runs(const DepthwiseView& v, const ConvTask& t, bool unrolled, const Run* runs, int n) {
  const int taps = v.kernel_h * v.kernel_w, shared = (kDepthRows - 1) * v.step_h + v.kernel_h;
  const float* rows[kDepthRows * kDepthwiseKernel];
  for (int o = t.part_begin; o < t.part_end; ++o) {
    const float* x = t.x + o / v.per_channel * v.in_plane;
    for (int row0 = 0; row0 < v.rows; row0 += kDepthRows) {
      const int top = row0 * v.step_h - v.pad_top;
      const auto row = [&](int r) { return r >= 0 && r < v.in_h ? x + int64_t{r} * v.in_w : v.zeros; };
      if (unrolled) {
        for (int i = 0; i < shared; ++i) rows[i] = row(top + i);
      } else {
        for (int r = 0; r < kDepthRows; ++r)
          for (int u = 0; u < v.kernel_h; ++u) rows[r * v.kernel_h + u] = row(top + r * v.step_h + u * v.dilation_h);
      }
      // What the next rows need, of this channel or of the one behind it, comes while these are worked on.
      const float* next = x + int64_t{top + shared} * v.in_w;
      for (int i = 0; i < kDepthRows * v.step_h * v.in_w; i += 16) __builtin_prefetch(next + i);
      const int64_t at = o * v.out_plane + int64_t{row0} * v.cols;
      const int n_rows = v.rows - row0 < kDepthRows ? v.rows - row0 : kDepthRows;
      for (int i = 0; i < n; ++i)
        runs[i].fn(v, rows, t.y + at, t.residual ? t.residual + at : nullptr, v.weights + int64_t{o} * taps, v.bias[o],
                   runs[i].c, runs[i].end, n_rows);
    }
  }
}

template <int S>
SECATEUR_INLINE void depthwise_strips(const DepthwiseView& v, const ConvTask& t) {
  const bool unrolled =
      v.step_h == S && v.dilation_h == 1 && v.kernel_h == v.kernel_w && (v.kernel_h == 3 || v.kernel_h == 5);
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
    if (n == kRuns || j >= v.cols) depthwise_runs(v, t, unrolled, runs, n), n = 0;
  }
}

SECATEUR_INLINE void depthwise_task(const ConvView& view, const ConvTask& t) {
  const auto& v = static_cast<const DepthwiseView&>(view);
  if (v.step_w == 1) {
    depthwise_strips<1>(v, t);
  } else {
    depthwise_strips<2>(v, t);
  }
}

}  // namespace
}  // namespace secateur
