// The choice between the ways to compute a layer, for the handlers that have one (conv, linear, qconv).
#pragma once

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "graph/check.h"
#include "plan/lowering.h"
#include "plan/tune.h"

namespace secateur {

// What a handler says of its layer.
struct ChoiceOf {
  std::string key;                     // shape and epilogue: with a kernel and a tile, what is packed
  std::vector<int> constants;          // the values packed
  int64_t rows = 1;                    // images, or rows of a linear layer
  double times = 1;                    // predictions count so often
  std::string reason;                  // the cost model's
  std::function<uint64_t()> pattern;   // hash of the weights' zeros
};

template <class Candidate, class Packed>
struct Chosen {
  Candidate way;
  std::shared_ptr<const Packed> packed;
  std::string why;
};

inline constexpr int kTunedTilings = 6;        // of one kernel, under Tune::kFull and when looking for a known choice
inline constexpr double kWorthTimingUs = 3.0;  // less is not worth 4 ms of loading
inline constexpr double kSameUs = 1.04;        // within it two times are the same, and the model's favourite is taken

template <class Candidate>
const Candidate* find_way(const std::vector<Candidate>& ways, const Choice& choice) {
  for (const Candidate& c : ways)
    if (choice.kernel == c.kernel->name && choice.tile == c.tile) return &c;
  return nullptr;
}

// Those worth timing: the model's favourites, and the best dense one unless it is out of the question, so that a tuned
// layer is never slower than our own dense path.
template <class Candidate>
std::vector<Candidate> worth_timing(const std::vector<Candidate>& ways, Tune mode) {
  const size_t most = mode == Tune::kFull ? 24 : 3;
  const double limit = ways[0].predicted_us * (mode == Tune::kFull ? 4 : 3);
  std::vector<Candidate> kept;
  bool dense = false;
  for (const Candidate& c : ways) {
    const bool is_dense = c.kernel->family == std::remove_cvref_t<decltype(c.kernel->family)>::kDense;
    const bool gate = is_dense && !dense && c.predicted_us <= 5 * ways[0].predicted_us;
    if ((kept.size() >= most || c.predicted_us > limit) && !gate) continue;
    kept.push_back(c);
    dense = dense || is_dense;
  }
  return kept;
}

// `offered` = ways(1), not empty; ways(tilings) -> candidates, best first; pack(candidate) -> unique_ptr<Packed>;
// step(packed, x, residual, y, scratch) -> the step that runs it; memory(packed) -> Tuner::Memory of such a step.
template <class Packed, class Candidate, class Ways, class Pack, class MakeStep, class Memory>
Chosen<Candidate, Packed> choose(Lowering& L, const Node& n, const ChoiceOf& layer, const std::vector<Candidate>& offered, const Ways& ways,
                                 const Pack& pack, const MakeStep& step, const Memory& memory) {
  Chosen<Candidate, Packed> chosen{offered[0], nullptr, layer.reason};
  Choice decided;
  const auto take = [&](const Choice& choice) {
    const Candidate* way = find_way(offered, choice);
    std::vector<Candidate> more;
    if (!way) {
      more = ways(kTunedTilings);
      way = find_way(more, choice);
    }
    if (!way) return false;
    chosen.way = *way;
    decided = choice;
    return true;
  };
  const auto say = [&](const char* format, double us) {
    char text[48];
    std::snprintf(text, sizeof text, format, us);
    chosen.why += text;
  };
  Tuner* tuner = L.tuner();
  std::shared_ptr<const Packed> made;
  if (const Choice* saved = L.saved_choice(n)) {
    if (!take(*saved))
      throw UsageError("plan: node '" + node_label(n) + "' asks for " + choice_text(saved->kernel, saved->tile) +
                       ", which this CPU or build does not have for it; make the plan again with save_plan()");
    chosen.why += "; as saved";
  } else if (tuner && tuner->mode != Tune::kOff && offered[0].predicted_us * layer.times >= kWorthTimingUs) {
    char tail[64];
    std::snprintf(tail, sizeof tail, ";r%lld;t%d%s;z%016llx", static_cast<long long>(layer.rows), L.threads(),
                  L.allow_sparse() ? "" : ";dense", static_cast<unsigned long long>(layer.pattern()));
    const std::string key = layer.key + tail;
    const Choice* known = tuner->find(key);
    if (known && take(*known)) {
      say("; timed before: %.3g us", known->us);
    } else if (const auto trials = worth_timing(tuner->mode == Tune::kFull ? ways(kTunedTilings) : offered, tuner->mode); trials.size() > 1) {
      std::vector<std::shared_ptr<const Packed>> packs;
      std::vector<std::function<void(const Exec&)>> runs;
      Tuner::Memory need;
      for (const Candidate& c : trials) {
        packs.push_back(pack(c));
        const Tuner::Memory m = memory(*packs.back());
        need = {std::max(need.x, m.x), std::max(need.y, m.y), std::max(need.residual, m.residual), std::max(need.scratch, m.scratch), m.floats};
        runs.emplace_back([s = step(packs.back(), Tuner::kX, need.residual ? Tuner::kResidual : -1, Tuner::kY, Tuner::kScratch)](
                              const Exec& e) { s.run(e); });
      }
      const std::vector<double> us = tuner->time(need, runs);
      size_t best = static_cast<size_t>(std::min_element(us.begin(), us.end()) - us.begin());
      if (us[0] <= kSameUs * us[best]) best = 0;
      chosen.way = trials[best];
      made = packs[best];
      decided = {chosen.way.kernel->name, chosen.way.tile, us[best], tuner->mode};
      tuner->learn(key, decided);
      say("; timed: %.3g us", us[best]);
      if (best != 0) say(", the predicted best %.3g us", us[0]);
    }
  }
  decided.kernel = chosen.way.kernel->name;
  decided.tile = chosen.way.tile;
  L.decided(n, decided);
  chosen.packed = L.packed<Packed>(layer.key + "/" + choice_text(decided.kernel, decided.tile), layer.constants,
                                   [&]() -> std::shared_ptr<const Packed> { return made ? made : pack(chosen.way); });
  return chosen;
}

}  // namespace secateur
