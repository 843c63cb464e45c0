// Comparisons and selection of several types, with broadcasting, against indices by hand; NaN equals nothing.
#include "kernels/logic/logic.h"

#include "kernels/testing.h"

namespace {

using namespace secateur;

bool holds(Relation op, double a, double b) {
  const bool p = a != 0, q = b != 0;
  const bool of[] = {a == b, a > b, a >= b, a < b, a <= b, p && q, p || q, p != q};
  return of[static_cast<int>(op)];
}

template <class T>
void compare(testing::Random& rng, bool with_nan) {
  // a [2, 3, 1], b [3, 4]
  std::vector<T> a(6), b(12);
  for (auto* v : {&a, &b})
    for (T& x : *v) x = with_nan && rng.below(5) == 0 ? static_cast<T>(std::nan("")) : static_cast<T>(rng.below(3));
  Walk w;
  w.rank = 3;
  const int64_t dims[] = {2, 3, 4}, of_a[] = {3, 1, 0}, of_b[] = {0, 4, 1};
  for (int i = 0; i < 3; ++i) w.dims[i] = dims[i], w.stride[0][i] = of_a[i], w.stride[1][i] = of_b[i];
  for (int op = 0; op < 8; ++op) {
    bool y[24];
    compare_ref(w, static_cast<Relation>(op), a.data(), b.data(), y);
    bool ok = true;
    for (int i = 0; i < 24; ++i)
      ok &= y[i] == holds(static_cast<Relation>(op), double(a[size_t(i / 4)]), double(b[size_t(i % 12)]));
    testing::check(ok, "relation " + std::to_string(op) + " of " + std::to_string(sizeof(T)) + " bytes");
  }
}

}  // namespace

int main() {
  testing::Random rng(20240706);
  for (int round = 0; round < 20; ++round) {
    compare<float>(rng, true);
    compare<double>(rng, true);
    compare<int64_t>(rng, false);
    compare<uint8_t>(rng, false);
  }
  // c [2, 1], a [3], b one number: what is not zero is true.
  const uint8_t c[] = {2, 0};
  const int32_t a[] = {1, 2, 3}, b[] = {9};
  Walk w;
  w.rank = 2, w.dims[0] = 2, w.dims[1] = 3, w.stride[0][0] = 1, w.stride[1][1] = 1;
  int32_t y[6];
  where_ref(w, c, a, b, y);
  const int32_t want[] = {1, 2, 3, 9, 9, 9};
  testing::check(std::equal(y, y + 6, want), "where by hand");
  return testing::finish("logic", 20 * 4 * 8 + 1);
}
