// Time of the product of two activations of every level: the two products of attention, and a square one.
#include "base/arena.h"
#include "kernels/matmul/matmul.h"
#include "kernels/testing.h"

int main() {
  using namespace secateur;
  testing::Random rng(1);
  struct Shape {
    const char* name;
    int64_t batch, m, n, k;
    bool turned;  // b is [n][k]
  };
  for (const Shape& s :
       {Shape{"q k' 12x128x64x128", 12, 128, 128, 64, true}, Shape{"p v 12x128x128x64", 12, 128, 64, 128, false},
        Shape{"384^3", 1, 384, 384, 384, false}}) {
    Buffer a(s.batch * s.m * s.k * 4), b(s.batch * s.k * s.n * 4), y(s.batch * s.m * s.n * 4);
    testing::fill_normal(a.as<float>(), s.batch * s.m * s.k, rng);
    testing::fill_normal(b.as<float>(), s.batch * s.k * s.n, rng);
    MatMul p;
    p.m = s.m, p.n = s.n, p.k = s.k, p.a_row = s.k;
    p.b_row = s.turned ? 1 : s.n, p.b_col = s.turned ? s.k : 1;
    p.rank = 1, p.dims[0] = s.batch, p.a_batch[0] = s.m * s.k, p.b_batch[0] = s.k * s.n;
    for (Isa isa : testing::benched_isas()) {
      const MatMulKernel& k = matmul_kernel(isa);
      Buffer scratch(k.scratch_bytes(p, 1));
      MatMulArgs args;
      args.a = a.as<float>(), args.b = b.as<float>(), args.y = y.as<float>(), args.scratch = scratch.data();
      testing::bench_line(s.name, isa, double(s.batch * s.m * s.n * s.k), "MAC", [&] { k.run(p, args); });
    }
  }
}
