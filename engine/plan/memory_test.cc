// Placement of buffers: no two that live at once overlap, small cases by hand, chains take the room of two.
#include "plan/memory.h"

#include <algorithm>

#include "base/arena.h"
#include "kernels/testing.h"

namespace secateur {
namespace {

size_t room(size_t nbytes) { return align_up(nbytes) + kAlign; }

// What the placement must keep whatever its order: alignment, the arena's end, and no overlap during a common step.
bool sound(const std::vector<Lifetime>& lives, const Placement& p) {
  if (p.offsets.size() != lives.size()) return false;
  std::vector<size_t> order(lives.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return lives[a].first < lives[b].first; });
  for (size_t k = 0; k < order.size(); ++k) {
    const size_t a = order[k];
    if (p.offsets[a] % kAlign || p.offsets[a] + room(lives[a].nbytes) > p.total) return false;
    for (size_t j = k + 1; j < order.size() && lives[order[j]].first <= lives[a].last; ++j) {
      const size_t b = order[j];
      const bool apart =
          p.offsets[a] + room(lives[a].nbytes) <= p.offsets[b] || p.offsets[b] + room(lives[b].nbytes) <= p.offsets[a];
      if (!apart) return false;
    }
  }
  return true;
}

std::vector<Lifetime> random_lives(size_t n, testing::Random& rng) {
  std::vector<Lifetime> lives;
  for (size_t i = 0; i < n; ++i) {
    const int first = rng.below(static_cast<int>(n)) - 1;
    lives.push_back({static_cast<size_t>(rng.below(5000)), first, first + rng.below(12)});
  }
  return lives;
}

// A chain a -> b -> c ... of equal sizes needs the room of two, by either order.
std::vector<Lifetime> chain(size_t n) {
  std::vector<Lifetime> lives;
  for (size_t i = 0; i < n; ++i) lives.push_back({1000, static_cast<int>(i), static_cast<int>(i) + 1});
  return lives;
}

}  // namespace
}  // namespace secateur

int main() {
  using namespace secateur;
  int64_t n_checks = 0;
  const auto check = [&](bool ok, const std::string& what) {
    ++n_checks;
    testing::check(ok, what);
  };
  check(place({}).total == 0, "nothing takes nothing");
  check(place({{0, 0, 0}}).total == kAlign, "an empty buffer has room behind it");
  // The second lives at step 2 only, when the first is gone; the third lives throughout.
  const Placement p = place({{640, 0, 1}, {64, 2, 2}, {320, -1, 2}});
  check(p.offsets == std::vector<size_t>{0, 0, 704} && p.total == 704 + 384, "by hand");
  for (const size_t n : {size_t{50}, kManyBuffers + 1}) {
    const auto lives = chain(n);
    const Placement two = place(lives);
    check(sound(lives, two) && two.total == 2 * room(1000), "a chain of " + std::to_string(n));
  }
  testing::Random rng(7);
  for (const size_t n : {size_t{1}, size_t{2}, size_t{17}, size_t{300}, kManyBuffers, kManyBuffers + 1}) {
    const auto lives = random_lives(n, rng);
    check(sound(lives, place(lives)), std::to_string(n) + " random buffers");
  }
  return testing::finish("memory", n_checks);
}
