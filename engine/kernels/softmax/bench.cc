// Time of the softmax of every level: rows of attention, of a classifier, and along an earlier axis.
#include "base/arena.h"
#include "kernels/softmax/softmax.h"
#include "kernels/testing.h"

int main() {
  using namespace secateur;
  testing::Random rng(1);
  struct Shape {
    const char* name;
    int64_t outer, axis, inner;
  };
  for (const Shape& s : {Shape{"attention 1536x128", 1536, 128, 1}, Shape{"classes 1x1000", 1, 1000, 1},
                         Shape{"channels 1x64x3136", 1, 64, 3136}}) {
    const int64_t n = s.outer * s.axis * s.inner;
    Buffer x(n * 4), y(n * 4);
    testing::fill_normal(x.as<float>(), n, rng);
    SoftmaxArgs args;
    args.x = x.as<float>(), args.y = y.as<float>();
    args.outer = s.outer, args.axis = s.axis, args.inner = s.inner;
    for (Isa isa : testing::benched_isas())
      testing::bench_line(s.name, isa, double(n), "exp", [&] { softmax_kernels(isa).run(args); });
  }
}
