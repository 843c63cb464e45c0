// What sums become: partial sums in scratch, or output with residual, activation and pool. Included by generic.cc.
#pragma once

namespace secateur {
namespace {

// The flat run is contiguous in y: pitch == cols and nothing is pooled afterwards.
template <int P>
SECATEUR_INLINE void store_flat(const ConvView& v, Vec* sums, const float* residual, float* y, int n) {
  if (n == P * kLanes) {
    // Most blocks. What is read of v is read before anything is written, or the compiler would read it again.
    const Vec lo = Vec::set1(v.lo), hi = Vec::set1(v.hi);
    if (residual) {
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[p] = sums[p] + Vec::load(residual + p * kLanes);
    }
    if (v.slope != 1.0f) {
      const Vec slope = Vec::set1(v.slope);
      SECATEUR_UNROLL
      for (int p = 0; p < P; ++p) sums[p] = max(sums[p], Vec::zero()) + min(sums[p], Vec::zero()) * slope;
    }
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) min(hi, max(lo, sums[p])).store(y + p * kLanes);
    return;
  }
  const int full = n / kLanes;
  SECATEUR_UNROLL
  for (int p = 0; p < P; ++p) {
    const int left = p < full ? kLanes : n - p * kLanes;
    if (left <= 0) continue;
    if (residual) sums[p] = sums[p] + Vec::load_range(residual + p * kLanes, 0, left);
    const Vec x = activate(sums[p], v);
    if (p < full) {
      x.store(y + p * kLanes);
    } else {
      x.store_first(y + p * kLanes, left);
    }
  }
}

// n floats of the flat run from `at` lie in buffer: activates them and drops the columns between cols and pitch.
// y and residual point at the tile's first row. What follows a row is written after it, so a row's last vector may run
// into it, but not out of the tile's `end` floats, where another thread writes, nor over a residual that may be y.
void store_rows(const ConvView& v, const float* buffer, const float* residual, float* y, int at, int n, int64_t end) {
  int row = at / v.pitch, col = at % v.pitch;
  while (n > 0) {
    const int run = v.pitch - col < n ? v.pitch - col : n;
    const int keep = v.cols - col < run ? v.cols - col : run;
    const int64_t to = int64_t{row} * v.cols + col;
    for (int j = 0; j < keep; j += kLanes) {
      const int left = keep - j < kLanes ? keep - j : kLanes;
      Vec x = Vec::load(buffer + j);
      if (residual) x = x + Vec::load_range(residual + to + j, 0, left);
      x = activate(x, v);
      if (left == kLanes || (!residual && to + j + kLanes <= end)) {
        x.store(y + to + j);
      } else {
        x.store_first(y + to + j, left);
      }
    }
    buffer += run;
    n -= run;
    ++row;
    col = 0;
  }
}

// A whole image lies in buffer: pools and activates it.
void store_pooled(const ConvView& v, float* buffer, float* y) {
  const int rows = v.rows / 2, cols = v.cols / 2;
  float* to = buffer;  // never ahead of what is read
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < cols; ++j) {
      const float* a = buffer + 2 * i * v.pitch + 2 * j;
      const float* c = a + v.pitch;
      const float top = a[0] > a[1] ? a[0] : a[1], bottom = c[0] > c[1] ? c[0] : c[1];
      *to++ = top > bottom ? top : bottom;
    }
  const int n = rows * cols;
  for (int j = 0; j < n; j += kLanes)
    activate(Vec::load(buffer + j), v).store_first(y + j, n - j < kLanes ? n - j : kLanes);
}

// What a block of sums becomes: partial sums, or output.
struct Block {
  const float* panel;  // start of the block in the panel's first plane
  float* partial;      // of output channel 0, at the block
  float* buffer;
  const float* residual;  // of output channel 0, at the tile's first row; or null
  float* y;
  int at, n;     // first float of the block in the tile's flat run, valid floats
  int64_t tile;  // floats of the tile in a channel of y
};

// Asks for what a channel's block will add: channels lie too far apart for the processor to see it coming.
template <int P>
SECATEUR_INLINE void expect_residual(const ConvView& v, const Block& b, int out) {
  if (!b.residual) return;
  const float* from = b.residual + out * v.out_plane + (v.pitch == v.cols ? b.at : int64_t{b.at} / v.pitch * v.cols);
  SECATEUR_UNROLL
  for (int p = 0; p < P; p += 16 / kLanes) __builtin_prefetch(from + p * kLanes);
}

// Four vectors of the flat run -> one of pooled pixels.
SECATEUR_INLINE Vec fold_rows(int fold, Vec a, Vec b, Vec c, Vec d) {
  Vec p, q;
  if (fold == 1) {
    Vec lo, hi;
    halves(a, b, &lo, &hi);
    p = max(lo, hi);
    halves(c, d, &lo, &hi);
    q = max(lo, hi);
  } else if (fold == 2) {
    p = max(a, b);
    q = max(c, d);
  } else {
    p = max(a, c);
    q = max(b, d);
  }
  return max(even(p, q), odd(p, q));
}

template <int P>
SECATEUR_INLINE void finish(const ConvView& v, const Block& b, int out, bool last, Vec* sums) {
  if (!last) {
    float* to = b.partial + out * v.tile_floats;
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[p].store(to + p * kLanes);
    return;
  }
  const int64_t plane = out * v.out_plane;
  const float* residual = b.residual ? b.residual + plane : nullptr;
  if (v.fold == 4) {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[p].store(b.buffer + p * kLanes);
    return store_pooled(v, b.buffer, b.y + plane);
  }
  if constexpr (P % 4 == 0) {
    if (v.fold) {
      float* y = b.y + plane + b.at / 4;
      SECATEUR_UNROLL
      for (int p = 0; p < P; p += 4)
        activate(fold_rows(v.fold, sums[p], sums[p + 1], sums[p + 2], sums[p + 3]), v).store(y + p / 4 * kLanes);
      return;
    }
  }
  if (v.pitch == v.cols) {
    store_flat<P>(v, sums, residual ? residual + b.at : nullptr, b.y + plane + b.at, b.n);
  } else {
    SECATEUR_UNROLL
    for (int p = 0; p < P; ++p) sums[p].store(b.buffer + p * kLanes);
    store_rows(v, b.buffer, residual, b.y + plane, b.at, b.n, b.tile);
  }
}

}  // namespace
}  // namespace secateur
