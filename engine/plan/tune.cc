#include "plan/tune.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <mutex>

#include "base/error.h"
#include "plan/lowering.h"

namespace secateur {
namespace {

constexpr double kBudgetUs = 1500;  // per way and layer
constexpr int kLeast = 3, kMost = 200;
constexpr double kHopelessAt = 1.5;  // a way so much slower after kLeast rounds is not run again

double now_us() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void random_bytes(Buffer& b, size_t n, bool floats) {
  if (b.size() >= n) return;
  b = Buffer(n);
  uint32_t state = 12345;
  for (size_t i = 0; i + 4 <= n; i += 4) {
    state = state * 1664525u + 1013904223u;
    const float f = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
    if (floats) std::memcpy(b.data() + i, &f, 4);
    else std::memcpy(b.data() + i, &state, 4);
  }
}

// Reads a byte of every line; the sum keeps the reads.
uint32_t touch(const Buffer& b, size_t n) {
  uint32_t sum = 0;
  for (size_t i = 0; i < n; i += 64) sum += b.data()[i];
  return sum;
}

template <class T>
uint64_t hash_nonzeros(const T* w, int64_t n) {
  uint64_t h = static_cast<uint64_t>(n) + 0x9E3779B97F4A7C15u;
  for (int64_t at = 0; at < n; at += 64) {
    uint64_t bits = 0;
    const int64_t most = std::min<int64_t>(64, n - at);
    for (int64_t i = 0; i < most; ++i) bits |= uint64_t{w[at + i] != 0} << i;
    h = (h ^ bits) * 0x9E3779B97F4A7C15u;
    h ^= h >> 29;
  }
  return h;
}

}  // namespace

const char* tune_name(Tune tune) { return tune == Tune::kFull ? "full" : tune == Tune::kFast ? "fast" : "off"; }

Tune tune_of(const std::string& name) {
  for (Tune t : {Tune::kOff, Tune::kFast, Tune::kFull})
    if (name == tune_name(t)) return t;
  throw UsageError("tune: '" + name + "' is none of off, fast, full");
}

std::string choice_text(const std::string& kernel, const Tile& t) {
  std::string text = kernel;
  if (t == Tile{}) return text;
  for (int v : {t.rows, t.chunk, t.block, t.form})
    text += (v == t.rows && text == kernel ? " " : "/") + std::to_string(v);
  return text;
}

uint64_t pattern_hash(const float* w, int64_t n) { return hash_nonzeros(w, n); }
uint64_t pattern_hash(const int8_t* w, int64_t n) { return hash_nonzeros(w, n); }
uint64_t pattern_hash(const int16_t* w, int64_t n) { return hash_nonzeros(w, n); }

const Choice* Tuner::find(const std::string& key) const {
  const auto it = known.find(key);
  return it == known.end() || it->second.by < mode ? nullptr : &it->second;
}

void Tuner::learn(const std::string& key, Choice choice) {
  ++n_timed;
  fresh.emplace_back(key, choice);
  known[key] = std::move(choice);
}

std::vector<double> Tuner::time(const Memory& m, std::span<const std::function<void(const Exec&)>> ways) {
  random_bytes(x_, m.x, m.floats);
  random_bytes(residual_, m.residual, m.floats);
  if (y_.size() < m.y) y_ = Buffer(m.y);
  if (scratch_.size() < m.scratch) scratch_ = Buffer(m.scratch);
  const size_t sweep = cold ? 2 * static_cast<size_t>(cpu().l2_bytes) : 0;
  if (sweep_.size() < sweep) sweep_ = Buffer(sweep);
  void* ptr[kValues];
  ptr[kX] = x_.data(), ptr[kResidual] = residual_.data(), ptr[kY] = y_.data(), ptr[kScratch] = scratch_.data();
  const Exec exec{ptr, pool};
  const FlushDenormals guard;
  std::unique_lock<std::mutex> lock;
  if (pool) lock = std::unique_lock<std::mutex>(pool->turn());

  volatile uint32_t sink = 0;
  const auto once = [&](size_t k) {
    // As in a run: the weights come from where the rest of the net has pushed them, the input was just written.
    sink = sink + touch(sweep_, sweep) + touch(x_, m.x) + touch(residual_, m.residual);
    const double begin = now_us();
    ways[k](exec);
    return now_us() - begin;
  };
  std::vector<double> us(ways.size());
  for (size_t k = 0; k < ways.size(); ++k) once(k), us[k] = once(k);
  double spent = 0;
  for (int r = 0; r < kMost && (r < kLeast || spent < kBudgetUs); ++r) {
    const double best = *std::min_element(us.begin(), us.end());
    for (size_t k = 0; k < ways.size(); ++k)
      if (r < kLeast || us[k] <= kHopelessAt * best) us[k] = std::min(us[k], once(k));
    spent += best;
  }
  return us;
}

}  // namespace secateur
