// Every row of the table this machine can run, against double: sizes around the register block, all strides, batches.
#include "kernels/matmul/matmul.h"

#include "base/arena.h"
#include "kernels/testing.h"

int main() {
  using namespace secateur;
  using testing::Guarded;
  const uint32_t seed = 20240617;
  std::printf("seed %u\n", seed);
  testing::Random rng(seed);
  int64_t n_checks = 0;
  for (Isa isa : available_isas())
    for (int round = 0; round < 400; ++round) {
      MatMul p;
      const int sizes[] = {1, 2, 5, 6, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100};
      p.m = sizes[rng.below(10)], p.n = sizes[rng.below(14)], p.k = sizes[rng.below(14)];
      const bool ta = rng.below(2) != 0, tb = rng.below(2) != 0;
      p.a_row = ta ? 1 : p.k, p.a_col = ta ? p.m : 1;
      p.b_row = tb ? 1 : p.n, p.b_col = tb ? p.k : 1;
      p.alpha = rng.below(2) ? 1.0f : 0.37f;
      p.rank = rng.below(3);
      int64_t na = p.m * p.k, nb = p.k * p.n, batches = 1;
      for (int i = p.rank - 1; i >= 0; --i) {
        p.dims[i] = 1 + rng.below(3);
        batches *= p.dims[i];
        if (rng.below(3)) p.a_batch[i] = na, na *= p.dims[i];
        if (rng.below(3)) p.b_batch[i] = nb, nb *= p.dims[i];
      }
      Guarded a(na, 1), b(nb, 2), y(batches * p.m * p.n, 3, 7.0f);
      for (int64_t i = 0; i < na; ++i) a[i] = rng.normal();
      for (int64_t i = 0; i < nb; ++i) b[i] = rng.normal();
      Threads pool(2);
      const MatMulKernel& kernel = matmul_kernel(isa);
      const Buffer scratch(kernel.scratch_bytes(p, 2));
      MatMulArgs args;
      args.a = a.data(), args.b = b.data(), args.y = y.data();
      args.scratch = const_cast<uint8_t*>(scratch.data()), args.threads = &pool;
      kernel.run(p, args);
      ++n_checks;
      bool ok = y.intact();
      for (int64_t batch = 0; batch < batches; ++batch) {
        int64_t oa, ob;
        matmul_offsets(p, batch, oa, ob);
        for (int64_t i = 0; i < p.m; ++i)
          for (int64_t j = 0; j < p.n; ++j) {
            double sum = 0, size = 0;
            for (int64_t k = 0; k < p.k; ++k) {
              const double v = double(a[oa + i * p.a_row + k * p.a_col]) * double(b[ob + k * p.b_row + j * p.b_col]);
              sum += v, size += std::fabs(v);
            }
            const double got = y[(batch * p.m + i) * p.n + j];
            ok &= std::fabs(got - double(p.alpha) * sum) <= double(p.k + 2) * 0x1p-24 * size * double(p.alpha);
          }
      }
      char name[120];
      std::snprintf(name, sizeof name, "%s m %d n %d k %d ta %d tb %d rank %d", kernel.name, int(p.m), int(p.n),
                    int(p.k), ta, tb, p.rank);
      testing::check(ok, name);
    }
  return testing::finish("matmul", n_checks);
}
