// A layer with constant weights: the choice between the ways to compute it, and the step that does. conv, linear and
// qconv are Layers.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "graph/check.h"
#include "plan/lower/handlers.h"
#include "plan/lowering.h"
#include "plan/tune.h"

namespace secateur {

// What a handler says of its layer.
template <class T>
concept Layer = requires(const T& layer, const typename T::Candidate& way, const typename T::Packed& packed,
                         std::shared_ptr<const typename T::Packed> owned) {
  { layer.candidates(1) } -> std::same_as<std::vector<typename T::Candidate>>;  // with so many tilings each, best first
  { layer.pack(way) } -> std::same_as<std::unique_ptr<typename T::Packed>>;
  layer.step(owned, 0, -1, 0, -1);                          // x, residual, y, scratch: the step that runs it
  { layer.memory(packed) } -> std::same_as<Tuner::Memory>;  // of such a step
  { layer.key() } -> std::same_as<std::string>;  // shape and epilogue: with a kernel and a tile, what is packed
  { layer.constants() } -> std::same_as<std::vector<int>>;  // the values packed
  { layer.kind() } -> std::same_as<std::string>;            // of rates.h
  { layer.rows() } -> std::same_as<int64_t>;                // images, or rows of a linear layer
  { layer.times() } -> std::same_as<double>;                // predictions count so often
  { layer.pattern() } -> std::same_as<uint64_t>;            // hash of the weights' zeros
};

template <Layer T>
struct Chosen {
  typename T::Candidate way;
  std::shared_ptr<const typename T::Packed> packed;
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

// Times the candidates worth it; the winner's place among them, its packed weights and its microseconds.
template <Layer T>
struct Timed {
  size_t best = 0;
  std::shared_ptr<const typename T::Packed> packed;
  std::vector<double> us;
};
template <Layer T>
Timed<T> time_ways(Tuner& tuner, const T& layer, const std::vector<typename T::Candidate>& trials) {
  std::vector<std::shared_ptr<const typename T::Packed>> packs;
  std::vector<std::function<void(const Exec&)>> runs;
  Tuner::Memory need;
  for (const auto& c : trials) {
    packs.push_back(layer.pack(c));
    const Tuner::Memory m = layer.memory(*packs.back());
    need = {std::max(need.x, m.x), std::max(need.y, m.y), std::max(need.residual, m.residual),
            std::max(need.scratch, m.scratch), m.floats};
    const int residual = need.residual ? Tuner::kResidual : -1;
    runs.emplace_back(
        [s = layer.step(packs.back(), Tuner::kX, residual, Tuner::kY, Tuner::kScratch)](const Exec& e) { s.run(e); });
  }
  Timed<T> timed{0, nullptr, tuner.time(need, runs)};
  timed.best = static_cast<size_t>(std::min_element(timed.us.begin(), timed.us.end()) - timed.us.begin());
  if (timed.us[0] <= kSameUs * timed.us[timed.best]) timed.best = 0;
  timed.packed = packs[timed.best];
  return timed;
}

// By what a layer is known: beside its key the rows, the threads and where its zeros are.
template <Layer T>
std::string tuning_key(const Lowering& L, const T& layer) {
  char tail[64];
  std::snprintf(tail, sizeof tail, ";r%lld;t%d%s;z%016llx", static_cast<long long>(layer.rows()), L.threads(),
                L.allow_sparse() ? "" : ";dense", static_cast<unsigned long long>(layer.pattern()));
  return layer.key() + tail;
}

// The layer's ways with so many tilings of each kernel, best first, as this machine is known to run them.
template <Layer T>
std::vector<typename T::Candidate> ways_of(const Lowering& L, const T& layer, int tilings) {
  std::vector<typename T::Candidate> ways = layer.candidates(tilings);
  const std::string kind = layer.kind();
  Isa widest = Isa::kRef;
  for (auto& way : ways) {
    way.predicted_us *= rate_of(L.rates(), way.kernel->name, kind);
    widest = std::max(widest, way.kernel->isa);
  }
  // What differs by less than the models' error goes to the widest vectors, as in offers().
  const auto cost = [&](const auto& way) { return way.predicted_us / (way.kernel->isa == widest ? 1.0 : 0.85); };
  std::stable_sort(ways.begin(), ways.end(), [&](const auto& a, const auto& b) { return cost(a) < cost(b); });
  return ways;
}

// `offered` = ways_of(L, layer, 1), not empty; `reason` the cost model's. A saved plan decides, else what was timed
// before or now, else the model.
template <Layer T>
Chosen<T> choose(Lowering& L, const Node& n, const T& layer, const std::vector<typename T::Candidate>& offered,
                 std::string reason) {
  Chosen<T> chosen{offered[0], nullptr, std::move(reason)};
  Choice decided;
  const auto take = [&](const Choice& choice) {
    const typename T::Candidate* way = find_way(offered, choice);
    std::vector<typename T::Candidate> more;
    if (!way) {
      more = ways_of(L, layer, kTunedTilings);
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
  std::shared_ptr<const typename T::Packed> made;
  if (const Choice* saved = L.saved_choice(n)) {
    if (!take(*saved))
      throw UsageError("plan: node '" + node_label(n) + "' asks for " + choice_text(saved->kernel, saved->tile) +
                       ", which this CPU or build does not have for it; make the plan again with save_plan()");
    chosen.why += "; as saved";
  } else if (tuner && tuner->mode != Tune::kOff && offered[0].predicted_us * layer.times() >= kWorthTimingUs) {
    const std::string key = tuning_key(L, layer);
    const bool full = tuner->mode == Tune::kFull;
    if (const Choice* known = tuner->find(key); known && take(*known)) {
      say("; timed before: %.3g us", known->us);
    } else if (const auto trials = worth_timing(full ? ways_of(L, layer, kTunedTilings) : offered, tuner->mode);
               trials.size() > 1) {
      const Timed<T> timed = time_ways(*tuner, layer, trials);
      chosen.way = trials[timed.best];
      made = timed.packed;
      decided = {chosen.way.kernel->name, chosen.way.tile, timed.us[timed.best], tuner->mode};
      tuner->learn(key, decided);
      say("; timed: %.3g us", timed.us[timed.best]);
      if (timed.best != 0) say(", the predicted best %.3g us", timed.us[0]);
    }
  }
  decided.kernel = chosen.way.kernel->name;
  decided.tile = chosen.way.tile;
  L.decided(n, decided);
  using Packed = typename T::Packed;
  chosen.packed =
      L.packed<Packed>(layer.key() + "/" + choice_text(decided.kernel, decided.tile), layer.constants(),
                       [&]() -> std::shared_ptr<const Packed> { return made ? made : layer.pack(chosen.way); });
  return chosen;
}

// Emits the chosen kernel: x and residual (-1: none) to y, which is declared. `also` are further values that it reads;
// `notes` end what explain() says.
template <Layer T>
void emit_layer(Lowering& L, const Node& n, const T& layer, const Chosen<T>& chosen, int x, int residual, int y,
                StepInfo info, const std::string& notes = "", const std::vector<int>& also = {}) {
  const size_t bytes = layer.memory(*chosen.packed).scratch;
  const int scratch = bytes ? L.scratch(bytes) : -1;
  info.kernel = chosen.way.kernel->name;
  info.rate = std::string(chosen.way.kernel->name) + "/" + layer.kind();
  info.predicted_us = chosen.way.predicted_us * layer.times();
  info.why = chosen.why;
  if (!chosen.packed->note.empty()) info.why += (info.why.empty() ? "" : "; ") + chosen.packed->note;
  info.why += notes;
  info.packed_bytes = static_cast<int64_t>(chosen.packed->packed_bytes);
  std::vector<int> reads{x, residual, scratch};
  reads.insert(reads.end(), also.begin(), also.end());
  L.emit(n, layer.step(chosen.packed, x, residual, y, scratch), reads, {y, scratch}, std::move(info));
}

// A residual of another shape broadcasts: then it is not the kernel's, but an Add of its own behind it, which takes the
// activation. `e` becomes the kernel's.
struct Residual {
  int fused = -1, added = -1;
  Activation after;
};
inline Residual split_residual(const Lowering& L, int residual, const Dims& out, Epilogue& e) {
  Residual r{-1, -1, e.act};
  if (residual < 0) return r;
  (L.dims(residual) == out ? r.fused : r.added) = residual;
  e.residual = r.fused >= 0;
  if (r.added >= 0) e.act = Activation::none();
  return r;
}
// What is left to do with the kernel's result y.
inline void add_residual(Lowering& L, const Node& n, const Residual& r, int y) {
  if (r.added < 0) return;
  const int sum = L.out(n, 0, DType::kFloat, broadcast_dims(L, n, y, r.added));
  lower_add(L, n, y, r.added, sum, r.after);
}

}  // namespace secateur
