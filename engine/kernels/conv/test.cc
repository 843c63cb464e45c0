// Every kernel of the table this machine can run, against sums in double, around tile edges and at odd densities.
#include <cstdlib>

#include "base/arena.h"
#include "kernels/conv/tiling.h"
#include "kernels/testing.h"

namespace secateur {
namespace {

using testing::check;
using testing::Guarded;
using testing::Random;

struct Expected {
  std::vector<double> value, tolerance;
};

Expected expect(const ConvShape& s, const Epilogue& e, const float* x, const std::vector<float>& w,
                const std::vector<float>& bias, const float* residual) {
  const int ch = s.conv_h(), cw = s.conv_w(), oh = conv_out_h(s, e), ow = conv_out_w(s, e);
  const int group_in = s.in_c / s.groups;
  std::vector<double> full(int64_t{s.out_c} * ch * cw), tol(full.size());
  for (int o = 0; o < s.out_c; ++o)
    for (int i = 0; i < ch; ++i)
      for (int j = 0; j < cw; ++j) {
        double sum = bias[o], mag = std::fabs(sum);
        int terms = 2;
        for (int c = 0; c < group_in; ++c)
          for (int u = 0; u < s.kernel_h; ++u)
            for (int v = 0; v < s.kernel_w; ++v) {
              const int r = i * s.stride_h + u * s.dilation_h - s.pad_top,
                        q = j * s.stride_w + v * s.dilation_w - s.pad_left;
              if (r < 0 || r >= s.in_h || q < 0 || q >= s.in_w) continue;
              const int channel = o / (s.out_c / s.groups) * group_in + c;
              const double t = double(w[((int64_t{o} * group_in + c) * s.kernel_h + u) * s.kernel_w + v]) *
                               x[(int64_t{channel} * s.in_h + r) * s.in_w + q];
              sum += t;
              mag += std::fabs(t);
              terms += t != 0;
            }
        const int64_t k = (int64_t{o} * ch + i) * cw + j;
        if (residual) {
          sum += residual[k];
          mag += std::fabs(residual[k]);
        }
        if (sum < 0) sum *= e.act.slope;
        full[k] = std::min<double>(std::max<double>(sum, e.act.lo), e.act.hi);
        tol[k] = mag * (terms + 2) * 0x1p-24 * std::max(1.0f, std::fabs(e.act.slope)) + 1e-30;
      }
  if (e.pool == Pool2x2::kNone) return {full, tol};
  Expected out{std::vector<double>(int64_t{s.out_c} * oh * ow), std::vector<double>(int64_t{s.out_c} * oh * ow)};
  for (int o = 0; o < s.out_c; ++o)
    for (int i = 0; i < oh; ++i)
      for (int j = 0; j < ow; ++j) {
        const int64_t k = (int64_t{o} * oh + i) * ow + j;
        out.value[k] = -std::numeric_limits<double>::infinity();
        for (int q = 0; q < 4; ++q) {
          const int64_t f = (int64_t{o} * ch + 2 * i + q / 2) * cw + 2 * j + q % 2;
          out.value[k] = std::max(out.value[k], full[f]);
          out.tolerance[k] = std::max(out.tolerance[k], tol[f]);
        }
      }
  return out;
}

std::string describe(const ConvKernel& k, const ConvShape& s, const Epilogue& e, double density, int64_t batch) {
  char text[300];
  std::snprintf(
      text, sizeof text,
      "%s in %dx%dx%d out %d kernel %dx%d stride %d,%d pad %d,%d,%d,%d dilation %d,%d groups %d residual %d pool %d "
      "density %g batch %lld",
      k.name, s.in_c, s.in_h, s.in_w, s.out_c, s.kernel_h, s.kernel_w, s.stride_h, s.stride_w, s.pad_top, s.pad_left,
      s.pad_bottom, s.pad_right, s.dilation_h, s.dilation_w, s.groups, e.residual, e.pool != Pool2x2::kNone, density,
      static_cast<long long>(batch));
  return text;
}

int64_t n_checks = 0;
Threads two(2), three(3);

void run_case(const ConvShape& s, const Epilogue& e, double density, int64_t batch, Random& rng, int block = 1) {
  if (s.conv_h() < 1 || s.conv_w() < 1) return;
  const int64_t in = int64_t{s.in_c} * s.in_h * s.in_w, out = int64_t{s.out_c} * conv_out_h(s, e) * conv_out_w(s, e);
  if (out == 0) return;
  const int skew = rng.below(3);
  Guarded x(in * batch, skew), residual(out * batch, skew);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = rng.normal();
  for (int64_t i = 0; i < residual.size(); ++i) residual[i] = rng.normal();
  std::vector<float> w = testing::sparse_weights(s.weight_count(), density, rng), bias(s.out_c);
  const int64_t taps = s.weight_count() / s.out_c;
  for (int64_t i = 0; i < s.weight_count(); ++i)  // channels of a block have the same inputs
    if (w[i / taps / block * block * taps + i % taps] == 0) w[i] = 0;
  ConvDensity want;
  for (int64_t i = 0; i < taps; ++i)
    for (int first = 0; first < s.out_c; ++first) {
      const auto any = [&](int n) {
        bool found = false;
        for (int o = first; o < std::min(s.out_c, first + n); ++o) found |= w[o * taps + i] != 0;
        return first % n == 0 && found;
      };
      want.nnz += any(1);
      want.pairs += any(2);
      want.fours += any(4);
      want.eights += any(8);
    }
  const ConvDensity found = measure_density(s, w.data());
  check(found.weights == s.weight_count() && found.nnz == want.nnz && found.pairs == want.pairs &&
            found.fours == want.fours && found.eights == want.eights,
        "density of the weights");
  for (auto& b : bias) b = rng.normal();
  std::vector<Expected> expected;
  for (int64_t n = 0; n < batch; ++n)
    expected.push_back(expect(s, e, x.data() + n * in, w, bias, e.residual ? residual.data() + n * out : nullptr));
  for (const ConvKernel& k : conv_kernels()) {
    if (!isa_available(k.isa) || !k.supports(s, e)) continue;
    ++n_checks;
    // Any of the better ways to cut the layer, not only the one the cost model likes best.
    const int64_t nnz = s.weight_count() - std::count(w.begin(), w.end(), 0.0f);
    Tile tile;
    if (k.family != ConvFamily::kReference && k.family != ConvFamily::kDepthwise) {
      const auto ways = conv_tilings(k, s, e, nnz, 40);
      tile = tile_of(ways[rng.below(static_cast<int>(ways.size()))]);
      check(tile_of(plan_conv(k, s, e, nnz, tile)) == tile, "a tile names its tiling");
    }
    const auto packed = k.pack(k, s, e, w.data(), bias.data(), tile);
    Guarded y(out * batch, skew, 7.0f), again(out * batch, 0, 7.0f);
    // Scratch full of NaN: nothing may be read before it is written.
    Guarded scratch(3 * static_cast<int64_t>(packed->scratch_bytes_per_thread / 4), 0,
                    std::numeric_limits<float>::quiet_NaN());
    ConvArgs args;
    args.x = x.data();
    args.y = y.data();
    args.residual = e.residual ? residual.data() : nullptr;
    args.batch = batch;
    args.scratch = scratch.data();
    k.run(*packed, args);
    const std::string name = describe(k, s, e, density, batch);
    check(packed->nnz == nnz, name + ": nnz");
    check(y.intact() && x.intact() && scratch.intact(), name + ": wrote outside its buffers");
    for (int64_t n = 0; n < batch; ++n)
      for (int64_t i = 0; i < out; ++i) {
        const double got = y[n * out + i], want = expected[n].value[i];
        if (std::fabs(got - want) <= expected[n].tolerance[i]) continue;
        char text[96];
        std::snprintf(text, sizeof text, " [%s]: y[%lld] = %.9g, expected %.9g", packed->note.c_str(),
                      static_cast<long long>(i), got, want);
        check(false, name + text);
        break;
      }
    if (k.family == ConvFamily::kReference || (n_checks % 4 != 0 && out < 20000)) continue;
    for (Threads* threads : {&two, &three}) {
      args.y = again.data();
      args.threads = threads;
      k.run(*packed, args);
      check(again.intact() && std::memcmp(again.data(), y.data(), static_cast<size_t>(out * batch) * 4) == 0,
            name + ": depends on the number of threads");
    }
  }
}

ConvShape shape(int in_c, int in_h, int in_w, int out_c, int kernel, int stride, int pad) {
  ConvShape s;
  s.in_c = in_c;
  s.in_h = in_h;
  s.in_w = in_w;
  s.out_c = out_c;
  s.kernel_h = s.kernel_w = kernel;
  s.stride_h = s.stride_w = stride;
  s.pad_top = s.pad_left = s.pad_bottom = s.pad_right = pad;
  return s;
}

}  // namespace
}  // namespace secateur

