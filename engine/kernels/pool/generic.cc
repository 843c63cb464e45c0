// Pooling, once for all ISAs: compiled for every level of kernels/table.h.
//
// A window is a rectangle: its rows are combined first, then its columns. The rows of the image under a strip of a row
// of the result become one row in a small buffer, with what padding is worth on both sides, and neighbours are combined
// from there: a result costs kernel_h + kernel_w steps. Large windows of maxima that move by one go by doubling: the
// maxima of 1, 2, 4, ... neighbours, and a window is two such runs that overlap, so that one of 13 costs what one of 9
// does.
#include <type_traits>

#include "kernels/pool/pool.h"
#include "kernels/table.h"
#include "simd/vec_here.h"

namespace secateur {
namespace {

constexpr int kLanes = Vec::kLanes;
// What is stored is loaded again a column further, across two stores: that waits until both are in the cache, so that a
// few rows are made before the first is read.
constexpr int kRows = 4;
constexpr int kBuffer = 1024, kStrip = 256;  // floats of a row, results of a strip
constexpr int kSlack = 4 * kLanes;           // whole vectors run over a row's end
constexpr int kPiece = 4096;                 // floats that doubling works on: beside the rows in an L1 of 32 KB
constexpr int kDoubled = 7;                  // windows above it are doubled: fewer steps, but each of them stores

struct Buffers {
  alignas(64) float rows[kRows][kBuffer + kSlack];
  alignas(64) float counts[kStrip + kSlack];  // columns under the results of a strip
  alignas(64) float piece[kPiece];
};

template <bool kMax>
SECATEUR_INLINE Vec start() {
  return kMax ? Vec::set1(-__builtin_inff()) : Vec::zero();
}
template <bool kMax>
SECATEUR_INLINE Vec combine(Vec a, Vec b) {
  return kMax ? max(a, b) : a + b;
}
// As combine(start, a): a sum of one negative zero is a positive one.
template <bool kMax>
SECATEUR_INLINE Vec first(Vec a) {
  return kMax ? a : Vec::zero() + a;
}

// y[0..n) = f(0), f(kLanes), ...; the last vector overlaps the one before it, so that no store is masked.
template <class F>
SECATEUR_INLINE void each_vector(float* y, int n, F f) {
  if (n < kLanes) {
    if (n > 0) f(0).store_first(y, n);
    return;
  }
  int j = 0;
  for (; j + kLanes <= n; j += kLanes) f(j).store(y + j);
  if (j < n) f(n - kLanes).store(y + n - kLanes);
}

// f(n), with small n as constants: loops of known length.
template <class F>
SECATEUR_INLINE void with_count(int n, F f) {
  if (n == 2) return f(std::integral_constant<int, 2>());
  if (n == 3) return f(std::integral_constant<int, 3>());
  f(n);
}

// How many of the first n cells from `at` on, `step` apart, lie before `end`.
SECATEUR_INLINE int before(int end, int at, int step, int n) {
  const int64_t room = int64_t{end} - at;
  const int64_t cells = room <= 0 ? 0 : step == 1 ? room : (room + step - 1) / step;
  return cells < n ? static_cast<int>(cells) : n;
}

// The cells of one axis under a result.
struct Cells {
  int first, count, counted;  // counted: those an average divides by
};
SECATEUR_INLINE Cells cells_of(int at, int step, int n, int size, int pad_end, bool padded) {
  const int outside = before(0, at, step, n), inside = before(size, at, step, n) - outside;
  return {at + outside * step, inside, padded ? before(size + pad_end, at, step, n) : inside};
}
SECATEUR_INLINE Cells rows_of(const PoolArgs& a, int i) {
  return cells_of(i * a.stride_h - a.pad_top, a.dilation_h, a.kernel_h, a.in_h, a.pad_bottom, a.count_include_pad);
}

// Columns [from, from + n) of the image, those before `left` and from `right` on outside it.
struct Span {
  int from, n, left, right;
  int inside() const { return right - left; }
};
SECATEUR_INLINE Span span_of(const PoolArgs& a, int from, int n) {
  int left = from < 0 ? -from : 0, right = a.in_w - from;
  left = left < n ? left : n;
  right = right < n ? right : n;
  return {from, n, left, right > left ? right : left};
}

// to[0..n) = f(first column inside, ...) where the image is, the start beside it.
template <bool kMax, class F>
SECATEUR_INLINE void with_padding(const Span& s, float* to, F f) {
  for (int j = 0; j < s.left; j += kLanes) start<kMax>().store(to + j);
  f(to + s.left, s.inside());
  for (int j = s.right; j < s.n; j += kLanes) start<kMax>().store(to + j);
}

// The rows of an image under a row of the result, combined into `to`.
template <bool kMax>
SECATEUR_INLINE void combine_rows(const PoolArgs& a, const float* x, const Cells& rows, const Span& s, float* to) {
  const float* top = x + int64_t{rows.first} * a.in_w + s.from + s.left;
  const int64_t step = int64_t{a.dilation_h} * a.in_w;
  with_padding<kMax>(s, to, [&](float* at, int n) {
    if (rows.count == 0) {
      for (int j = 0; j < n; j += kLanes) start<kMax>().store(at + j);
    } else if (n < kLanes) {
      Vec sum = start<kMax>();
      for (int u = 0; u < rows.count; ++u) sum = combine<kMax>(sum, Vec::load_range(top + u * step, 0, n));
      sum.store(at);
    } else {
      with_count(rows.count, [&](auto count) {
        each_vector(at, n, [&](int j) {
          Vec sum = first<kMax>(Vec::load(top + j));
          for (int u = 1; u < count; ++u) sum = combine<kMax>(sum, Vec::load(top + u * step + j));
          return sum;
        });
      });
    }
  });
}

// Maxima of a large window: `row` is changed.
SECATEUR_INLINE void double_columns(const PoolArgs& a, float* row, float* y, int n) {
  int run = 1;
  for (; 2 * run <= a.kernel_w; run *= 2) {
    const int shift = run * a.dilation_w, rest = n + (a.kernel_w - 2 * run) * a.dilation_w;
    for (int j = 0; j < rest; j += kLanes) max(Vec::load(row + j), Vec::load(row + j + shift)).store(row + j);
  }
  const int shift = (a.kernel_w - run) * a.dilation_w;
  each_vector(y, n, [&](int j) { return max(Vec::load(row + j), Vec::load(row + j + shift)); });
}

// n results of a strip from its row. An average is divided, not multiplied by a reciprocal: no ISA may differ from
// another.
template <bool kMax>
SECATEUR_INLINE void combine_columns(const PoolArgs& a, float* row, float* y, int n, const float* counts, float rows) {
  if (kMax && a.stride_w == 1 && a.kernel_w > kDoubled) return double_columns(a, row, y, n);
  const Vec under = Vec::set1(rows);
  const auto end = [&](Vec sum, int j) { return kMax ? sum : sum / (under * Vec::load(counts + j)); };
  if (a.stride_w == 1) {
    with_count(a.kernel_w, [&](auto count) {
      each_vector(y, n, [&](int j) {
        Vec sum = first<kMax>(Vec::load(row + j));
        for (int v = 1; v < count; ++v) sum = combine<kMax>(sum, Vec::load(row + j + v * a.dilation_w));
        return end(sum, j);
      });
    });
  } else if (a.stride_w == 2 && a.dilation_w == 1) {
    with_count(a.kernel_w, [&](auto count) {
      each_vector(y, n, [&](int j) {
        Vec sum = start<kMax>();
        for (int v = 0; v < count; v += 2) {
          const Vec p = Vec::load(row + 2 * j + v), q = Vec::load(row + 2 * j + v + kLanes);
          sum = v == 0 ? first<kMax>(even(p, q)) : combine<kMax>(sum, even(p, q));
          if (v + 1 < count) sum = combine<kMax>(sum, odd(p, q));
        }
        return end(sum, j);
      });
    });
  } else {
    for (int j = 0; j < n; ++j) {
      const float* q = row + int64_t{j} * a.stride_w;
      float sum = kMax ? -__builtin_inff() : 0.0f;
      for (int v = 0; v < a.kernel_w; ++v, q += a.dilation_w) sum = kMax ? (*q > sum ? *q : sum) : sum + *q;
      y[j] = kMax ? sum : sum / (rows * counts[j]);
    }
  }
}

// By how many columns an average of a strip divides, 1 where there is none: then the sum is 0.
void count_columns(const PoolArgs& a, int j, int n, float* counts) {
  for (int k = 0; k < n; ++k) {
    const int at = (j + k) * a.stride_w - a.pad_left;
    const int cells = cells_of(at, a.dilation_w, a.kernel_w, a.in_w, a.pad_right, a.count_include_pad).counted;
    counts[k] = static_cast<float>(cells ? cells : 1);
  }
}

// Columns [j, j + n) of the result, row by row.
template <bool kMax>
SECATEUR_INLINE void strip_by_rows(const PoolArgs& a, const float* x, float* y, int j, int n, const Span& s,
                                   Buffers& b) {
  for (int i = 0; i < a.out_h; i += kRows) {
    const int rows = a.out_h - i < kRows ? a.out_h - i : kRows;
    int counted[kRows];
    for (int r = 0; r < rows; ++r) {
      const Cells cells = rows_of(a, i + r);
      counted[r] = cells.counted ? cells.counted : 1;
      combine_rows<kMax>(a, x, cells, s, b.rows[r]);
    }
    for (int r = 0; r < rows; ++r)
      combine_columns<kMax>(a, b.rows[r], y + int64_t{i + r} * a.out_w + j, n, b.counts,
                            static_cast<float>(counted[r]));
  }
}

// The same of large windows that move by one row: as many rows at a time as fit. False: too few.
SECATEUR_INLINE bool strip_by_doubling(const PoolArgs& a, const float* x, float* y, int j0, int n, const Span& s,
                                       Buffers& b) {
  float* piece = b.piece;
  const int pitch = (s.inside() + kLanes - 1) / kLanes * kLanes, step = a.dilation_h;
  const int64_t reach = int64_t{step} * (a.kernel_h - 1) + 1, most = pitch ? kPiece / pitch - reach + 1 : 0;
  if (most < reach && most < a.out_h) return false;
  for (int i0 = 0; i0 < a.out_h; i0 += static_cast<int>(most)) {
    const int i1 = a.out_h - i0 < most ? a.out_h : i0 + static_cast<int>(most);
    const int top = i0 - a.pad_top > 0 ? i0 - a.pad_top : 0;
    const int64_t under = i1 - 1 - a.pad_top + reach;
    const int rows = static_cast<int>((under < a.in_h ? under : a.in_h) - top);
    for (int r = 0; r < rows; ++r)
      for (int j = 0; j < pitch; j += kLanes)
        Vec::load_range(x + int64_t{top + r} * a.in_w + s.from + s.left + j, 0, s.inside() - j)
            .store(piece + r * pitch + j);
    for (int run = 1, longest = 1, made = 0; run <= longest; run *= 2) {
      int results[kRows];
      const auto finish = [&]() {
        for (int k = 0; k < made; ++k)
          combine_columns<true>(a, b.rows[k], y + int64_t{results[k]} * a.out_w + j0, n, nullptr, 1.0f);
        made = 0;
      };
      for (int i = i0; i < i1; ++i) {
        const Cells cells = rows_of(a, i);
        const int count = cells.count;
        longest = count > longest ? count : longest;
        if (count == 0 ? run > 1 : count < run || count >= 2 * run) continue;  // not yet, or done
        const int p = (cells.first - top) * pitch, q = p + (count - run) * step * pitch;
        with_padding<true>(s, b.rows[made], [&](float* at, int inside) {
          for (int j = 0; j < inside; j += kLanes)
            (count ? max(Vec::load(piece + p + j), Vec::load(piece + q + j)) : start<true>()).store(at + j);
        });
        results[made++] = i;
        if (made == kRows) finish();
      }
      finish();
      const int shift = run * step * pitch;
      for (int j = 0; j + shift < rows * pitch; j += kLanes)
        max(Vec::load(piece + j), Vec::load(piece + j + shift)).store(piece + j);
    }
  }
  return true;
}

// False: a window too wide for the buffer.
template <bool kMax>
SECATEUR_INLINE bool pool(const PoolArgs& a) {
  const int64_t reach = int64_t{a.dilation_w} * (a.kernel_w - 1) + 1, fits = (kBuffer - reach) / a.stride_w;
  if (fits < 1) return false;
  const bool doubled = kMax && a.stride_h == 1 && a.kernel_h > kDoubled;
  int strip = static_cast<int>(fits < kStrip ? fits : kStrip);
  // Narrow enough that a piece holds a few windows.
  while (doubled && strip > 4 * kLanes && (strip + reach) * 4 * a.dilation_h * a.kernel_h > kPiece) strip /= 2;
  Buffers buffers;
  for (float* row : {buffers.rows[0], buffers.rows[1], buffers.rows[2], buffers.rows[3]})
    for (int j = 0; j < kBuffer + kSlack; j += kLanes) Vec::zero().store(row + j);  // whole vectors read beyond a row
  if (!kMax)
    for (float& count : buffers.counts) count = 1.0f;
  for (int j = 0; j < a.out_w; j += strip) {
    const int n = a.out_w - j < strip ? a.out_w - j : strip;
    const Span s = span_of(a, j * a.stride_w - a.pad_left, (n - 1) * a.stride_w + static_cast<int>(reach));
    if (!kMax) count_columns(a, j, n, buffers.counts);
    for (int64_t p = 0; p < a.planes; ++p) {
      const float* x = a.x + p * a.in_h * a.in_w;
      float* y = a.y + p * a.out_h * a.out_w;
      if (!doubled || !strip_by_doubling(a, x, y, j, n, s, buffers)) strip_by_rows<kMax>(a, x, y, j, n, s, buffers);
    }
  }
  return true;
}

// As global_average_pool_ref(): 32 sums side by side, halved and halved again, whatever the vector.
SECATEUR_INLINE void global_average(const PoolArgs& a) {
  constexpr int kVectors = kGlobalSums / kLanes;
  const int n = a.in_h * a.in_w;
  for (int64_t p = 0; p < a.planes; ++p) {
    const float* x = a.x + p * n;
    Vec s[kVectors];
    SECATEUR_UNROLL
    for (int k = 0; k < kVectors; ++k) s[k] = Vec::zero();
    int i = 0;
    for (; i + kGlobalSums <= n; i += kGlobalSums) {
      SECATEUR_UNROLL
      for (int k = 0; k < kVectors; ++k) s[k] = s[k] + Vec::load(x + i + k * kLanes);
    }
    SECATEUR_UNROLL
    for (int k = 0; k < kVectors; ++k)
      if (i + k * kLanes < n) s[k] = s[k] + Vec::load_range(x + i + k * kLanes, 0, n - i - k * kLanes);
    SECATEUR_UNROLL
    for (int half = kVectors / 2; half > 0; half /= 2)
      for (int k = 0; k < half; ++k) s[k] = s[k] + s[k + half];
    a.y[p] = sum(s[0]) / static_cast<float>(n);
  }
}

void max_pool(const PoolArgs& a) {
  if (!pool<true>(a)) max_pool_ref(a);
}
void average_pool(const PoolArgs& a) {
  if (!pool<false>(a)) average_pool_ref(a);
}

}  // namespace

namespace SECATEUR_LEVEL {
extern const PoolKernels pool_row = {kIsa, max_pool, average_pool, global_average};
}
}  // namespace secateur
