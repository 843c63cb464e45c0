// The oracle: the formula of weave.h, loop for loop.
#include "kernels/table.h"
#include "kernels/weave/weave.h"

namespace secateur {
namespace {

void weave_ref(const Weave& w, const float* x, float* y) {
  for (int64_t p = 0; p < w.planes; ++p)
    for (int i = w.top; i < w.top + w.out_h; ++i)
      for (int j = w.left; j < w.left + w.out_w; ++j) {
        const int64_t phase = i % w.stride_h * w.stride_w + j % w.stride_w;
        *y++ = x[((p * w.stride_h * w.stride_w + phase) * w.in_h + i / w.stride_h) * w.in_w + j / w.stride_w];
      }
}

}  // namespace

namespace ref {
extern const WeaveKernels weave_row = {kIsa, weave_ref};
}
SECATEUR_TABLE(SECATEUR_WITH_REF, WeaveKernels, weave_row, weave_kernels)

}  // namespace secateur
