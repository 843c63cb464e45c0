#include "kernels/matmul/matmul.h"

namespace secateur {

void matmul_f32_ref(const MatMul& p, const float* a, const float* b, float* y) noexcept {
  int64_t batches = 1;
  for (int i = 0; i < p.rank; ++i) batches *= p.dims[i];
  for (int64_t batch = 0; batch < batches; ++batch) {
    const float* pa = a;
    const float* pb = b;
    int64_t rest = batch;
    for (int i = p.rank - 1; i >= 0; --i) {
      pa += rest % p.dims[i] * p.a_batch[i];
      pb += rest % p.dims[i] * p.b_batch[i];
      rest /= p.dims[i];
    }
    for (int64_t i = 0; i < p.m; ++i) {
      float* row = y + (batch * p.m + i) * p.n;
      for (int64_t j = 0; j < p.n; ++j) row[j] = 0.0f;
      // k outside j: the inner loop runs along rows of b and of y.
      for (int64_t k = 0; k < p.k; ++k) {
        const float v = pa[i * p.a_row + k * p.a_col];
        const float* line = pb + k * p.b_row;
        for (int64_t j = 0; j < p.n; ++j) row[j] += v * line[j * p.b_col];
      }
      if (p.alpha != 1.0f)
        for (int64_t j = 0; j < p.n; ++j) row[j] *= p.alpha;
    }
  }
}

}  // namespace secateur
