// Time of the norms of every level on the shapes of transformers and of convolutional nets.
#include "base/arena.h"
#include "kernels/norm/norm.h"
#include "kernels/testing.h"

int main() {
  using namespace secateur;
  testing::Random rng(1);
  const int64_t rows = 128, n = 768, channels = 64, plane = 56 * 56;
  Buffer x(channels * plane * 4), y(channels * plane * 4), scale(n * 4), bias(n * 4);
  testing::fill_normal(x.as<float>(), channels * plane, rng);
  testing::fill_normal(scale.as<float>(), n, rng);
  testing::fill_normal(bias.as<float>(), n, rng);
  LayerNormArgs layer;
  layer.x = x.as<float>(), layer.y = y.as<float>(), layer.scale = scale.as<float>(), layer.bias = bias.as<float>();
  layer.rows = rows, layer.n = n;
  GroupNormArgs group;
  group.x = x.as<float>(), group.y = y.as<float>(), group.scale = scale.as<float>(), group.bias = bias.as<float>();
  group.batch = 1, group.channels = channels, group.groups = 8, group.plane = plane;
  for (Isa isa : testing::benched_isas()) {
    const NormKernels& k = norm_kernels(isa);
    layer.rms = false;
    testing::bench_line("layer 128x768", isa, double(rows * n), "elements", [&] { k.layer(layer); });
    layer.rms = true;
    testing::bench_line("rms 128x768", isa, double(rows * n), "elements", [&] { k.layer(layer); });
    testing::bench_line("group 64@56x56 of 8", isa, double(channels * plane), "elements", [&] { k.group(group); });
  }
}
