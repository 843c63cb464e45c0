// The oracle: the formula of matmul.h, loop for loop.
#include "kernels/matmul/matmul.h"
#include "kernels/table.h"

namespace secateur {

size_t matmul_scratch_ref(const MatMul&, int) { return 0; }

void matmul_ref(const MatMul& p, const MatMulArgs& args) {
  for (int64_t batch = 0; batch < matmul_batches(p); ++batch) {
    int64_t a, b;
    matmul_offsets(p, batch, a, b);
    for (int64_t i = 0; i < p.m; ++i) {
      float* row = args.y + (batch * p.m + i) * p.n;
      for (int64_t j = 0; j < p.n; ++j) row[j] = 0.0f;
      // k outside j: the inner loop runs along rows of b and of y.
      for (int64_t k = 0; k < p.k; ++k) {
        const float v = args.a[a + i * p.a_row + k * p.a_col];
        const float* line = args.b + b + k * p.b_row;
        for (int64_t j = 0; j < p.n; ++j) row[j] += v * line[j * p.b_col];
      }
      if (p.alpha != 1.0f)
        for (int64_t j = 0; j < p.n; ++j) row[j] *= p.alpha;
    }
  }
}

namespace ref {
extern const MatMulKernel matmul_row = {kIsa, "matmul_f32_f32_f32_ref", matmul_scratch_ref, matmul_ref};
}
SECATEUR_TABLE(SECATEUR_WITH_REF, MatMulKernel, matmul_row, matmul_kernel)

}  // namespace secateur
