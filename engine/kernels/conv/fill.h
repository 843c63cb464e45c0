// Copying what a task needs of the input into its panel. Included by generic.cc.
#pragma once

namespace secateur {
namespace {

// One plane: `rows` rows from input row `r` on. N whole vectors a row, then half a vector where the ISA has halves and
// a row needs no more. Masks are made once: they are most of the work of a short row. Whole vectors are written: what
// spills over a row is overwritten by the next one, what spills over the last plane lies in the panel's slack.
template <int N, bool kHalf, int kStep>
void fill_plane(const ConvView& v, const ConvPlane& plane, const float* image, int r, int rows, float* to) {
  typename Vec::Mask masks[N + 1][2];
  typename Half::Mask half[2];
  SECATEUR_UNROLL
  for (int n = 0; n <= N; ++n) {
    const int lo = kStep * (plane.begin - n * kLanes), hi = kStep * (plane.end - n * kLanes) - (kStep - 1);
    if (n < N) {
      masks[n][0] = Vec::mask(lo, hi);
      masks[n][1] = Vec::mask(lo - kLanes, hi - kLanes);
    } else {
      half[0] = Half::mask(lo, hi);
      half[1] = Half::mask(lo - kLanes / 2, hi - kLanes / 2);
    }
  }
  const int64_t next = int64_t{v.step_h} * v.in_w;
  // Rows above the image, inside, below: three loops, so that the one that matters has no test in it.
  int above = r >= 0 ? 0 : (-r + v.step_h - 1) / v.step_h;
  if (above > rows) above = rows;
  r += above * v.step_h;
  int inside = r >= v.in_h ? 0 : (v.in_h - r + v.step_h - 1) / v.step_h;
  if (inside > rows - above) inside = rows - above;
  const int below = rows - above - inside;
  const auto clear = [&](int n) {
    for (; n > 0; --n, to += v.pitch) {
      SECATEUR_UNROLL
      for (int i = 0; i < N; ++i) Vec::zero().store(to + i * kLanes);
      if (kHalf) Half::zero().store(to + N * kLanes);
    }
  };
  clear(above);
  const float* from = image + plane.shift - v.pad_left + int64_t{r} * v.in_w;
  const int64_t pitch = v.pitch;
  for (; inside > 0; --inside, from += next, to += pitch) {
    SECATEUR_UNROLL
    for (int n = 0; n < N; ++n) {
      Vec x = Vec::load_masked(from + kStep * n * kLanes, masks[n][0]);
      if (kStep == 2) x = even(x, Vec::load_masked(from + (kStep * n + 1) * kLanes, masks[n][1]));
      x.store(to + n * kLanes);
    }
    if (kHalf) {
      Half x = Half::load_masked(from + kStep * N * kLanes, half[0]);
      if (kStep == 2) x = even(x, Half::load_masked(from + kStep * N * kLanes + kLanes / 2, half[1]));
      x.store(to + N * kLanes);
    }
  }
  clear(below);
}

// Strides of three and more.
void fill_plane_any(const ConvView& v, const ConvPlane& plane, const float* image, int r, int rows, float* to) {
  for (; rows > 0; --rows, r += v.step_h, to += v.pitch) {
    const float* from = image + plane.shift - v.pad_left + int64_t{r} * v.in_w;
    const bool inside = r >= 0 && r < v.in_h;
    const int begin = inside ? plane.begin : 0, end = inside ? plane.end : 0;
    for (int j = 0; j < v.pitch; ++j) to[j] = begin <= j && j < end ? from[j * v.step_w] : 0.0f;
  }
}

// Long rows, strides 1 and 2: only what crosses the image's ends asks which lanes lie inside.
template <int kStep>
void fill_plane_long(const ConvView& v, const ConvPlane& plane, const float* image, int r, int rows, float* to) {
  const int vectors = (v.pitch + kLanes - 1) / kLanes;
  // Under stride 2 a vector reads one float beyond its last: whole is what another column follows.
  const int first = (plane.begin + kLanes - 1) / kLanes, end = (plane.end - (kStep - 1)) / kLanes;
  const auto edge = [&](const float* from, int n) {
    const int lo = kStep * (plane.begin - n * kLanes), hi = kStep * (plane.end - n * kLanes) - (kStep - 1);
    const Vec x = Vec::load_range(from + kStep * n * kLanes, lo, hi);
    if (kStep == 1) return x;
    return even(x, Vec::load_range(from + (kStep * n + 1) * kLanes, lo - kLanes, hi - kLanes));
  };
  for (; rows > 0; --rows, r += v.step_h, to += v.pitch) {
    int n = 0;
    if (r >= 0 && r < v.in_h) {
      const float* from = image + plane.shift - v.pad_left + int64_t{r} * v.in_w;
      for (; n < first && n < vectors; ++n) edge(from, n).store(to + n * kLanes);
      for (; n < end; ++n) {
        Vec x = Vec::load(from + kStep * n * kLanes);
        if (kStep == 2) x = even(x, Vec::load(from + (kStep * n + 1) * kLanes));
        x.store(to + n * kLanes);
      }
      for (; n < vectors; ++n) edge(from, n).store(to + n * kLanes);
    }
    for (; n < vectors; ++n) Vec::zero().store(to + n * kLanes);
  }
}

using FillFn = void (*)(const ConvView&, const ConvPlane&, const float*, int, int, float*);

template <int kStep>
FillFn fill_function(int pitch) {
  const bool half = kHasHalf && pitch % kLanes != 0 && pitch % kLanes <= kLanes / 2;
  const int n = half ? pitch / kLanes : (pitch + kLanes - 1) / kLanes;
  constexpr FillFn whole[] = {nullptr, fill_plane<1, false, kStep>, fill_plane<2, false, kStep>,
                              fill_plane<3, false, kStep>, fill_plane<4, false, kStep>};
  constexpr FillFn halved[] = {fill_plane<0, kHasHalf, kStep>, fill_plane<1, kHasHalf, kStep>,
                               fill_plane<2, kHasHalf, kStep>, fill_plane<3, kHasHalf, kStep>,
                               fill_plane<4, kHasHalf, kStep>};
  if (n > 4) return fill_plane_long<kStep>;
  return half ? halved[n] : whole[n];
}

// The three planes of a kernel three columns wide with one column of padding, columns of the image alone in a row: each
// row is read once and its neighbours come from registers. Three planes from `plane` on, `apart` floats apart.
template <int N, bool kHalf>
void fill_three(const ConvView& v, const ConvPlane& plane, const float* image, int r, int rows, float* to,
                int64_t apart) {
  constexpr int kRead = kHalf ? N + 1 : N;
  typename Vec::Mask masks[kRead];
  SECATEUR_UNROLL
  for (int n = 0; n < kRead; ++n) masks[n] = Vec::mask(0, v.in_w - n * kLanes);
  const float* from = image + int64_t{r} * v.in_w;
  for (; rows > 0; --rows, ++r, from += v.in_w, to += v.pitch) {
    Vec x[kRead + 2];  // a vector of zeros on either side
    const bool inside = r >= 0 && r < v.in_h;
    x[0] = x[kRead + 1] = Vec::zero();
    SECATEUR_UNROLL
    for (int n = 0; n < kRead; ++n) x[n + 1] = inside ? Vec::load_masked(from + n * kLanes, masks[n]) : Vec::zero();
    SECATEUR_UNROLL
    for (int n = 0; n < kRead; ++n) {
      const Vec left = shift_up(x[n], x[n + 1]), right = shift_down(x[n + 1], x[n + 2]);
      float* at = to + n * kLanes;
      if (n < N) {
        left.store(at);
        x[n + 1].store(at + apart);
        right.store(at + 2 * apart);
      } else {
        Half::low(left).store(at);
        Half::low(x[n + 1]).store(at + apart);
        Half::low(right).store(at + 2 * apart);
      }
    }
  }
}

// The same for rows of any number of whole vectors.
void fill_three_long(const ConvView& v, const ConvPlane& plane, const float* image, int r, int rows, float* to,
                     int64_t apart) {
  const int vectors = v.pitch / kLanes, whole = v.in_w / kLanes;
  for (; rows > 0; --rows, ++r, to += v.pitch) {
    const float* from = image + int64_t{r} * v.in_w;
    float* at = to;
    if (r < 0 || r >= v.in_h) {
      for (int n = 0; n < vectors; ++n, at += kLanes)
        for (int k = 0; k < 3; ++k) Vec::zero().store(at + k * apart);
      continue;
    }
    const auto load = [&](int n) {
      return n < whole ? Vec::load(from + n * kLanes) : Vec::load_range(from + n * kLanes, 0, v.in_w - n * kLanes);
    };
    Vec before = Vec::zero(), x = load(0);
    for (int n = 0; n < vectors; ++n, at += kLanes) {
      const Vec after = load(n + 1);
      shift_up(before, x).store(at);
      x.store(at + apart);
      shift_down(x, after).store(at + 2 * apart);
      before = x;
      x = after;
    }
  }
}

using FillThreeFn = void (*)(const ConvView&, const ConvPlane&, const float*, int, int, float*, int64_t);

// Null where vectors would spill over a row's end into the next plane.
FillThreeFn fill_three_function(int pitch) {
  const bool half = kHasHalf && pitch % kLanes != 0 && pitch % kLanes <= kLanes / 2;
  const int n = half ? pitch / kLanes : (pitch + kLanes - 1) / kLanes;
  constexpr FillThreeFn whole[] = {nullptr, fill_three<1, false>, fill_three<2, false>, fill_three<3, false>,
                                   fill_three<4, false>};
  constexpr FillThreeFn halved[] = {fill_three<0, kHasHalf>, fill_three<1, kHasHalf>, fill_three<2, kHasHalf>,
                                    fill_three<3, kHasHalf>, fill_three<4, kHasHalf>};
  if (n > 4 && pitch % kLanes == 0) return fill_three_long;
  if (n > 4 || pitch % (kHasHalf ? kLanes / 2 : kLanes) != 0) return nullptr;
  return half ? halved[n] : whole[n];
}

void fill_taps(const ConvView& v, const ConvChunk& chunk, const float* x, float* panel) {
  for (int i = chunk.plane_begin; i < chunk.plane_end; ++i) {
    const ConvTap& tap = v.tap_planes[i];
    const float* from = x + tap.channel * v.in_plane + tap.from;
    for (int p = 0; p < v.tap_vectors; ++p)
      Vec::load_bits(from + p * kLanes, v.tap_masks[tap.mask + p]).store(panel + tap.offset + p * kLanes);
  }
}

void fill_panel(const ConvView& v, const ConvChunk& chunk, const float* x, int row0, int rows, float* panel) {
  if (v.in_place) return;
  if (v.tap_vectors) return fill_taps(v, chunk, x, panel);
  const FillThreeFn three = v.three ? fill_three_function(v.pitch) : nullptr;
  const FillFn fill = v.step_w == 1   ? fill_function<1>(v.pitch)
                      : v.step_w == 2 ? fill_function<2>(v.pitch)
                                      : fill_plane_any;
  for (int i = chunk.plane_begin; i < chunk.plane_end; ++i) {
    const ConvPlane& plane = v.planes[i];
    if (three && plane.shift == 0 && i + 2 < chunk.plane_end && v.planes[i + 2].channel == plane.channel) {
      three(v, plane, x + plane.channel * v.in_plane, row0 - v.pad_top, rows + plane.extra, panel + plane.offset,
            v.planes[i + 1].offset - plane.offset);
      i += 2;
      continue;
    }
    fill(v, plane, x + plane.channel * v.in_plane, row0 * v.step_h + plane.phase - v.pad_top, rows + plane.extra,
         panel + plane.offset);
  }
}

}  // namespace
}  // namespace secateur
