// The oracle: the formula of linear.h, loop for loop.
#include <algorithm>
#include <vector>

#include "kernels/linear/rows.h"

namespace secateur {
namespace {

struct PackedRef final : PackedLinear {
  size_t scratch_bytes(int64_t, int) const override { return 0; }
  std::vector<float> weights, bias;
};

}  // namespace

std::unique_ptr<PackedLinear> linear_ref_pack(const LinearKernel& kernel, const LinearShape& s, const Epilogue& e,
                                              const float* weights, const float* bias, int64_t) {
  auto p = std::make_unique<PackedRef>();
  p->kernel = &kernel;
  p->shape = s;
  p->epilogue = e;
  p->weights.assign(weights, weights + int64_t{s.in} * s.out);
  p->bias.assign(s.out, 0.0f);
  if (bias) p->bias.assign(bias, bias + s.out);
  p->nnz = int64_t{s.in} * s.out - std::count(p->weights.begin(), p->weights.end(), 0.0f);
  p->packed_bytes = (p->weights.size() + p->bias.size()) * sizeof(float);
  p->note = "plain loops";
  return p;
}

void linear_ref_run(const PackedLinear& packed, const LinearArgs& args) {
  const auto& p = static_cast<const PackedRef&>(packed);
  const LinearShape& s = p.shape;
  const Activation& a = p.epilogue.act;
  for (int64_t r = 0; r < args.rows; ++r)
    for (int o = 0; o < s.out; ++o) {
      const float* w = p.weights.data() + int64_t{o} * s.in;
      float sum = p.bias[o];
      for (int i = 0; i < s.in; ++i)
        if (w[i] != 0) sum += w[i] * args.x[r * s.in + i];
      if (p.epilogue.residual) sum += args.residual[r * s.out + o];
      if (sum < 0) sum *= a.slope;
      args.y[r * s.out + o] = std::min(std::max(sum, a.lo), a.hi);
    }
}

namespace ref {
void no_task(const LinearView&, const LinearTask&) {}  // run() does it all
}  // namespace ref

}  // namespace secateur
