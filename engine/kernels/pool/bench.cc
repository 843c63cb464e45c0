// Time of the pools of every level on the shapes of convolutional nets.
#include "base/arena.h"
#include "kernels/pool/pool.h"
#include "kernels/testing.h"

int main() {
  using namespace secateur;
  testing::Random rng(1);
  struct Shape {
    const char* name;
    int planes, in, kernel, stride, pad;
  };
  for (const Shape& s : {Shape{"64@112 3x3 / 2", 64, 112, 3, 2, 1}, Shape{"64@32 2x2 / 2", 64, 32, 2, 2, 0},
                         Shape{"256@28 3x3 / 1", 256, 28, 3, 1, 1}, Shape{"256@20 5x5 / 1", 256, 20, 5, 1, 2},
                         Shape{"256@20 13x13 / 1", 256, 20, 13, 1, 6}, Shape{"16@160 13x13 / 1", 16, 160, 13, 1, 6}}) {
    const int out = (s.in + 2 * s.pad - s.kernel) / s.stride + 1;
    const int64_t n_in = int64_t{s.planes} * s.in * s.in, n_out = int64_t{s.planes} * out * out;
    Buffer x(n_in * 4), y(n_out * 4);
    testing::fill_normal(x.as<float>(), n_in, rng);
    PoolArgs a;
    a.x = x.as<float>(), a.y = y.as<float>();
    a.planes = s.planes, a.in_h = a.in_w = s.in, a.out_h = a.out_w = out, a.kernel_h = a.kernel_w = s.kernel;
    a.stride_h = a.stride_w = s.stride, a.pad_top = a.pad_left = a.pad_bottom = a.pad_right = s.pad;
    const double cells = double(n_out) * s.kernel * s.kernel;
    for (Isa isa : testing::benched_isas()) {
      const PoolKernels& k = pool_kernels(isa);
      testing::bench_line(std::string("max ") + s.name, isa, cells, "cells", [&] { k.max(a); });
      testing::bench_line(std::string("average ") + s.name, isa, cells, "cells", [&] { k.average(a); });
      testing::bench_line(std::string("global of ") + s.name, isa, double(n_in), "cells", [&] { k.global_average(a); });
    }
  }
}
