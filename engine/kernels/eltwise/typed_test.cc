// Element-wise work of doubles and whole numbers: shapes that broadcast, and whole numbers that wrap.
#include "kernels/eltwise/typed.h"

#include "kernels/testing.h"

namespace {

using namespace secateur;

double exact(BinaryOp op, double a, double b) {
  const double of[] = {a + b, a - b, a * b, a / b, std::fmin(a, b), std::fmax(a, b), std::pow(a, b)};
  return of[static_cast<int>(op)];
}

void broadcasts(testing::Random& rng) {
  for (int round = 0; round < 200; ++round) {
    // Each axis of a, b or both may be 1; ranks may differ.
    int64_t a[4], b[4], out[kMaxRank], d[4], n_a = 1, n_b = 1;
    const int shorter = rng.below(3);
    for (int i = 0; i < 4; ++i) d[i] = 1 + rng.below(4), a[i] = rng.below(3) ? d[i] : 1, b[i] = rng.below(3) ? d[i] : 1;
    for (int i = 0; i < 4; ++i) n_a *= a[i], n_b *= i < shorter ? 1 : b[i];
    std::vector<double> x(static_cast<size_t>(n_a)), y(static_cast<size_t>(n_b)), z(256);
    for (double& v : x) v = 1 + rng.below(5);
    for (double& v : y) v = 1 + rng.below(3);
    Broadcast p;
    bool ok = make_broadcast(a, 4, b + shorter, 4 - shorter, p, out);
    p.op = static_cast<BinaryOp>(rng.below(7));
    binary_f64_ref(p, x.data(), y.data(), z.data());
    size_t at = 0;
    int64_t i[4];
    for (i[0] = 0; i[0] < out[0]; ++i[0])
      for (i[1] = 0; i[1] < out[1]; ++i[1])
        for (i[2] = 0; i[2] < out[2]; ++i[2])
          for (i[3] = 0; i[3] < out[3]; ++i[3]) {
            int64_t in_a = 0, in_b = 0;
            for (int k = 0; k < 4; ++k) in_a = in_a * a[k] + i[k] % a[k];
            for (int k = shorter; k < 4; ++k) in_b = in_b * b[k] + i[k] % b[k];
            ok &= z[at++] == exact(p.op, x[static_cast<size_t>(in_a)], y[static_cast<size_t>(in_b)]);
          }
    testing::check(ok, "broadcast, round " + std::to_string(round));
  }
  const int64_t two[] = {2}, three[] = {3};
  int64_t out[kMaxRank];
  Broadcast p;
  testing::check(!make_broadcast(two, 1, three, 1, p, out), "2 and 3 do not broadcast");
}

template <class T, class F>
void whole(const char* name, F&& run) {
  const T most = std::numeric_limits<T>::max(), least = std::numeric_limits<T>::min();
  struct Case {
    BinaryOp op;
    T a, b, want;
  };
  const Case cases[] = {{BinaryOp::kAdd, most, 1, least},   {BinaryOp::kSub, least, 1, most},
                        {BinaryOp::kMul, least, -1, least}, {BinaryOp::kDiv, 7, 0, 0},
                        {BinaryOp::kDiv, least, -1, least}, {BinaryOp::kDiv, -7, 2, -3},
                        {BinaryOp::kMin, -1, 1, -1},        {BinaryOp::kMax, -1, 1, 1}};
  for (const Case& c : cases) {
    Broadcast p;
    p.op = c.op, p.rank = 1, p.dims[0] = 1;
    T y = 5;
    run(p, &c.a, &c.b, &y);
    testing::check(y == c.want, std::string(name) + ", operator " + std::to_string(int(c.op)));
  }
}

}  // namespace

int main() {
  testing::Random rng(20240707);
  broadcasts(rng);
  whole<int64_t>("int64", [](auto&&... a) { binary_i64_ref(a...); });
  whole<int32_t>("int32", [](auto&&... a) { binary_i32_ref(a...); });
  return testing::finish("eltwise typed", 201 + 16);
}
