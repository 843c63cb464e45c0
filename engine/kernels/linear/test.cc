// Every kernel of the table this machine can run, against sums in double, around block edges and at odd densities.
#include "base/arena.h"
#include "kernels/linear/linear.h"
#include "kernels/testing.h"

namespace secateur {
namespace {

using testing::check;
using testing::Guarded;
using testing::Random;

int64_t n_checks = 0;
Threads two(2), three(3);

void run_case(int in, int out, int64_t rows, double density, const Epilogue& e, bool with_bias, Random& rng,
              int block = 1) {
  const int skew = rng.below(3);
  Guarded x(rows * in, skew), residual(rows * out, skew);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = rng.normal();
  for (int64_t i = 0; i < residual.size(); ++i) residual[i] = rng.normal();
  std::vector<float> w = testing::sparse_weights(int64_t{in} * out, density, rng);
  for (int o = 0; o < out; ++o)  // features of a block have the same inputs
    for (int i = 0; i < in; ++i)
      if (w[int64_t{o / block * block} * in + i] == 0) w[int64_t{o} * in + i] = 0;
  const LinearDensity found = measure_density({in, out}, w.data());
  int64_t nnz = 0, blocks = 0;
  for (int first = 0; first < out; first += 16)
    for (int i = 0; i < in; ++i) {
      int n = 0;
      for (int o = first; o < std::min(out, first + 16); ++o) n += w[int64_t{o} * in + i] != 0;
      nnz += n;
      blocks += n > 0;
    }
  check(found.nnz == nnz && found.blocks == blocks, "density of the weights");
  std::vector<float> bias(out);
  for (auto& b : bias) b = with_bias ? rng.normal() : 0.0f;
  std::vector<double> want(rows * out), tolerance(rows * out);
  for (int64_t r = 0; r < rows; ++r)
    for (int o = 0; o < out; ++o) {
      double sum = bias[o], mag = std::fabs(sum);
      int terms = 2;
      for (int i = 0; i < in; ++i) {
        const double t = double(w[int64_t{o} * in + i]) * x[r * in + i];
        sum += t;
        mag += std::fabs(t);
        terms += t != 0;
      }
      if (e.residual) {
        sum += residual[r * out + o];
        mag += std::fabs(residual[r * out + o]);
      }
      if (sum < 0) sum *= e.act.slope;
      want[r * out + o] = std::min<double>(std::max<double>(sum, e.act.lo), e.act.hi);
      tolerance[r * out + o] = mag * (terms + 2) * 0x1p-24 + 1e-30;
    }
  for (const LinearKernel& k : linear_kernels()) {
    if (!isa_available(k.isa)) continue;
    ++n_checks;
    const auto p = k.pack(k, LinearShape{in, out}, e, w.data(), with_bias ? bias.data() : nullptr, rows);
    Guarded y(rows * out, skew, 7.0f), again(rows * out, 1, 7.0f);
    Guarded scratch(static_cast<int64_t>(p->scratch_bytes(rows, 3) / 4), 0, std::numeric_limits<float>::quiet_NaN());
    LinearArgs args{x.data(), y.data(), e.residual ? residual.data() : nullptr, rows, scratch.data(), nullptr};
    k.run(*p, args);
    char name[200];
    std::snprintf(name, sizeof name, "%s in %d out %d rows %lld density %g residual %d", k.name, in, out,
                  static_cast<long long>(rows), density, e.residual);
    check(y.intact() && x.intact() && scratch.intact(), std::string(name) + ": wrote outside its buffers");
    for (int64_t i = 0; i < rows * out; ++i) {
      if (std::fabs(y[i] - want[i]) <= tolerance[i]) continue;
      char text[80];
      std::snprintf(text, sizeof text, ": y[%lld] = %.9g, expected %.9g", static_cast<long long>(i), y[i], want[i]);
      check(false, std::string(name) + text);
      break;
    }
    if (rows > 1 && n_checks % 4 == 0) {  // packed for one row: right for many too
      const auto single = k.pack(k, LinearShape{in, out}, e, w.data(), with_bias ? bias.data() : nullptr, 1);
      Guarded other(rows * out, skew, 7.0f), room(static_cast<int64_t>(single->scratch_bytes(rows, 1) / 4));
      k.run(*single, {x.data(), other.data(), args.residual, rows, room.data(), nullptr});
      for (int64_t i = 0; i < rows * out; ++i)
        check(std::fabs(other[i] - want[i]) <= tolerance[i], std::string(name) + ": packed for one row");
      check(other.intact() && room.intact(), std::string(name) + ": packed for one row, wrote outside its buffers");
    }
    if (k.family == LinearFamily::kReference || (n_checks % 4 != 0 && rows * out < 10000)) continue;
    for (Threads* threads : {&two, &three}) {
      args.y = again.data();
      args.threads = threads;
      k.run(*p, args);
      check(again.intact() && std::memcmp(again.data(), y.data(), static_cast<size_t>(rows * out) * 4) == 0,
            std::string(name) + ": depends on the number of threads");
    }
  }
}

}  // namespace
}  // namespace secateur

