// Every row of the table this machine can run, against sums and maxima in double over random windows.
#include "kernels/pool/pool.h"

#include <array>
#include <cstring>
#include <vector>

#include "kernels/testing.h"

namespace secateur {
namespace {

using testing::check;
using testing::Guarded;
using testing::Random;

int64_t n_checks = 0;

enum Kind { kMaxKind, kAverageKind, kGlobalKind };

void run_case(PoolArgs a, Kind kind, Random& rng) {
  const int64_t in = int64_t{a.in_h} * a.in_w;
  if (kind == kGlobalKind) a.out_h = a.out_w = 1;
  const int64_t out = int64_t{a.out_h} * a.out_w;
  if (out <= 0) return;
  Guarded x(a.planes * in, rng.below(3));
  for (int64_t i = 0; i < x.size(); ++i) x[i] = rng.normal();
  std::vector<float> first;
  for (Isa isa : available_isas()) {
    ++n_checks;
    Guarded y(a.planes * out, rng.below(3), 7.0f);
    a.x = x.data();
    a.y = y.data();
    const PoolKernels& k = pool_kernels(isa);
    (kind == kMaxKind ? k.max : kind == kAverageKind ? k.average : k.global_average)(a);
    char name[200];
    std::snprintf(name, sizeof name, "%s kind %d in %dx%d out %dx%d kernel %dx%d stride %d,%d pad %d,%d dilation %d,%d",
                  isa_name(isa), kind, a.in_h, a.in_w, a.out_h, a.out_w, a.kernel_h, a.kernel_w, a.stride_h, a.stride_w,
                  a.pad_top, a.pad_left, a.dilation_h, a.dilation_w);
    check(y.intact() && x.intact(), std::string(name) + ": wrote outside its buffers");
    if (first.empty()) first.assign(y.data(), y.data() + a.planes * out);
    check(std::memcmp(first.data(), y.data(), first.size() * 4) == 0,
          std::string(name) + ": other bits than on the first ISA");
    for (int64_t o = 0; o < a.planes * out; ++o) {
      const int64_t p = o / out;
      const int i = static_cast<int>(o % out / a.out_w), j = static_cast<int>(o % a.out_w);
      double best = -std::numeric_limits<double>::infinity(), sum = 0, mag = 0;
      int inside = 0, padded = 0;
      if (kind == kGlobalKind) {
        for (int64_t q = 0; q < in; ++q) {
          sum += x[p * in + q];
          mag += std::fabs(x[p * in + q]);
        }
        inside = static_cast<int>(in);
      } else {
        for (int u = 0; u < a.kernel_h; ++u)
          for (int v = 0; v < a.kernel_w; ++v) {
            const int r = i * a.stride_h - a.pad_top + u * a.dilation_h,
                      c = j * a.stride_w - a.pad_left + v * a.dilation_w;
            padded += r < a.in_h + a.pad_bottom && c < a.in_w + a.pad_right;
            if (r < 0 || r >= a.in_h || c < 0 || c >= a.in_w) continue;
            ++inside;
            best = std::max<double>(best, x[p * in + int64_t{r} * a.in_w + c]);
            sum += x[p * in + int64_t{r} * a.in_w + c];
            mag += std::fabs(x[p * in + int64_t{r} * a.in_w + c]);
          }
      }
      const int cells = kind == kAverageKind && a.count_include_pad ? padded : inside;
      const double want = kind == kMaxKind ? best : cells ? sum / cells : 0.0;
      const double tolerance = kind == kMaxKind ? 0.0 : cells ? mag / cells * (inside + 3) * 0x1p-24 : 0.0;
      if (y[o] == want || std::fabs(y[o] - want) <= tolerance) continue;
      check(false, std::string(name) + ": wrong value");
      break;
    }
  }
}

}  // namespace
}  // namespace secateur

