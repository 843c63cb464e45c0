// What decides between the ways to compute a layer where the cost model alone does not: a saved plan, what was timed
// before on this kind of machine, or timing now.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "base/threads.h"
#include "kernels/choice.h"
#include "plan/rates.h"

namespace secateur {

struct Exec;

enum class Tune { kOff, kFast, kFull };  // the model alone; the best few are timed; other tilings as well

const char* tune_name(Tune tune);       // "off", "fast", "full"
Tune tune_of(const std::string& name);  // UsageError: none of them

// A way to compute one layer, by names: of this machine or another, of this version or another.
struct Choice {
  std::string kernel;
  Tile tile;
  double us = 0;  // timed; 0: predicted only
  Tune by = Tune::kOff;
};
std::string choice_text(const std::string& kernel, const Tile& tile);  // "conv_sparse_f32_f32_f32_avx512 4/64/3/0"

// The decisions of one plan, in the order they were taken.
struct SavedPlan {
  std::vector<std::vector<int64_t>> input_dims;
  std::vector<std::pair<std::string, Choice>> layers;  // by the node's label
};

// A session's: what it knows of layers and how it learns more. Guarded by the session's lock.
class Tuner {
 public:
  Tune mode = Tune::kOff;
  std::unordered_map<std::string, Choice> known;      // by a layer's key (lower/layer.h)
  std::vector<std::pair<std::string, Choice>> fresh;  // timed since somebody took them
  std::vector<SavedPlan> saved;
  std::optional<Rates> rates;  // of this very machine; else those shipped for its kind
  int64_t n_timed = 0;         // layers timed in this session
  bool cold = false;           // the net's weights do not stay in the second cache
  Threads* pool = nullptr;

  // The known choice that serves this mode (what `full` found serves `fast`), or null.
  const Choice* find(const std::string& key) const;
  void learn(const std::string& key, Choice choice);

  // What a layer reads and writes, in bytes; x as floats in [-1, 1) or random bytes.
  struct Memory {
    size_t x = 0, y = 0, residual = 0, scratch = 0;
    bool floats = true;
  };
  // Values as a trial's step sees them.
  enum : int { kX, kResidual, kY, kScratch, kValues };
  // Microseconds of each: warm, interleaved, least of the repetitions, since others on the machine only add.
  std::vector<double> time(const Memory& memory, std::span<const std::function<void(const Exec&)>> ways);

  void forget_memory() { x_ = y_ = residual_ = scratch_ = sweep_ = Buffer(); }

 private:
  Buffer x_, y_, residual_, scratch_, sweep_;
};

// A number for where the nonzeros are.
uint64_t pattern_hash(const float* w, int64_t n);
uint64_t pattern_hash(const int8_t* w, int64_t n);
uint64_t pattern_hash(const int16_t* w, int64_t n);

}  // namespace secateur
