// All weights, output channels in lanes: the rows of a register block are pixels, wherever they lie, so that maps whose
// rows are no whole vectors leave no lane empty. Included by generic.cc.
#pragma once

namespace secateur {
namespace {

constexpr int kGroupVectors = kWide ? kOutputVectors : kOutputVectorsSmall;
constexpr int kGroup = kGroupVectors * kLanes;

// R pixels, V vectors of output channels: `n` taps from `from` (sums of pixels `from_step` floats apart; 0 = the bias
// for all of them) into `to`.
template <int R, int V>
void outputs_block(const float* panel, const int32_t* pixels, const int32_t* tap, int n, const float* w,
                   const float* from, int from_step, float* to) {
  Vec sums[R][V];
  const float* x[R];
  SECATEUR_UNROLL
  for (int r = 0; r < R; ++r) {
    x[r] = panel + pixels[r];
    SECATEUR_UNROLL
    for (int p = 0; p < V; ++p) sums[r][p] = Vec::load(from + r * from_step + p * kLanes);
  }
  for (const int32_t* stop = tap + n; tap != stop; ++tap, w += V * kLanes) {
    const int64_t at = *tap;
    Vec ws[V];
    SECATEUR_UNROLL
    for (int p = 0; p < V; ++p) ws[p] = Vec::load(w + p * kLanes);
    SECATEUR_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vec xr = Vec::set1(x[r][at]);
      SECATEUR_UNROLL
      for (int p = 0; p < V; ++p) sums[r][p] = fma(ws[p], xr, sums[r][p]);
    }
  }
  SECATEUR_UNROLL
  for (int r = 0; r < R; ++r) {
    SECATEUR_UNROLL
    for (int p = 0; p < V; ++p) sums[r][p].store(to + (r * V + p) * kLanes);
  }
}

using OutputsFn = void (*)(const float*, const int32_t*, const int32_t*, int, const float*, const float*, int, float*);

#define SECATEUR_OUTPUTS(v)                                       \
  {outputs_block<1, v>, outputs_block<2, v>, outputs_block<3, v>, \
   outputs_block<4, v>, outputs_block<5, v>, outputs_block<6, v>}
constexpr OutputsFn kOutputs[][kOutputPixels] = {
    SECATEUR_OUTPUTS(1),
    SECATEUR_OUTPUTS(2),
#if defined(__AVX512F__)
    SECATEUR_OUTPUTS(3),
    SECATEUR_OUTPUTS(4),
#endif
};
#undef SECATEUR_OUTPUTS
static_assert(sizeof kOutputs / sizeof *kOutputs == kGroupVectors && kOutputPixels == 6);

// Rows to columns: every zip of the lower with the upper half turns the bits of an element's place by one.
SECATEUR_INLINE void turn(Vec* a) {
  SECATEUR_UNROLL
  for (int half = 1; half < kLanes; half *= 2) {
    Vec b[kLanes];
    SECATEUR_UNROLL
    for (int i = 0; i < kLanes / 2; ++i) zip(a[i], a[i + kLanes / 2], &b[2 * i], &b[2 * i + 1]);
    SECATEUR_UNROLL
    for (int i = 0; i < kLanes; ++i) a[i] = b[i];
  }
}

// Sums [pixel][width] of rows x cols pixels -> their 2x2 maxima, in place.
void pool_outputs(float* sums, int width, int rows, int cols) {
  float* to = sums;  // never ahead of what is read
  for (int i = 0; i + 1 < rows; i += 2)
    for (int j = 0; j + 1 < cols; j += 2) {
      const float* top = sums + (int64_t{i} * cols + j) * width;
      const float* below = top + int64_t{cols} * width;
      for (int k = 0; k < width; k += kLanes, to += kLanes)
        max(max(Vec::load(top + k), Vec::load(top + width + k)),
            max(Vec::load(below + k), Vec::load(below + width + k)))
            .store(to);
    }
}

// Sums [pixel][width] of n channels -> y, a vector of pixels at a time. What lies behind the last pixel is read, but
// not kept.
void store_outputs(const ConvView& v, const float* sums, int width, int pixels, int n, const float* residual,
                   float* y) {
  for (int o = 0; o < n; o += kLanes) {
    const int channels = n - o < kLanes ? n - o : kLanes;
    for (int p = 0; p < pixels; p += kLanes) {
      Vec a[kLanes];
      SECATEUR_UNROLL
      for (int i = 0; i < kLanes; ++i) a[i] = Vec::load(sums + int64_t{p + i} * width + o);
      turn(a);
      const int64_t at = o * v.out_plane + p;
      if (channels == kLanes && p + kLanes <= pixels) {
        SECATEUR_UNROLL
        for (int i = 0; i < kLanes; ++i) {
          if (residual) a[i] = a[i] + Vec::load(residual + at + i * v.out_plane);
          activate(a[i], v).store(y + at + i * v.out_plane);
        }
        continue;
      }
      float columns[kLanes * kLanes];
      SECATEUR_UNROLL
      for (int i = 0; i < kLanes; ++i) a[i].store(columns + i * kLanes);
      const int left = pixels - p < kLanes ? pixels - p : kLanes;
      for (int i = 0; i < channels; ++i) {
        Vec x = Vec::load(columns + i * kLanes);
        if (residual) x = x + Vec::load_range(residual + at + i * v.out_plane, 0, left);
        activate(x, v).store_first(y + at + i * v.out_plane, left);
      }
    }
  }
}

SECATEUR_INLINE void outputs_task(const ConvView& v, const ConvTask& t) {
  const int row0 = t.tile * v.tile_rows;
  const int rows = v.rows - row0 < v.tile_rows ? v.rows - row0 : v.tile_rows;
  const int pixels = rows * v.cols, blocks = (pixels + kOutputPixels - 1) / kOutputPixels;
  // All channels at once: what a group of outputs reads of them comes from the second cache, a few bytes a tap.
  fill_panel(v, *v.chunks, t.x, row0 * v.stride_h, (rows - 1) * v.stride_h + 1, t.scratch);
  const float* panel = v.in_place ? t.x + int64_t{row0} * v.stride_h * v.in_w : t.scratch;
  float* sums = t.scratch + v.partial_at;
  const int n_taps = v.chunks->tap_end, groups = (v.out_c + kGroup - 1) / kGroup;
  const int end = static_cast<int>(int64_t{groups} * t.part_end / v.n_parts);
  const int stored = v.pooled ? rows / 2 * (v.cols / 2) : pixels;
  const int64_t first = v.pooled ? int64_t{row0 / 2} * (v.cols / 2) : int64_t{row0} * v.cols;
  for (int group = static_cast<int>(int64_t{groups} * t.part_begin / v.n_parts); group < end; ++group) {
    const int out = group * kGroup, n = v.out_c - out < kGroup ? v.out_c - out : kGroup;
    const int vectors = (n + kLanes - 1) / kLanes, width = vectors * kLanes;
    const float* w = v.weights + int64_t{out} * n_taps;
    // As many taps as keep their weights in the first cache for all pixels.
    for (int tap = 0; tap < n_taps; tap += v.chunk_taps) {
      const int taps = n_taps - tap < v.chunk_taps ? n_taps - tap : v.chunk_taps;
      const int64_t floats = int64_t{taps} * width, share = (floats / blocks + 15) / 16 * 16;
      for (int b = 0, from = 0; b < blocks; ++b) {
        const int n_pixels = pixels / blocks + (b < pixels % blocks);
        // The next weights come to the second cache while these are used.
        for (int64_t i = b * share, stop = i + share; i < stop; i += 16) __builtin_prefetch(w + floats + i, 0, 2);
        float* at = sums + int64_t{from} * width;
        kOutputs[vectors - 1][n_pixels - 1](panel, v.pixels + from, v.taps + tap, taps, w, tap ? at : v.bias + out,
                                            tap ? width : 0, at);
        from += n_pixels;
      }
      w += floats;
    }
    if (v.pooled) pool_outputs(sums, width, rows, v.cols);
    const int64_t plane = out * v.out_plane + first;
    store_outputs(v, sums, width, stored, n, t.residual ? t.residual + plane : nullptr, t.y + plane);
  }
}

}  // namespace
}  // namespace secateur
