// Copies, fills and triangles: permuted, repeated and reversed walks of every element size against indices by hand.
#include "kernels/move/move.h"

#include "kernels/testing.h"

namespace {

using namespace secateur;

template <class T>
void copies(testing::Random& rng) {
  for (int round = 0; round < 200; ++round) {
    const int64_t d[3] = {1 + rng.below(5), 1 + rng.below(5), 1 + rng.below(5)};
    std::vector<T> x(static_cast<size_t>(d[0] * d[1] * d[2])), y(x.size() + 2, T(99));
    for (T& v : x) v = static_cast<T>(rng.below(90));
    int perm[3] = {0, 1, 2};
    std::shuffle(perm, perm + 3, std::mt19937(static_cast<uint32_t>(round)));
    const bool back = rng.below(2), repeat = rng.below(3) == 0;  // the last axis reversed, the first one element only
    const int64_t step[3] = {d[1] * d[2], d[2], 1};
    Copy c;
    c.rank = 3, c.element = sizeof(T), c.offset_dst = 1;
    int64_t run = 1;
    for (int i = 2; i >= 0; --i) {
      c.dims[i] = d[perm[i]], c.stride_src[i] = step[perm[i]], c.stride_dst[i] = run;
      run *= c.dims[i];
    }
    if (back) c.offset_src = (c.dims[2] - 1) * c.stride_src[2], c.stride_src[2] = -c.stride_src[2];
    if (repeat) c.stride_src[0] = 0;
    const Copy asked = c;
    simplify(c);
    copy_ref(c, x.data(), y.data());
    bool ok = y.front() == T(99) && y.back() == T(99) && c.rank <= asked.rank;
    size_t at = 1;
    for (int64_t i = 0; i < asked.dims[0]; ++i)
      for (int64_t j = 0; j < asked.dims[1]; ++j)
        for (int64_t k = 0; k < asked.dims[2]; ++k) {
          const int64_t from =
              asked.offset_src + i * asked.stride_src[0] + j * asked.stride_src[1] + k * asked.stride_src[2];
          ok &= y[at++] == x[static_cast<size_t>(from)];
        }
    testing::check(ok, "copy of " + std::to_string(sizeof(T)) + " bytes, round " + std::to_string(round));
  }
}

template <class T>
void triangles() {
  for (bool upper : {false, true})
    for (int64_t k = -5; k <= 5; ++k) {
      std::vector<T> x(2 * 3 * 4, T(7)), y(x.size(), T(1));
      Triangle t;
      t.n = 2, t.rows = 3, t.cols = 4, t.k = k, t.upper = upper, t.element = sizeof(T);
      triangle_ref(t, x.data(), y.data());
      bool ok = true;
      for (int64_t i = 0; i < 24; ++i) {
        const int64_t row = i / 4 % 3, col = i % 4;
        const bool kept = upper ? col - row >= k : col - row <= k;
        ok &= y[static_cast<size_t>(i)] == (kept ? T(7) : T(0));
      }
      testing::check(ok, "triangle k " + std::to_string(k) + " of " + std::to_string(sizeof(T)) + " bytes");
    }
}

template <class T>
void fills() {
  for (int64_t n : {0, 1, 3, 16, 33}) {
    std::vector<T> y(static_cast<size_t>(n) + 1, T(5));
    const T value = T(3);
    fill_ref(y.data(), n, &value, sizeof(T));
    testing::check(std::count(y.begin(), y.end(), T(3)) == n && y.back() == T(5), "fill of " + std::to_string(n));
  }
}

}  // namespace

int main() {
  testing::Random rng(20240701);
  const auto all = [&]<class T>(T) { copies<T>(rng), triangles<T>(), fills<T>(); };
  all(uint8_t{}), all(int16_t{}), all(float{}), all(double{});
  return testing::finish("move", 4 * (200 + 22 + 5));
}
