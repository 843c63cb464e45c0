// Reductions over every set of axes against double (float32) and int64, the operators by hand.
#include "kernels/reduce/reduce.h"

#include "kernels/testing.h"

namespace {

using namespace secateur;

constexpr ReduceOp kOps[] = {ReduceOp::kMean,   ReduceOp::kSum,      ReduceOp::kMax, ReduceOp::kMin,
                             ReduceOp::kProd,   ReduceOp::kL1,       ReduceOp::kL2,  ReduceOp::kSumSquare,
                             ReduceOp::kLogSum, ReduceOp::kLogSumExp};

double exact(ReduceOp op, const std::vector<double>& v) {
  double sum = 0, squares = 0, size = 0, product = 1, powers = 0;
  for (double x : v) sum += x, squares += x * x, size += std::fabs(x), product *= x, powers += std::exp(x);
  switch (op) {
    case ReduceOp::kMean:
      return sum / static_cast<double>(v.size());
    case ReduceOp::kSum:
      return sum;
    case ReduceOp::kMax:
      return *std::max_element(v.begin(), v.end());
    case ReduceOp::kMin:
      return *std::min_element(v.begin(), v.end());
    case ReduceOp::kProd:
      return product;
    case ReduceOp::kL1:
      return size;
    case ReduceOp::kL2:
      return std::sqrt(squares);
    case ReduceOp::kSumSquare:
      return squares;
    case ReduceOp::kLogSum:
      return std::log(sum);
    case ReduceOp::kLogSumExp:
      return std::log(powers);
  }
  return 0;
}

// The elements that go into each result, in the results' order.
std::vector<std::vector<double>> parts(const Reduce& p, const std::vector<double>& x) {
  std::vector<std::vector<double>> all;
  std::vector<int64_t> where(x.size());
  int64_t n_out = 1;
  for (int a = 0; a < p.rank; ++a) n_out *= p.reduce[a] ? 1 : p.dims[a];
  all.resize(static_cast<size_t>(n_out));
  for (size_t i = 0; i < x.size(); ++i) {
    int64_t rest = static_cast<int64_t>(i), at = 0, step = 1;
    for (int a = p.rank - 1; a >= 0; --a) {
      const int64_t index = rest % p.dims[a];
      rest /= p.dims[a];
      if (p.reduce[a]) continue;
      at += index * step;
      step *= p.dims[a];
    }
    all[static_cast<size_t>(at)].push_back(x[i]);
  }
  return all;
}

}  // namespace

int main() {
  testing::Random rng(20240705);
  int64_t n_checks = 0;
  for (int axes = 0; axes < 8; ++axes)
    for (const ReduceOp op : kOps)
      for (int round = 0; round < 5; ++round) {
        Reduce p;
        p.op = op, p.rank = 3;
        size_t n = 1;
        for (int a = 0; a < 3; ++a) p.dims[a] = 1 + rng.below(5), p.reduce[a] = axes >> a & 1, n *= size_t(p.dims[a]);
        std::vector<double> x(n);
        std::vector<float> f(n), y(n);
        std::vector<int64_t> whole(n), z(n);
        for (size_t i = 0; i < n; ++i) {
          f[i] = op == ReduceOp::kLogSum ? float(rng.unit()) + 0.1f : rng.normal();
          x[i] = f[i], whole[i] = 1 + rng.below(3);
        }
        reduce_f32_ref(p, f.data(), y.data());
        const auto want = parts(p, x);
        bool ok = true;
        for (size_t i = 0; i < want.size(); ++i)
          ok &= std::fabs(y[i] - exact(op, want[i])) <= 0x1p-22 * std::max(1.0, std::fabs(exact(op, want[i])));
        ++n_checks;
        testing::check(ok, "float32, operator " + std::to_string(int(op)) + " over axes " + std::to_string(axes));
        if (op == ReduceOp::kMean || op == ReduceOp::kL2 || op == ReduceOp::kLogSum || op == ReduceOp::kLogSumExp)
          continue;
        reduce_i64_ref(p, whole.data(), z.data());
        const auto exactly = parts(p, std::vector<double>(whole.begin(), whole.end()));
        ok = true;
        for (size_t i = 0; i < exactly.size(); ++i) ok &= double(z[i]) == exact(op, exactly[i]);
        ++n_checks;
        testing::check(ok, "int64, operator " + std::to_string(int(op)) + " over axes " + std::to_string(axes));
      }
  return testing::finish("reduce", n_checks);
}
