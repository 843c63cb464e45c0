// The oracle: the formula of attention.h, loop for loop.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/table.h"

namespace secateur {

size_t attention_scratch_ref(const Attention& p, int) { return static_cast<size_t>(p.keys) * sizeof(float); }

void attention_ref(const Attention& p, const AttentionArgs& args) {
  auto* score = static_cast<float*>(args.scratch);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h) {
      const int64_t kv = h * p.kv_heads / p.heads;
      for (int64_t i = 0; i < p.rows; ++i) {
        const float* q = args.q + b * p.q.batch + h * p.q.head + i * p.q.row;
        float top = -std::numeric_limits<float>::infinity();
        for (int64_t j = 0; j < p.keys; ++j) {
          const float* k = args.k + b * p.k.batch + kv * p.k.head + j * p.k.row;
          float s = 0;
          for (int64_t d = 0; d < p.dim; ++d) s += q[d] * k[d];
          s *= p.scale;
          if (args.mask) {
            const int64_t at = b * p.mask.batch + h * p.mask.head + i * p.mask.row + j * p.mask_col;
            if (!p.mask_is_bool) s += static_cast<const float*>(args.mask)[at];
            else if (!static_cast<const uint8_t*>(args.mask)[at]) s = -std::numeric_limits<float>::infinity();
          }
          if (p.causal && j > i + p.past) s = -std::numeric_limits<float>::infinity();
          score[j] = s;
          top = std::max(top, s);
        }
        float sum = 0;
        const bool any = top > -std::numeric_limits<float>::infinity();
        for (int64_t j = 0; any && j < p.keys; ++j) sum += score[j] = std::exp(score[j] - top);
        float* y = args.y + b * p.y.batch + h * p.y.head + i * p.y.row;
        for (int64_t d = 0; d < p.dim_v; ++d) {
          float s = 0;
          for (int64_t j = 0; any && j < p.keys; ++j)
            s += score[j] * args.v[b * p.v.batch + kv * p.v.head + j * p.v.row + d];
          y[d] = any ? s / sum : 0.0f;
        }
      }
    }
}

namespace ref {
extern const AttentionKernel attention_row = {kIsa, "attention_f32_ref", attention_scratch_ref, attention_ref};
}
SECATEUR_TABLE(SECATEUR_WITH_REF, AttentionKernel, attention_row, attention_kernel)

}  // namespace secateur