int main() {
  using namespace secateur;
  const uint32_t seed = 20240611;
  std::printf("seed %u\n", seed);
  Random rng(seed);
  Epilogue plain, relu, pool, residual, leaky;
  relu.act = Activation::relu();
  pool.act = Activation::relu();
  pool.pool = Pool2x2::kMax;
  residual.act = Activation::clip(-0.5f, 2.0f);
  residual.residual = true;
  leaky.act = Activation::leaky(0.1f);
  // The layers of the nets at hand.
  for (const auto& s : {shape(1, 28, 28, 20, 5, 1, 0), shape(20, 12, 12, 50, 5, 1, 0), shape(3, 32, 32, 16, 3, 1, 1),
                        shape(16, 32, 32, 16, 3, 1, 1), shape(16, 32, 32, 32, 3, 2, 1), shape(16, 32, 32, 32, 1, 2, 0),
                        shape(32, 16, 16, 32, 3, 1, 1), shape(64, 8, 8, 64, 3, 1, 1), shape(64, 32, 32, 64, 3, 1, 1)})
    for (double density : {0.1, 1.0})
      for (const Epilogue& e : {plain, pool, residual}) run_case(s, e, density, 1, rng);
  // Widths around every register width, with and without rounding of the rows.
  for (int w : {1, 2, 3, 4, 5, 7, 8, 9, 12, 14, 15, 16, 17, 20, 23, 24, 28, 31, 32, 33, 48, 56})
    for (const Epilogue& e : {plain, pool, residual}) {
      run_case(shape(5, 6, w, 7, 3, 1, 1), e, 0.3, 2, rng);
      run_case(shape(4, 5, w, 9, 1, 1, 0), e, 0.3, 1, rng);
      run_case(shape(3, 9, w, 4, 3, 2, 1), e, 0.4, 1, rng);
    }
  // Rows of more vectors than are filled at once.
  for (int w : {57, 72, 100, 129, 136, 151})
    for (const Epilogue& e : {plain, pool, residual}) {
      run_case(shape(3, 6, w, 5, 3, 1, 1), e, 0.4, 2, rng);
      run_case(shape(3, 7, w, 4, 3, 2, 1), e, 0.4, 1, rng);
      run_case(shape(2, 8, w, 3, 5, 2, 0), e, 0.4, 1, rng);
      run_case(shape(2, 6, w, 9, 5, 1, 2), e, 0.4, 1, rng);
    }
  // Densities: none, one, some empty rows, all.
  for (double density : {0.0, -1.0, 0.02, 0.5, 1.0})
    for (const Epilogue& e : {relu, pool, residual, leaky})
      for (const auto& s : {shape(6, 10, 10, 12, 3, 1, 1), shape(40, 4, 4, 33, 3, 1, 1), shape(17, 2, 2, 9, 3, 1, 1),
                            shape(8, 1, 1, 10, 1, 1, 0)})
        run_case(s, e, density, 3, rng);
  // Blocks of channels, and layers whose channels do not fill them.
  for (int block : {2, 4, 8})
    for (const Epilogue& e : {relu, pool, residual})
      for (int out : {16, 13}) {
        run_case(shape(20, 9, 12, out, 3, 1, 1), e, 0.2, 2, rng, block);
        run_case(shape(48, 16, 16, out, 1, 1, 0), e, 0.2, 1, rng, block);
        run_case(shape(64, 4, 4, out, 3, 1, 1), e, 0.2, 1, rng, block);
      }
  // All weights, more channels than one group of output lanes, maps that are no whole vectors; the input in place and
  // padded, its weights in one go and in several.
  for (const Epilogue& e : {relu, pool, residual, leaky})
    for (const auto& s : {shape(40, 7, 7, 150, 3, 1, 1), shape(24, 14, 14, 70, 1, 2, 0), shape(9, 13, 11, 65, 3, 2, 1),
                          shape(300, 3, 3, 130, 1, 1, 0), shape(70, 6, 6, 24, 3, 1, 0)})
      run_case(s, e, 1.0, 2, rng);
  // Anything goes.
  for (int i = 0; i < 400; ++i) {
    ConvShape s;
    s.groups = rng.below(4) == 0 ? 1 + rng.below(4) : 1;
    s.in_c = s.groups * (1 + rng.below(8));
    s.out_c = s.groups * (1 + rng.below(12));
    if (rng.below(8) == 0) s.groups = s.out_c = s.in_c;  // depthwise
    s.in_h = 1 + rng.below(20);
    s.in_w = 1 + rng.below(36);
    s.kernel_h = 1 + rng.below(5);
    s.kernel_w = 1 + rng.below(5);
    s.stride_h = 1 + rng.below(3);
    s.stride_w = 1 + rng.below(3);
    s.dilation_h = 1 + rng.below(2);
    s.dilation_w = 1 + rng.below(2);
    s.pad_top = rng.below(3);
    s.pad_left = rng.below(3);
    s.pad_bottom = rng.below(3);
    s.pad_right = rng.below(3);
    const Epilogue* all[] = {&plain, &relu, &pool, &residual, &leaky};
    run_case(s, *all[rng.below(5)], rng.unit(), 1 + rng.below(2), rng);
  }
  // A kernel of its own for every channel, one result channel or several of each.
  for (int kernel : {1, 2, 3, 4, 5, 7})
    for (int stride : {1, 2, 3})
      for (int w : {1, 2, 3, 7, 8, 9, 14, 15, 16, 17, 23, 31, 33, 34, 40, 112}) {
        if (w == 112 && kernel > 5) continue;
        const Epilogue* all[] = {&plain, &relu, &residual, &leaky};
        ConvShape s = shape(3 + rng.below(4), 1 + rng.below(12), w, 0, kernel, stride, rng.below(kernel + 1));
        s.groups = s.in_c;
        s.out_c = s.in_c * (1 + rng.below(4) / 3);
        if (rng.below(3) == 0) s.pad_left = rng.below(3), s.pad_right = rng.below(12);
        if (rng.below(4) == 0) s.stride_h = 3 - s.stride_h % 3;
        if (rng.below(4) == 0) s.dilation_h = s.dilation_w = 2;
        run_case(s, *all[rng.below(4)], rng.below(3) ? 1.0 : 0.5, 1 + rng.below(2), rng);
      }
  for (const auto& s : {shape(1, 30, 45, 12, 5, 1, 2), shape(1, 9, 70, 7, 3, 2, 1)}) run_case(s, relu, 1.0, 2, rng);
  {
    ConvShape s = shape(80, 28, 28, 80, 3, 1, 1);
    s.groups = 80;
    run_case(s, relu, 1.0, 2, rng);
  }
  // Large enough for several tiles, chunks and threads.
  for (const Epilogue& e : {relu, pool, residual}) {
    run_case(shape(96, 30, 30, 40, 3, 1, 1), e, 0.08, 1, rng);
    run_case(shape(128, 56, 56, 16, 1, 1, 0), e, 0.1, 1, rng);
    run_case(shape(64, 33, 47, 24, 3, 2, 1), e, 0.1, 2, rng);
  }
  return testing::finish("conv", n_checks);
}
