#include "plan/memory.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "base/arena.h"

namespace secateur {
namespace {

size_t need(const Lifetime& life) { return align_up(life.nbytes) + kAlign; }

std::vector<size_t> indices(size_t n) {
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  return order;
}

Placement place_largest_first(const std::vector<Lifetime>& lives) {
  std::vector<size_t> order = indices(lives.size());
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return lives[a].nbytes > lives[b].nbytes; });
  Placement placed{std::vector<size_t>(lives.size()), 0};
  std::vector<std::pair<size_t, size_t>> busy;  // [begin, end) of those placed that live at the same time
  for (size_t k = 0; k < order.size(); ++k) {
    const Lifetime& life = lives[order[k]];
    busy.clear();
    for (size_t j = 0; j < k; ++j) {
      const Lifetime& other = lives[order[j]];
      if (other.last < life.first || life.last < other.first) continue;
      busy.emplace_back(placed.offsets[order[j]], placed.offsets[order[j]] + need(other));
    }
    std::sort(busy.begin(), busy.end());
    size_t at = 0;
    for (const auto& [begin, end] : busy) {
      if (at + need(life) <= begin) break;
      at = std::max(at, end);
    }
    placed.offsets[order[k]] = at;
    placed.total = std::max(placed.total, at + need(life));
  }
  return placed;
}

// Free ranges of the arena, neighbours joined.
class Holes {
 public:
  void open(size_t begin, size_t end) {
    auto next = ends_.lower_bound(begin);
    if (next != ends_.end() && next->first == end) {
      end = next->second;
      next = erase(next);
    }
    if (next != ends_.begin()) {
      const auto previous = std::prev(next);
      if (previous->second == begin) {
        begin = previous->first;
        erase(previous);
      }
    }
    ends_[begin] = end;
    by_size_.emplace(end - begin, begin);
  }
  // Takes nbytes of the smallest hole that has them; false where none has.
  bool take(size_t nbytes, size_t* begin) {
    const auto fit = by_size_.lower_bound({nbytes, 0});
    if (fit == by_size_.end()) return false;
    const size_t size = fit->first;
    *begin = fit->second;
    erase(ends_.find(*begin));
    if (size > nbytes) open(*begin + nbytes, *begin + size);
    return true;
  }

 private:
  using Ends = std::map<size_t, size_t>;  // begin -> end
  Ends::iterator erase(Ends::iterator hole) {
    by_size_.erase({hole->second - hole->first, hole->first});
    return ends_.erase(hole);
  }

  Ends ends_;
  std::set<std::pair<size_t, size_t>> by_size_;  // (size, begin)
};

Placement place_in_order(const std::vector<Lifetime>& lives) {
  std::vector<size_t> order = indices(lives.size());
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return lives[a].first < lives[b].first; });
  Placement placed{std::vector<size_t>(lives.size()), 0};
  Holes holes;
  std::multimap<int, size_t> living;  // by last step
  for (size_t i : order) {
    const Lifetime& life = lives[i];
    while (!living.empty() && living.begin()->first < life.first) {
      const size_t gone = living.begin()->second;
      holes.open(placed.offsets[gone], placed.offsets[gone] + need(lives[gone]));
      living.erase(living.begin());
    }
    if (!holes.take(need(life), &placed.offsets[i])) {
      placed.offsets[i] = placed.total;
      placed.total += need(life);
    }
    living.emplace(std::max(life.last, life.first), i);
  }
  return placed;
}

}  // namespace

Placement place(const std::vector<Lifetime>& lives) {
  return lives.size() > kManyBuffers ? place_in_order(lives) : place_largest_first(lives);
}

}  // namespace secateur
