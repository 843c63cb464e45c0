// What a choice between kernels is made of, the same for conv, linear and qconv.
#pragma once

#include <algorithm>
#include <cstdio>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/cpu.h"

namespace secateur {

// How a layer is cut, in numbers of the kernel's own (its tiling.h); all 0: as its cost model says.
struct Tile {
  int rows = 0, chunk = 0, block = 0, form = 0;
  bool operator==(const Tile&) const = default;
};

// One way to compute a layer.
template <class Kernel>
struct Candidate {
  const Kernel* kernel = nullptr;
  Tile tile;
  double predicted_us = 0;  // of one image (conv, qconv) or of all rows (linear), on one thread
};

// Asks offer(kernel, ways) for the ways of every kernel up to the ISA and returns them best first. Narrower vectors of
// the same machine may win on maps of a few pixels, but what differs by less than the models' error, 15 %, goes to the
// widest; baseline code and the reference are asked only where nothing else can.
template <class Kernel, class Offer>
std::vector<Candidate<Kernel>> offers(Isa isa, std::span<const Kernel> table, Offer&& offer) {
  std::vector<Candidate<Kernel>> ways;
  for (Isa level = isa;; level = static_cast<Isa>(static_cast<int>(level) - 1)) {
    if (level < Isa::kAvx2 && !ways.empty()) break;
    for (const Kernel& k : table)
      if (k.isa == level && isa_available(level)) offer(k, ways);
    if (level == Isa::kRef) break;
  }
  if (ways.empty()) return ways;
  const Isa widest = ways.front().kernel->isa;
  const auto cost = [&](const Candidate<Kernel>& c) { return c.predicted_us / (c.kernel->isa == widest ? 1.0 : 0.85); };
  std::stable_sort(ways.begin(), ways.end(), [&](const auto& a, const auto& b) { return cost(a) < cost(b); });
  return ways;
}

// Puts `way` where it belongs among the at most `most` cheapest; the first of equals stays first.
template <class Way, class Cost>
void keep_best(std::vector<Way>& best, const Way& way, int most, Cost&& cost) {
  const auto at =
      std::upper_bound(best.begin(), best.end(), way, [&](const Way& a, const Way& b) { return cost(a) < cost(b); });
  if (at == best.end() && best.size() >= static_cast<size_t>(most)) return;
  best.insert(at, way);
  if (best.size() > static_cast<size_t>(most)) best.pop_back();
}

// "density 9.8 %: sparse 12 us, dense 80 us": the best of each family.
template <class Kernel, class Family>
std::string reason(const std::vector<Candidate<Kernel>>& ways, std::string found,
                   std::initializer_list<std::pair<Family, const char*>> families) {
  std::string text;
  char part[64];
  int n = 0;
  for (const auto& [family, name] : families) {
    double best = -1;
    for (const auto& w : ways)
      if (w.kernel->family == family && (best < 0 || w.predicted_us < best)) best = w.predicted_us;
    if (best < 0) continue;
    std::snprintf(part, sizeof part, "%s%s %.3g us", n++ ? ", " : "", name, best);
    text += part;
  }
  if (n > 1) return found + ": " + text;
  std::snprintf(part, sizeof part, ": %.3g us, the only way", ways.empty() ? 0.0 : ways.front().predicted_us);
  return found + part;
}

inline std::string density_text(int64_t nnz, int64_t all) {
  char text[40];
  std::snprintf(text, sizeof text, "density %.3g %%",
                all ? 100.0 * static_cast<double>(nnz) / static_cast<double>(all) : 0.0);
  return text;
}

}  // namespace secateur
