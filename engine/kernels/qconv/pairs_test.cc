// Pairs of blocks: their sums are those of the blocks, no 16-bit sum saturates, and few blocks stay alone.
#include <algorithm>
#include <array>
#include <map>

#include "kernels/qconv/packed.h"
#include "kernels/testing.h"

using namespace secateur;

namespace {

template <int kRows>
using Weights = std::array<int16_t, 4 * kRows>;

int normal(testing::Random& rng) {
  return std::clamp(rng.below(65) + rng.below(65) + rng.below(65) + rng.below(65) - 128, -127, 127);
}

// What the lanes of a pair can reach with activations of 0 and 255, product by product saturated as the instruction is.
template <int kRows>
bool saturates(const ByteBlock<kRows>& a, const ByteBlock<kRows>& b) {
  for (int x = 0; x < 16; ++x) {
    for (int lane = 0; lane < 2 * kRows; ++lane) {
      int sum = 0;
      for (const auto* block : {&a, &b}) {
        const int bits = block == &a ? x : x >> 2;
        int both = 0;
        for (int k = 0; k < 2; ++k) both += ((bits >> k) & 1 ? 255 : 0) * block->w[2 * lane + k];
        if (both < -32768 || both > 32767) return true;
        sum += both;
      }
      if (sum < -32768 || sum > 32767) return true;
    }
  }
  return false;
}

// Products for a block.
template <int kRows>
double check(const std::vector<Weights<kRows>>& all, const std::string& what) {
  std::vector<ByteBlock<kRows>> blocks;
  for (size_t i = 0; i < all.size(); ++i) add_byte_blocks(static_cast<int32_t>(i), all[i].data(), blocks);
  pair_blocks(blocks);
  testing::check(blocks.size() % 2 == 0, what + ": pairs");
  std::vector<std::array<int, 4 * kRows>> sums(all.size(), std::array<int, 4 * kRows>{});
  bool fits = true;
  for (size_t i = 0; i < blocks.size(); i += 2) {
    fits = fits && !saturates(blocks[i], blocks[i + 1]);
    for (size_t k = i; k < i + 2; ++k)
      for (int c = 0; c < 4 * kRows; ++c) sums[static_cast<size_t>(blocks[k].at)][size_t(c)] += blocks[k].w[c];
  }
  testing::check(fits, what + ": a sum saturates");
  bool same = true;
  for (size_t i = 0; i < all.size(); ++i)
    for (size_t c = 0; c < 4 * kRows; ++c) same = same && sums[i][c] == all[i][c];
  testing::check(same, what + ": weights");
  return double(blocks.size()) / double(std::max<size_t>(1, all.size()));
}

template <int kRows, class Draw>
double of(size_t n, const std::string& what, Draw draw) {
  std::vector<Weights<kRows>> all(n);
  for (auto& w : all)
    for (auto& v : w) v = static_cast<int16_t>(draw());
  return check<kRows>(all, what);
}

}  // namespace

template <int kRows>
void all_kinds(testing::Random& rng) {
  for (size_t n : {0, 1, 2, 3, 17, 500}) {
    const std::string blocks = std::to_string(n) + " blocks of ";
    of<kRows>(n, blocks + "normal codes", [&] { return normal(rng); });
    of<kRows>(n, blocks + "uniform codes", [&] { return rng.below(256) - 128; });
    of<kRows>(n, blocks + "nine bits", [&] { return rng.below(511) - 255; });
    of<kRows>(n, blocks + "three values", [&] { return 127 * (rng.below(3) - 1); });
    of<kRows>(n, blocks + "the least", [] { return -128; });
    of<kRows>(n, blocks + "the greatest", [] { return 127; });
    of<kRows>(n, blocks + "-255", [] { return -255; });
    of<kRows>(n, blocks + "255", [] { return 255; });
  }
}

// Columns that a kernel has not share the first one's weight.
void columns(testing::Random& rng) {
  for (int n = 1; n <= 4; ++n)
    for (int i = 0; i < 2000; ++i) {
      int16_t w[4] = {};
      for (int k = 0; k < n; ++k) w[k] = static_cast<int16_t>(rng.below(i % 2 ? 511 : 256) - (i % 2 ? 255 : 128));
      ByteBlock<1> b{0, {}};
      if (!place_columns(w, n, b.w)) continue;
      int first = b.w[0];
      bool same = true;
      for (int k = 1; k < 4; ++k) k < n ? same = same && b.w[k] == w[k] : first += b.w[k];
      testing::check(same && first == w[0], "columns: weights");
      testing::check(!saturates(b, ByteBlock<1>{0, {}}), "columns: a sum saturates");
    }
  int8_t to[4];
  const int16_t spare[] = {127, 127, -20}, full[] = {127, 127, 127};
  testing::check(place_columns(spare, 3, to) && to[0] <= 1, "the fourth column takes what the first has no room for");
  testing::check(!place_columns(full, 3, to), "381 of one sign are too many");
}

int main() {
  testing::Random rng(11);
  all_kinds<1>(rng);
  all_kinds<4>(rng);
  columns(rng);
  testing::check(of<1>(500, "normal codes", [&] { return normal(rng); }) < 1.1,
                 "normal codes: few blocks are split or alone");
  testing::check(of<1>(500, "seven bits", [&] { return std::clamp(normal(rng) / 2, -63, 63); }) == 1.0,
                 "codes of seven bits: no block is split or alone");
  testing::check(of<4>(500, "normal codes", [&] { return normal(rng); }) < 1.4, "four outputs: some are");
  // The bound itself: 128 of one sign fit, 129 do not; of both signs they never meet.
  testing::check(check<1>({{64, 64, -64, -64}}, "bound") == 2, "one block of 128 and one of zeros");
  testing::check(check<1>({{65, 64, 0, 0}}, "beyond") == 4, "129 of one sign are two blocks, neither fits the other");
  testing::check(check<1>({{64, 0, 0, 0}, {64, 0, 0, 0}}, "two") == 1, "two of 64 are a pair");
  testing::check(check<1>({{127, -127, 0, 0}, {0, 0, 127, -127}}, "signs") == 1, "signs do not add");
  return testing::finish("qconv pairs", 60);
}
