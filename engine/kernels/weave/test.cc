// Every row of the table this machine can run against the formula.
#include "kernels/weave/weave.h"

#include <cstring>

#include "kernels/testing.h"

int main() {
  using namespace secateur;
  testing::Random rng(20261129);
  int64_t n_checks = 0;
  for (int round = 0; round < 400; ++round) {
    Weave w;
    w.planes = 1 + rng.below(3);
    w.in_h = 1 + rng.below(4), w.in_w = 1 + rng.below(40);
    w.stride_h = 1 + rng.below(3), w.stride_w = 1 + rng.below(4);
    const int high = w.in_h * w.stride_h, wide = w.in_w * w.stride_w;
    w.top = rng.below(high), w.left = rng.below(wide < 4 ? wide : 4);
    w.out_h = 1 + rng.below(high - w.top), w.out_w = 1 + rng.below(wide - w.left);
    if (rng.below(2)) w.out_w = wide - w.left;
    testing::Guarded x(w.planes * high * wide, 1), first(w.planes * w.out_h * w.out_w);
    testing::fill_normal(x.data(), x.size(), rng);
    for (int64_t at = 0; at < first.size(); ++at) {
      const int64_t j = at % w.out_w + w.left, i = at / w.out_w % w.out_h + w.top, p = at / w.out_w / w.out_h;
      const int64_t phase = i % w.stride_h * w.stride_w + j % w.stride_w;
      first[at] = x[((p * w.stride_h * w.stride_w + phase) * w.in_h + i / w.stride_h) * w.in_w + j / w.stride_w];
    }
    for (Isa isa : available_isas()) {
      testing::Guarded y(first.size(), 2, 7.0f);
      weave_kernels(isa).run(w, x.data(), y.data());
      ++n_checks;
      testing::check(y.intact() && x.intact() && std::memcmp(y.data(), first.data(), first.size() * 4) == 0,
                     std::string(isa_name(isa)) + ", round " + std::to_string(round));
    }
  }
  return testing::finish("weave", n_checks);
}
