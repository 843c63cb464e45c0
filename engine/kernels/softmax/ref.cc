// The oracle: the formula of softmax.h, loop for loop.
#include <algorithm>
#include <cmath>

#include "kernels/softmax/softmax.h"
#include "kernels/table.h"

namespace secateur {

void softmax_ref(const SoftmaxArgs& args) {
  for (int64_t o = 0; o < args.outer; ++o)
    for (int64_t i = 0; i < args.inner; ++i) {
      const float* x = args.x + o * args.axis * args.inner + i;
      float* y = args.y + o * args.axis * args.inner + i;
      float top = x[0];
      for (int64_t k = 1; k < args.axis; ++k) top = std::max(top, x[k * args.inner]);
      float sum = 0;
      for (int64_t k = 0; k < args.axis; ++k) sum += std::exp(x[k * args.inner] - top);
      const float log_sum = std::log(sum), scale = 1.0f / sum;
      for (int64_t k = 0; k < args.axis; ++k) {
        const float d = x[k * args.inner] - top;
        y[k * args.inner] = args.log ? d - log_sum : std::exp(d) * scale;
      }
    }
}

namespace ref {
extern const SoftmaxKernels softmax_row = {kIsa, softmax_ref};
}
SECATEUR_TABLE(SECATEUR_WITH_REF, SoftmaxKernels, softmax_row, softmax_kernels)

}  // namespace secateur
