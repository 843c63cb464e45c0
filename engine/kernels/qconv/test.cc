// Every int8 kernel x shape x density x ISA against the reference, bit for bit; the reference against hand-made
// numbers.
#include <array>
#include <cmath>

#include "base/arena.h"
#include "kernels/qconv/panel.h"
#include "kernels/qconv/tiling.h"
#include "kernels/testing.h"

using namespace secateur;

#if defined(SECATEUR_HAVE_STAND_IN)
namespace secateur::standin {
void sparse_task(const QConvView&, const QConvTask&);
void quad_task(const QConvView&, const QConvTask&);
void depthwise_task(const QConvView&, const QConvTask&);
void row_task(const QConvView&, const QConvTask&);
void dense_task(const QConvView&, const QConvTask&);
}  // namespace secateur::standin
#endif

namespace {

int64_t n_checks = 0;

// The table's kernels that this machine can run; those of AVX-VNNI with the instruction written out where it lacks it.
const std::vector<QConvKernel>& runnable() {
  static const std::vector<QConvKernel> all = [] {
    std::vector<QConvKernel> found;
    for (QConvKernel k : qconv_kernels()) {
#if defined(SECATEUR_HAVE_STAND_IN)
      if (k.isa == Isa::kAvxVnni && isa_available(Isa::kAvx2) && !isa_available(k.isa)) {
        k.task = k.family == QConvFamily::kSparse      ? standin::sparse_task
                 : k.family == QConvFamily::kQuads     ? standin::quad_task
                 : k.family == QConvFamily::kDepthwise ? standin::depthwise_task
                 : k.family == QConvFamily::kRow       ? standin::row_task
                                                       : standin::dense_task;
        found.push_back(k);
      }
#endif
      if (isa_available(k.isa)) found.push_back(k);
    }
    return found;
  }();
  return all;
}

struct Case {
  ConvShape s;
  QEpilogue e;
  double density;  // of 1x4 blocks; negative: exactly one nonzero weight
  int blocks;      // 0: single weights, 1: whole 1x4 blocks, 4: whole 4x4 blocks
  int batch;
  bool wide = false;  // weights of u8 with zero points
};

// `n` bytes between guards of a pattern.
class Bytes {
 public:
  explicit Bytes(int64_t n) : n_(n), buffer_(static_cast<size_t>(n) + 256) {
    for (size_t i = 0; i < buffer_.size(); ++i) buffer_.data()[i] = pattern(i);
  }
  uint8_t* data() { return buffer_.data() + 128; }
  bool intact() {
    for (int64_t i = 0; i < 128; ++i)
      if (buffer_.data()[i] != pattern(size_t(i)) ||
          buffer_.data()[size_t(n_ + 128 + i)] != pattern(size_t(n_ + 128 + i)))
        return false;
    return true;
  }
  int64_t size() const { return n_; }

