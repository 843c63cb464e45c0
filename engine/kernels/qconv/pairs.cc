// Blocks for kernels that multiply bytes and add in 16 bits: split until a sum fits, and put together two by two.
#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "kernels/qconv/packed.h"

namespace secateur {
namespace {

// A 16-bit lane adds two weights of each block. Its positive products and its negative ones may not pass 32767 and
// 32768: 255 * 128 = 32640 does not, 255 * 129 does. Weights of both signs never meet at once.
constexpr int kMostSide = 128;

// Sums of the positive and of the negative weights of the two lanes of every output.
template <int kRows>
struct Sides {
  int16_t at[4 * kRows];

  explicit Sides(const int8_t* w) : at{} {
    for (int k = 0; k < 4 * kRows; ++k)
      at[k / 4 * 4 + k % 4 / 2 + (w[k] < 0 ? 2 : 0)] += static_cast<int16_t>(std::abs(int{w[k]}));
  }
  int largest() const { return *std::max_element(at, at + 4 * kRows); }
  bool fits(const Sides& other) const {
    int most = 0;
    for (int k = 0; k < 4 * kRows; ++k) most = std::max(most, at[k] + other.at[k]);
    return most <= kMostSide;
  }
};

// Part i of n nearly equal ones.
int share(int w, int i, int n) { return w * (i + 1) / n - w * i / n; }

}  // namespace

template <int kRows>
void add_byte_blocks(int32_t at, const int16_t* w, std::vector<ByteBlock<kRows>>& to) {
  const size_t first = to.size();
  for (int n = 1;; ++n) {
    bool all = true;
    for (int i = 0; i < n && all; ++i) {
      ByteBlock<kRows> b{at, {}};
      for (int k = 0; k < 4 * kRows; ++k) {
        const int v = share(w[k], i, n);
        all = all && v >= -128 && v <= 127;
        b.w[k] = static_cast<int8_t>(v);
      }
      all = all && Sides<kRows>(b.w).largest() <= kMostSide;
      to.push_back(b);
    }
    if (all) return;
    to.resize(first);
  }
}

bool place_columns(const int16_t* w, int columns, int8_t to[4]) {
  const auto fits = [&](int first, int rest) {
    int v[4] = {first, 0, 0, 0};
    for (int k = 1; k < columns; ++k) v[k] = w[k];
    for (int k = columns; k < 4; ++k) v[k] = share(rest, k - columns, 4 - columns);
    for (int k = 0; k < 4; ++k) {
      if (v[k] < -128 || v[k] > 127) return false;
      to[k] = static_cast<int8_t>(v[k]);
    }
    return Sides<1>(to).largest() <= kMostSide;
  };
  if (fits(w[0], 0)) return true;
  for (int first = -128; first <= 127 && columns < 4; ++first)
    if (fits(first, w[0] - first)) return true;
  return false;
}

template <int kRows>
void pair_blocks(std::vector<ByteBlock<kRows>>& blocks) {
  const int n = static_cast<int>(blocks.size());
  std::vector<Sides<kRows>> sides;
  for (const auto& b : blocks) sides.emplace_back(b.w);
  std::vector<int> order(blocks.size()), most;
  std::iota(order.begin(), order.end(), 0);
  for (const auto& s : sides) most.push_back(s.largest());
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return most[size_t(a)] > most[size_t(b)]; });
  // The largest with one of the smallest that fit, the nearest in the panel: what lies apart comes from farther caches.
  constexpr int kTries = 32, kMore = 12;
  std::vector<ByteBlock<kRows>> pairs;
  std::vector<char> used(blocks.size(), 0);
  int last = n - 1;
  for (int i = 0; i < n; ++i) {
    const int a = order[size_t(i)];
    if (used[size_t(a)]) continue;
    while (last > i && used[size_t(order[size_t(last)])]) --last;
    const ByteBlock<kRows>& first = blocks[size_t(a)];
    const auto distance = [&](int b) { return std::abs(int64_t{first.at} - blocks[size_t(b)].at); };
    int best = -1;
    for (int k = last, left = kTries; k > i && left > 0; --k) {
      const int b = order[size_t(k)];
      if (used[size_t(b)]) continue;
      --left;
      if (!sides[size_t(a)].fits(sides[size_t(b)])) continue;
      if (best < 0) left = std::min(left, kMore);
      if (best < 0 || distance(b) < distance(best)) best = b;
    }
    ByteBlock<kRows> second{first.at, {}};
    if (best >= 0) second = blocks[size_t(best)], used[size_t(best)] = 1;
    pairs.push_back(first);
    pairs.push_back(second);
  }
  // Neighbours in the panel lie in the same cache.
  std::vector<int> sorted(pairs.size() / 2);
  std::iota(sorted.begin(), sorted.end(), 0);
  const auto at = [&](int k) {
    return std::min(static_cast<uint32_t>(pairs[2 * size_t(k)].at), static_cast<uint32_t>(pairs[2 * size_t(k) + 1].at));
  };
  std::stable_sort(sorted.begin(), sorted.end(), [&](int a, int b) { return at(a) < at(b); });
  blocks.clear();
  for (int k : sorted) blocks.insert(blocks.end(), pairs.begin() + 2 * k, pairs.begin() + 2 * k + 2);
}

template void add_byte_blocks<1>(int32_t, const int16_t*, std::vector<ByteBlock<1>>&);
template void add_byte_blocks<4>(int32_t, const int16_t*, std::vector<ByteBlock<4>>&);
template void pair_blocks<1>(std::vector<ByteBlock<1>>&);
template void pair_blocks<4>(std::vector<ByteBlock<4>>&);

}  // namespace secateur
