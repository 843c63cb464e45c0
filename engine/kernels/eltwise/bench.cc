// Time of element-wise work of every level: a residual sum, functions, a batch norm, a broadcast.
#include "base/arena.h"
#include "kernels/eltwise/eltwise.h"
#include "kernels/testing.h"

int main() {
  using namespace secateur;
  testing::Random rng(1);
  const int64_t channels = 64, plane = 28 * 28, n = channels * plane;
  Buffer a(n * 4), b(n * 4), y(n * 4);
  testing::fill_normal(a.as<float>(), n, rng);
  testing::fill_normal(b.as<float>(), n, rng);
  Activation relu;
  relu.lo = 0;
  UnaryArgs u;
  u.a = a.as<float>(), u.y = y.as<float>(), u.n = n;
  AffineArgs f;
  f.x = a.as<float>(), f.y = y.as<float>(), f.scale = f.shift = b.as<float>();
  f.planes = f.channels = channels, f.plane = plane;
  BinaryArgs g;
  g.a = a.as<float>(), g.b = b.as<float>(), g.y = y.as<float>(), g.op = Binary::kMul;
  const int64_t whole[] = {1, channels, plane}, gate[] = {1, channels, 1};
  if (!broadcast(whole, 3, gate, 3, &g)) return 1;
  const std::pair<Unary, const char*> functions[] = {{Unary::kSigmoid, "sigmoid"}, {Unary::kTanh, "tanh"},
                                                     {Unary::kExp, "exp"},         {Unary::kGelu, "gelu"},
                                                     {Unary::kSilu, "silu"},       {Unary::kHardSwish, "hard swish"}};
  for (Isa isa : testing::benched_isas()) {
    const EltwiseKernels& k = eltwise_kernels(isa);
    const auto line = [&](const char* what, auto&& fn) { testing::bench_line(what, isa, double(n), "elements", fn); };
    line("relu(a + b)", [&] { k.add_act(a.as<float>(), b.as<float>(), y.as<float>(), n, relu); });
    line("batch norm", [&] { k.affine(f); });
    line("x * gate[channel]", [&] { k.binary(g); });
    for (const auto& [op, name] : functions) {
      u.op = op;
      line(name, [&] { k.unary(u); });
    }
  }
}
