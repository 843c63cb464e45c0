// The planes of a chunk: input words copied to where the taps find them. Part of generic.cc.
#pragma once

#include "kernels/qconv/panel.h"

namespace secateur {
namespace {

SECATEUR_INLINE const int32_t* words(const void* p) { return static_cast<const int32_t*>(p); }

// Rows [0, rows) of one column of vectors: those of [first, last) come from load(row), the others are zero points.
template <class Load>
SECATEUR_INLINE void fill_column(Q zero, int first, int last, int rows, int pitch, int32_t* to, Load load) {
  int r = 0;
  for (; r < first; ++r, to += pitch) zero.store(to);
  for (; r < last; ++r, to += pitch) load(r).store(to);
  for (; r < rows; ++r, to += pitch) zero.store(to);
}

// Several rows a vector and the image as wide as the plane: the rows of the plane are one run of the image's words, of
// which some columns, zeros of `inside`, are zero points. Row r of the plane is word at + r * pitch of x.
SECATEUR_INLINE void fill_narrow(Q zero, Q inside, const QPlane& p, int first, int last, int rows, int pitch,
                                 const int32_t* x, int64_t at, int32_t* to) {
  const int per = Q::kLanes / pitch;
  const auto edge = Q::mask(p.begin, p.end);
  for (int r = 0; r < rows; at += pitch, to += pitch, ++r) {
    // Whole vectors read up to a row beyond theirs: x may be over-read, but nothing lies before it.
    if (r >= first && r + per <= last && at >= 0) {
      pick(inside, Q::load(x + at), zero).store(to);
      const int more = per - 1;
      r += more, at += more * pitch, to += more * pitch;
    } else {
      (r >= first && r < last ? Q::load_or(zero, edge, x + at) : zero).store(to);
    }
  }
}

// For the tile whose first output row is row0.
inline void fill_panel(const QConvView& v, const QChunk& chunk, const uint8_t* x, int row0, int32_t* panel) {
  const Q zero = Q::set1(v.x_zero);
  constexpr int kLanes = Q::kLanes;
  for (int k = chunk.plane_begin; k < chunk.plane_end; ++k) {
    const QPlane& p = v.planes[k];
    int32_t* to = panel + p.offset;
    const int rows = v.tile_rows + p.extra, pitch = v.pitch;
    // Row r is row r * stride_h + top of the image, column j word j * stride_w + shift - pad of it.
    const int top = row0 * v.stride_h + p.row - v.pad_top;
    const auto reached = [&](int limit) {
      const int r = limit - top <= 0 ? 0 : (limit - top + v.stride_h - 1) / v.stride_h;
      return r < rows ? r : rows;
    };
    const bool any = p.begin < p.end;
    const int first = any ? reached(0) : rows, last = any ? reached(v.in_h) : rows;
    const int64_t step = int64_t{v.stride_h} * v.in_w;
    const int64_t at = p.quad * v.in_plane + int64_t{top} * v.in_w + p.shift - v.pad_left;
    const int32_t* line = words(x) + at;
    if (v.narrow) {
      fill_narrow(zero, Q::load(v.narrow + p.column * kLanes), p, first, last, rows, pitch, words(x), at, to);
    } else if (v.stride_w > 2) {
      for (int r = 0; r < rows; ++r, to += pitch, line += step)
        for (int j = 0; j < pitch; ++j)
          to[j] = r >= first && r < last && j >= p.begin && j < p.end ? line[int64_t{j} * v.stride_w] : v.x_zero;
    } else if (pitch <= kLanes || pitch % kLanes == 0) {
      for (int j = 0; j < pitch; j += kLanes, to += kLanes, line += int64_t{kLanes} * v.stride_w) {
        const int lo = p.begin - j < 0 ? 0 : p.begin - j, hi = p.end - j > kLanes ? kLanes : p.end - j;
        if (lo >= hi) {
          fill_column(zero, rows, rows, rows, pitch, to, [&](int) { return zero; });
        } else if (v.stride_w == 2 && hi - lo == kLanes && 2 * (j + kLanes) + p.shift - v.pad_left <= v.in_w) {
          fill_column(zero, first, last, rows, pitch, to, [&](int r) { return Q::load_even(line + r * step); });
        } else if (v.stride_w == 2) {
          const auto even = Q::even(lo, hi);
          fill_column(zero, first, last, rows, pitch, to,
                      [&](int r) { return Q::load_even_or(zero, even, line + r * step); });
        } else if (hi - lo == kLanes) {
          fill_column(zero, first, last, rows, pitch, to, [&](int r) { return Q::load(line + r * step); });
        } else {
          const auto mask = Q::mask(lo, hi);
          fill_column(zero, first, last, rows, pitch, to,
                      [&](int r) { return Q::load_or(zero, mask, line + r * step); });
        }
      }
    } else {
      // The end of a row's last vector belongs to the next row: rows in order. Of a row's vectors those of [from, end)
      // lie inside the image whole.
      const bool even = v.stride_w == 2;
      const int from = (p.begin + kLanes - 1) / kLanes * kLanes, end = p.end / kLanes * kLanes;
      const auto edge = [&](int at, int32_t* row, const int32_t* x_row) {
        const int lo = p.begin - at < 0 ? 0 : p.begin - at, hi = p.end - at > kLanes ? kLanes : p.end - at;
        if (lo >= hi) {
          zero.store(row + at);
        } else if (even) {
          Q::load_even_or(zero, Q::even(lo, hi), x_row + 2 * at).store(row + at);
        } else {
          Q::load_or(zero, Q::mask(lo, hi), x_row + at).store(row + at);
        }
      };
      for (int r = 0; r < rows; ++r, to += pitch, line += step) {
        if (r < first || r >= last) {
          for (int j = 0; j < pitch; j += kLanes) zero.store(to + j);
          continue;
        }
        int j = 0;
        for (; j < from && j < pitch; j += kLanes) edge(j, to, line);
        if (!even)
          for (; j < end; j += kLanes) Q::load(line + j).store(to + j);
        for (; j < pitch; j += kLanes) edge(j, to, line);
      }
    }
  }
}

}  // namespace
}  // namespace secateur