int main() {
  using namespace secateur;
  const uint32_t seed = 20240612;
  std::printf("seed %u\n", seed);
  Random rng(seed);
  Epilogue plain, relu, residual, leaky;
  relu.act = Activation::relu();
  residual.act = Activation::clip(-1.0f, 1.5f);
  residual.residual = true;
  leaky.act = Activation::leaky(0.1f);
  for (int64_t rows : {1, 2, 5, 6, 7, 15, 16, 17, 33, 64, 65, 70})
    for (int out : {1, 2, 7, 8, 9, 10, 15, 16, 17, 31, 33, 63, 64, 65, 100})
      for (const Epilogue* e : {&plain, &residual}) run_case(1 + rng.below(40), out, rows, rng.unit(), *e, true, rng);
  for (double density : {0.0, -1.0, 0.02, 0.5, 1.0})
    for (const Epilogue* e : {&plain, &relu, &residual, &leaky})
      for (int64_t rows : {1, 4, 20}) {
        run_case(1, 1, rows, density, *e, false, rng);
        run_case(57, 41, rows, density, *e, true, rng);
        run_case(300, 100, rows, density, *e, true, rng);
      }
  for (int block : {2, 16})
    for (int64_t rows : {1, 2, 3, 8, 9, 21}) run_case(90, 70, rows, 0.2, residual, true, rng, block);
  {
    std::vector<float> w(40 * 24), turned(40 * 24);
    for (auto& v : w) v = rng.below(9) == 0 ? rng.normal() : 0.0f;
    for (int o = 0; o < 24; ++o)
      for (int i = 0; i < 40; ++i) turned[i * 24 + o] = w[o * 40 + i];
    const LinearDensity a = measure_density({40, 24}, w.data()), b = measure_density({40, 24}, turned.data(), false);
    check(a.nnz == b.nnz && a.blocks == b.blocks, "density of the weights, either way round");
    const LinearDensity tenth{78400, 4900}, scattered{78400, 49000};
    check(linear_candidates(Isa::kAvx512, {784, 1000}, 1, tenth)[0].kernel->family == LinearFamily::kBlock,
          "blocks are seen");
    check(linear_candidates(Isa::kAvx512, {784, 1000}, 1, scattered)[0].kernel->family == LinearFamily::kSparse,
          "no blocks are seen");
  }
  run_case(800, 500, 1, 0.002, relu, true, rng);
  run_case(70000, 12, 1, 0.01, relu, true, rng);  // 32-bit columns
  run_case(768, 640, 1, 0.1, residual, true, rng);
  run_case(512, 384, 40, 0.1, residual, true, rng);
  // Many rows: several chunks of inputs, units that wait their turn, inputs that no chunk divides.
  for (int64_t rows : {9, 64, 67}) {
    run_case(701, 130, rows, 0.3, residual, true, rng);
    run_case(501, 577, rows, 0.2, leaky, true, rng);
    run_case(70001, 5, rows, 0.001, relu, true, rng);
  }
  return testing::finish("linear", n_checks);
}
