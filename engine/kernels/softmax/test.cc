// Every row of the table this machine can run, against double, on both layouts and far from zero.
#include "kernels/softmax/softmax.h"

#include "kernels/testing.h"

int main() {
  using namespace secateur;
  using testing::Guarded;
  const uint32_t seed = 20240615;
  std::printf("seed %u\n", seed);
  testing::Random rng(seed);
  int64_t n_checks = 0;
  for (Isa isa : available_isas())
    for (int64_t axis : {1, 2, 7, 8, 9, 10, 16, 17, 33, 100, 1000})
      for (int64_t inner : {1, 3, 16, 19})
        for (bool log : {false, true})
          for (float spread : {1.0f, 40.0f}) {
            SoftmaxArgs args;
            args.outer = 3;
            args.axis = axis;
            args.inner = inner;
            args.log = log;
            const int64_t n = args.outer * axis * inner;
            Guarded x(n, 1), y(n, 2, 7.0f);
            for (int64_t i = 0; i < n; ++i) x[i] = spread * rng.normal() + 100;
            args.x = x.data();
            args.y = y.data();
            softmax_kernels(isa).run(args);
            ++n_checks;
            bool ok = y.intact() && x.intact();
            for (int64_t o = 0; o < args.outer; ++o)
              for (int64_t i = 0; i < inner; ++i) {
                const auto at = [&](int64_t k) { return (o * axis + k) * inner + i; };
                double top = x[at(0)], sum = 0;
                for (int64_t k = 0; k < axis; ++k) top = std::max<double>(top, x[at(k)]);
                for (int64_t k = 0; k < axis; ++k) sum += std::exp(x[at(k)] - top);
                for (int64_t k = 0; k < axis; ++k) {
                  const double d = x[at(k)] - top, want = log ? d - std::log(sum) : std::exp(d) / sum;
                  // Rounding grows with the length of the sum and with the size of the exponent; below e^-87 the
                  // exponential is clamped.
                  const double tolerance =
                      log ? (std::fabs(d) + 8) * 0x1p-22 : want * (8 + axis / 4 + 2 * std::fabs(d)) * 0x1p-23 + 1e-37;
                  ok &= std::fabs(y[at(k)] - want) <= tolerance;
                }
              }
            char name[100];
            std::snprintf(name, sizeof name, "%s softmax axis %d inner %d log %d spread %g", isa_name(isa), int(axis),
                          int(inner), log, spread);
            testing::check(ok, name);
            if (inner == 1) continue;
          }
  return testing::finish("softmax", n_checks);
}