 private:
  static uint8_t pattern(size_t i) { return static_cast<uint8_t>(0xa5 ^ i); }
  int64_t n_;
  Buffer buffer_;
};

std::vector<int16_t> weights(const Case& c, testing::Random& rng) {
  const ConvShape& s = c.s;
  const int per = s.in_c / s.groups, taps = s.kernel_h * s.kernel_w;
  std::vector<int16_t> w(size_t(s.weight_count()), 0);
  const auto draw = [&] { return static_cast<int16_t>(c.wide ? rng.below(511) - 255 : rng.below(255) - 127); };
  if (c.density < 0) {
    w[size_t(rng.below(int(w.size())))] = -77;
    return w;
  }
  for (int o = 0; o < s.out_c; ++o)
    for (int q = 0; q < per; q += 4)
      for (int t = 0; t < taps; ++t) {
        if (c.blocks == 4 && o % 4 != 0) {
          for (int k = q; k < std::min(q + 4, per); ++k) {
            const size_t above = (size_t(o - 1) * per + k) * taps + t, here = (size_t(o) * per + k) * taps + t;
            if (w[above] != 0) w[here] = draw();
          }
          continue;
        }
        if (c.blocks && !(rng.unit() < c.density)) continue;
        for (int k = q; k < std::min(q + 4, per); ++k)
          if (c.blocks || rng.unit() < c.density) w[(size_t(o) * per + k) * taps + t] = draw();
      }
  return w;
}

void run_case(const Case& c, testing::Random& rng) {
  const ConvShape& s = c.s;
  const auto wide = weights(c, rng);
  const std::vector<int8_t> w(wide.begin(), wide.end());
  std::vector<int32_t> bias(s.out_c);
  std::vector<float> scale(s.out_c);
  for (int o = 0; o < s.out_c; ++o) {
    bias[o] = rng.below(20001) - 10000;
    scale[o] = 0.0005f + float(rng.unit()) * 0.01f;
    // Sums that fall on ties: halves are exact in binary.
    if (rng.below(4) == 0) scale[o] = 0.5f;
  }
  std::vector<float> offset(s.out_c);
  for (float& v : offset) v = float(rng.unit()) - 0.5f;
  const QWeights qw{w.data(),      bias.data(),
                    scale.data(),  c.e.dynamic ? uint8_t{0} : static_cast<uint8_t>(rng.below(256)),
                    offset.data(), c.wide ? wide.data() : nullptr};
  const auto x_zero = static_cast<uint8_t>(rng.below(256));
  Buffer x(size_t(c.batch * quads(s.in_c) * 4) * s.in_h * s.in_w);
  for (size_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<uint8_t>(rng.below(256));
  const int64_t pixels = int64_t{s.conv_h()} * s.conv_w();
  const int64_t bytes =
      c.e.output == QOutput::kU8 ? c.batch * quads(s.out_c) * 4 * pixels : int64_t{c.batch} * s.out_c * pixels * 4;
  Buffer residual{size_t(bytes)};
  for (size_t i = 0; i < residual.size(); ++i) residual.data()[i] = static_cast<uint8_t>(rng.below(256));
  const auto compute = [&](const QConvKernel& k, Threads* threads, const Tile& tile) {
    const auto p = k.pack(k, s, c.e, qw, tile);
    Bytes y(bytes);
    Bytes scratch(int64_t(p->scratch_bytes(threads ? threads->size() : 1)));
    QConvArgs args;
    args.x = x.data();
    args.y = y.data();
    args.residual = residual.data();
    args.batch = c.batch;
    args.scratch = scratch.data();
    args.threads = threads;
    args.x_zero = x_zero;
    args.x_scale = 0.37f;
    k.run(*p, args);
    ++n_checks;
    testing::check(y.intact() && scratch.intact(), std::string(k.name) + " writes outside");
    return std::vector<uint8_t>(y.data(), y.data() + bytes);
  };
  const auto want = compute(*find_qconv_kernel(Isa::kRef, QConvFamily::kReference), nullptr, {});
  const QDensity d = measure_density(s, c.e, qw);
  testing::check(d.nnz <= 4 * d.filled && d.filled <= (d.wide ? 3 : 1) * d.blocks &&
                     (s.groups > 1 || (d.filled <= 4 * d.filled_quads && d.filled_quads <= d.filled)),
                 "density");
  if (!d.bounded) {
    testing::check(qconv_candidates(Isa::kVnni, s, c.e, d)[0].kernel->isa == Isa::kRef,
                   "unbounded sums go to the reference");
    return;
  }
  static Threads pool(3);
  for (const QConvKernel& k : runnable()) {
    if (k.family == QConvFamily::kReference || !k.supports(s, c.e)) continue;
    if (d.wide && k.family == QConvFamily::kDense && k.weight_words == 1) continue;
    // Any of the better ways to cut the layer, not only the one the cost model likes best.
    const auto ways = qconv_tilings(k, s, c.e, d, 40);
    const Tile tile = tile_of(ways[rng.below(static_cast<int>(ways.size()))]);
    testing::check(tile_of(plan_qconv(k, s, c.e, d, tile)) == tile, "a tile names its tiling");
    for (Threads* threads : {static_cast<Threads*>(nullptr), &pool}) {
      const auto got = compute(k, threads, tile);
      int64_t wrong = 0, first = -1;
      for (int64_t i = 0; i < bytes; ++i)
        if (got[size_t(i)] != want[size_t(i)]) {
          if (first < 0) first = i;
          ++wrong;
        }
      char text[240];
      std::snprintf(
          text, sizeof text,
          "%s %dx%dx%d -> %d k%dx%d s%d p%d d%d g%d batch %d density %g: %lld of %lld bytes differ, first %lld", k.name,
          s.in_c, s.in_h, s.in_w, s.out_c, s.kernel_h, s.kernel_w, s.stride_h, s.pad_top, s.dilation_h, s.groups,
          c.batch, c.density, static_cast<long long>(wrong), static_cast<long long>(bytes),
          static_cast<long long>(first));
      testing::check(wrong == 0, text);
    }
  }
}

ConvShape shape(int in_c, int h, int w, int out_c, int kernel, int stride, int pad, int dilation = 1, int groups = 1) {
  ConvShape s;
  s.in_c = in_c, s.in_h = h, s.in_w = w, s.out_c = out_c;
  s.kernel_h = s.kernel_w = kernel;
  s.stride_h = s.stride_w = stride;
  s.pad_top = s.pad_left = s.pad_bottom = s.pad_right = pad;
  s.dilation_h = s.dilation_w = dilation;
  s.groups = groups;
  return s;
}

// y = round(sum * 0.5) + 10 of one weight: ties to even, both bounds.
void hand_made() {
  const ConvShape s = shape(1, 1, 6, 1, 1, 1, 0);
  const int8_t w = 1;
  const int32_t bias = 0;
  const float scale = 0.5f;
  QEpilogue e;
  e.zero = 10;
  e.lo = 9;
  e.hi = 12;
  const uint8_t x[] = {3, 5, 6, 7, 8, 255};         // minus 4: -1 1 2 3 4 251
  const uint8_t want[] = {10, 10, 11, 12, 12, 12};  // -0.5 -> 0, 0.5 -> 0, 1, 1.5 -> 2, 2, bound
  Buffer in(24), y(24);
  for (int i = 0; i < 24; ++i) in.data()[i] = i % 4 ? 99 : x[i / 4];
  const auto* ref = find_qconv_kernel(Isa::kRef, QConvFamily::kReference);
  const auto p = ref->pack(*ref, s, e, {&w, &bias, &scale, 4}, {});
  QConvArgs args;
  args.x = in.data();
  args.y = y.data();
  ref->run(*p, args);
  for (int i = 0; i < 6; ++i) {
    testing::check(y.data()[4 * i] == want[i], "hand-made pixel " + std::to_string(i));
    testing::check(y.data()[4 * i + 1] == 10, "channels beyond the last hold the zero point");
  }
  // GELU of -4, ..., 4 in thirty-seconds: the nearest step but for the last bits of a float.
  {
    const ConvShape line = shape(1, 1, 256, 1, 1, 1, 0);
    const float step = 1.0f / 32, shift = 0.01f;
    QEpilogue g;
    g.gelu = true;
    g.inverse = 60.0f;
    g.zero = 11;
    const auto packed = ref->pack(*ref, line, g, {&w, &bias, &step, 128, &shift}, {});
    Buffer pixels(1024), result(1024);
    for (int i = 0; i < 256; ++i) pixels.data()[4 * i] = static_cast<uint8_t>(i);
    args.x = pixels.data();
    args.y = result.data();
    ref->run(*packed, args);
    for (int i = 0; i < 256; ++i) {
      const double v = double(float(i - 128) * step + shift), y = 60 * v * 0.5 * std::erfc(-v / std::sqrt(2.0)) + 11;
      testing::check(std::abs(result.data()[4 * i] - y) < 0.5 + 1e-4, "GELU of " + std::to_string(v));
    }
    args.x = in.data();
    args.y = y.data();
  }
  // Sums that leave int32 when scaled saturate in the reference.
  const float wild = 1e9f;
  const auto q = ref->pack(*ref, s, e, {&w, &bias, &wild, 4}, {});
  ref->run(*q, args);
  testing::check(y.data()[0] == 9 && y.data()[20] == 12, "wild scale");
  testing::check(!measure_density(s, e, {&w, &bias, &wild, 4}).bounded, "wild scales are seen");
}

}  // namespace

int main() {
  hand_made();
  testing::Random rng(7);
  const ConvShape shapes[] = {
      shape(1, 1, 1, 1, 1, 1, 0),         shape(4, 1, 16, 4, 1, 1, 0),         shape(8, 4, 4, 8, 1, 1, 0),
      shape(7, 7, 7, 5, 1, 1, 0),         shape(16, 8, 8, 12, 1, 1, 0),        shape(64, 16, 16, 9, 1, 1, 0),
      shape(20, 14, 14, 8, 1, 1, 0),      shape(12, 9, 11, 8, 1, 2, 0),        shape(3, 12, 12, 6, 3, 1, 1),
      shape(8, 32, 32, 5, 3, 1, 1),       shape(8, 7, 7, 8, 3, 1, 1),          shape(16, 14, 14, 8, 3, 1, 1),
      shape(8, 2, 2, 8, 3, 1, 1),         shape(4, 4, 4, 9, 3, 1, 1),          shape(8, 15, 17, 4, 3, 2, 1),
      shape(8, 16, 16, 4, 3, 2, 1),       shape(6, 9, 9, 7, 3, 3, 1),          shape(3, 40, 40, 8, 7, 2, 3),
      shape(3, 20, 33, 4, 5, 1, 2),       shape(4, 13, 18, 4, 3, 1, 2, 2),     shape(4, 19, 19, 4, 4, 3, 2, 2),
      shape(8, 10, 10, 8, 3, 1, 1, 1, 2), shape(12, 9, 9, 12, 3, 1, 1, 1, 12), shape(6, 8, 8, 9, 3, 2, 1, 1, 3),
      shape(5, 1, 1, 33, 1, 1, 0),        shape(70, 1, 1, 130, 1, 1, 0),       shape(130, 1, 3, 17, 1, 1, 0),
      shape(96, 7, 7, 16, 3, 1, 1),       shape(4, 5, 5, 4, 2, 4, 0),          shape(4, 6, 6, 4, 3, 2, 1, 2),
      shape(9, 14, 14, 9, 3, 1, 1, 1, 9), shape(8, 17, 35, 8, 3, 2, 1, 1, 8),  shape(6, 6, 19, 6, 5, 1, 2, 1, 6),
      shape(5, 13, 33, 5, 5, 2, 2, 1, 5), shape(4, 5, 4, 4, 7, 1, 3, 1, 4)};
  for (const ConvShape& base : shapes) {
    for (double density : {0.0, -1.0, 0.1, 0.4, 1.0}) {
      for (int kind = 0; kind < 8; ++kind) {
        QEpilogue e;
        e.zero = static_cast<uint8_t>(rng.below(256));
        if (kind == 1) e.lo = e.zero, e.hi = static_cast<uint8_t>(e.zero + (255 - e.zero) / 2);
        if (kind == 2) {
          e.residual = true;
          e.lo = static_cast<uint8_t>(e.zero / 2);
          e.a = 0.7f, e.b = 0.5f;
          e.r_zero = 100, e.sum_zero = 3, e.sum_lo = 3, e.sum_hi = 200;
        }
        const QOutput plain[] = {QOutput::kI32, QOutput::kI32Rows, QOutput::kF32Rows, QOutput::kF32};
        if (kind == 7) {
          e.gelu = true;
          e.inverse = 20.0f;
        } else if (kind >= 3) {
          e.output = plain[kind - 3];
          e.dynamic = rng.below(2) == 0;
        }
        run_case({base, e, density, std::array{0, 1, 4}[size_t(rng.below(3))], 1 + rng.below(2), rng.below(3) == 0},
                 rng);
      }
    }
  }
  // Layers large enough for several tiles and chunks.
  QEpilogue e;
  e.zero = 7;
  run_case({shape(128, 28, 28, 32, 3, 1, 1), e, 0.1, 1, 1}, rng);
  run_case({shape(128, 28, 28, 30, 3, 1, 1), e, 0.1, 4, 1}, rng);
  run_case({shape(512, 7, 7, 24, 3, 1, 1), e, 0.2, 1, 1}, rng);
  run_case({shape(512, 7, 7, 24, 3, 1, 1), e, 1.0, 1, 1, true}, rng);
  run_case({shape(1024, 14, 14, 12, 1, 1, 0), e, 0.1, 0, 1}, rng);
  run_case({shape(32, 56, 56, 20, 3, 1, 1), e, 1.0, 1, 1}, rng);
  // So many channels that no tile's planes keep to the second cache.
  run_case({shape(10240, 7, 70, 10240, 7, 1, 0, 1, 10240), e, 0.2, 0, 1}, rng);
  QDensity full;
  full.weights = full.nnz = full.blocks = full.filled = 100 * 100;
  testing::check(qconv_candidates(Isa::kVnni, shape(1, 100, 100, 1, 100, 1, 0), e, full)[0].kernel->isa == Isa::kRef,
                 "huge windows go to the reference");
  // Extremes whose sums do not wrap: activations of 255, weights whose 16-bit sums would saturate.
  for (const auto& [even, odd] : {std::pair{-128, -128}, {127, 127}, {127, -128}, {-128, 127}, {64, 64}, {65, 64}}) {
    const ConvShape s = shape(64, 3, 3, 4, 3, 1, 1);
    std::vector<int8_t> w(size_t(s.weight_count()));
    for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<int8_t>(i / 9 % 2 ? odd : even);
    std::vector<float> scale(4, 1e-4f);
    const QWeights qw{w.data(), nullptr, scale.data(), 0};
    Buffer x(size_t(64 * 9));
    std::memset(x.data(), 255, x.size());
    QEpilogue raw;
    raw.output = QOutput::kI32;
    for (const QConvKernel& k : runnable()) {
      if (!k.supports(s, raw)) continue;
      const auto p = k.pack(k, s, raw, qw, {});
      std::vector<int32_t> y(36);
      Buffer scratch(p->scratch_bytes_per_thread);
      QConvArgs args;
      args.x = x.data();
      args.y = y.data();
      args.scratch = scratch.data();
      k.run(*p, args);
      testing::check(y[4] == 255 * 32 * 9 * (even + odd), std::string(k.name) + ": no product saturates");
      ++n_checks;
    }
  }
  return testing::finish("qconv", n_checks);
}
