// Time of what stands between integer layers, of every level: borders, sums, a pool.
#include "base/arena.h"
#include "kernels/quads/quads.h"
#include "kernels/testing.h"

int main() {
  using namespace secateur;
  testing::Random rng(1);
  const int64_t channels = 64, pixels = 56 * 56, n = channels * pixels;
  Buffer f(n * 4), a(n), b(n), y(n);
  testing::fill_normal(f.as<float>(), n, rng);
  for (int64_t i = 0; i < n; ++i) a.data()[i] = static_cast<uint8_t>(rng.below(256)), b.data()[i] = a.data()[i] ^ 85;
  QuantizeArgs quantize{{1, channels, pixels, false}, f.as<float>(), y.data(), 0.03f, 128};
  DequantizeArgs dequantize{{1, channels, pixels, false}, a.data(), f.as<float>(), 0.03f, 128};
  QAddArgs add;
  add.words = n / 4, add.x0 = a.data(), add.x1 = b.data(), add.y = y.data();
  add.scale0 = 0.5f, add.scale1 = 0.7f, add.zero0 = add.zero1 = add.zero = 128;
  QPoolArgs pool;
  pool.planes = channels / 4, pool.in_h = pool.in_w = 56, pool.out_h = pool.out_w = 28;
  pool.kernel_h = pool.kernel_w = pool.stride_h = pool.stride_w = 2, pool.x = a.data(), pool.y = y.data();
  QPoolArgs narrow = pool;
  narrow.planes = 64, narrow.in_h = narrow.in_w = 16, narrow.out_h = narrow.out_w = 8;
  for (Isa isa : testing::benched_isas()) {
    if (isa == Isa::kRef) continue;  // it runs portable's
    const QuadsKernels& k = quads_kernels(isa);
    const auto line = [&](const char* what, auto&& fn) { testing::bench_line(what, isa, double(n), "bytes", fn); };
    line("quantize 64@56x56", [&] { k.quantize(quantize); });
    line("dequantize 64@56x56", [&] { k.dequantize(dequantize); });
    line("add 64@56x56", [&] { k.add(add); });
    line("max pool 2x2 64@56x56", [&] { k.max_pool(pool); });
    testing::bench_line("max pool 2x2 256@16x16", isa, 65536, "bytes", [&] { k.max_pool(narrow); });
    line("turn 3136x16 words", [&] { k.turn(pixels, channels / 4, a.data(), y.data()); });
  }
}