int main() {
  using namespace secateur;
  const uint32_t seed = 20240613;
  std::printf("seed %u\n", seed);
  Random rng(seed);
  for (int w : {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 64}) {
    PoolArgs a;
    a.planes = 3;
    a.in_h = 6;
    a.in_w = w;
    a.kernel_h = a.kernel_w = a.stride_h = a.stride_w = 2;
    a.out_h = 3;
    a.out_w = w / 2;
    run_case(a, kMaxKind, rng);
    run_case(a, kAverageKind, rng);
    run_case(a, kGlobalKind, rng);
  }
  for (int i = 0; i < 600; ++i) {
    PoolArgs a;
    a.planes = 1 + rng.below(4);
    a.in_h = 1 + rng.below(20);
    a.in_w = 1 + rng.below(40);
    a.kernel_h = 1 + rng.below(3);
    a.kernel_w = 1 + rng.below(3);
    a.stride_h = 1 + rng.below(3);
    a.stride_w = 1 + rng.below(3);
    a.dilation_h = 1 + rng.below(2);
    a.dilation_w = 1 + rng.below(2);
    a.pad_top = rng.below(a.kernel_h);
    a.pad_left = rng.below(a.kernel_w);
    a.pad_bottom = rng.below(a.kernel_h);
    a.pad_right = rng.below(a.kernel_w);
    a.count_include_pad = rng.below(2) == 0;
    const int reach_h = a.dilation_h * (a.kernel_h - 1) + 1, reach_w = a.dilation_w * (a.kernel_w - 1) + 1;
    if (a.in_h + a.pad_top + a.pad_bottom < reach_h || a.in_w + a.pad_left + a.pad_right < reach_w) continue;
    const int ceil_h = rng.below(2) ? a.stride_h - 1 : 0, ceil_w = rng.below(2) ? a.stride_w - 1 : 0;
    a.out_h = (a.in_h + a.pad_top + a.pad_bottom - reach_h + ceil_h) / a.stride_h + 1;
    a.out_w = (a.in_w + a.pad_left + a.pad_right - reach_w + ceil_w) / a.stride_w + 1;
    if ((a.out_h - 1) * a.stride_h >= a.in_h + a.pad_top) --a.out_h;  // ONNX: no window starts in the far padding
    if ((a.out_w - 1) * a.stride_w >= a.in_w + a.pad_left) --a.out_w;
    run_case(a, kMaxKind, rng);
    run_case(a, kAverageKind, rng);
  }
  // Large windows; strips and pieces of wide and of tall images.
  for (int i = 0; i < 60; ++i) {
    PoolArgs a;
    a.planes = 1 + rng.below(2);
    a.in_h = 1 + rng.below(i % 3 == 0 ? 150 : 40);
    a.in_w = 1 + rng.below(i % 3 == 1 ? 700 : 40);
    a.kernel_h = 1 + rng.below(17);
    a.kernel_w = 1 + rng.below(17);
    a.stride_h = 1 + rng.below(4) / 3;
    a.stride_w = 1 + rng.below(4) / 3;
    a.dilation_h = 1 + rng.below(4) / 3;
    a.dilation_w = 1 + rng.below(4) / 3;
    a.pad_top = rng.below(a.kernel_h);
    a.pad_left = rng.below(a.kernel_w);
    a.pad_bottom = rng.below(a.kernel_h);
    a.pad_right = rng.below(a.kernel_w);
    a.count_include_pad = rng.below(2) == 0;
    const int room_h = a.in_h + a.pad_top + a.pad_bottom - a.dilation_h * (a.kernel_h - 1) - 1,
              room_w = a.in_w + a.pad_left + a.pad_right - a.dilation_w * (a.kernel_w - 1) - 1;
    if (room_h < 0 || room_w < 0) continue;
    a.out_h = room_h / a.stride_h + 1;
    a.out_w = room_w / a.stride_w + 1;
    run_case(a, kMaxKind, rng);
    run_case(a, kAverageKind, rng);
  }
  // Windows that no strip holds, and pieces of less rows than a window has.
  for (const auto [h, w, kernel_h, kernel_w] : {std::array{3, 1500, 2, 1200}, std::array{700, 30, 300, 9}}) {
    PoolArgs a;
    a.in_h = h, a.in_w = w, a.kernel_h = kernel_h, a.kernel_w = kernel_w;
    a.out_h = h - kernel_h + 1, a.out_w = w - kernel_w + 1;
    run_case(a, kMaxKind, rng);
    run_case(a, kAverageKind, rng);
  }
  return testing::finish("pool", n_checks);
}
