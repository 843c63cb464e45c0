// For test.cc and bench.cc files: seeded numbers, buffers with guards, checks that print and count, the clock.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/cpu.h"

namespace secateur::testing {

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  float normal() { return std::normal_distribution<float>()(engine_); }
  int below(int n) { return static_cast<int>(engine_() % static_cast<uint32_t>(n)); }
  double unit() { return engine_() * 0x1p-32; }

 private:
  std::mt19937 engine_;
};

// n floats with guard words on both sides, starting `skew` floats after a 64-byte boundary.
class Guarded {
 public:
  explicit Guarded(int64_t n, int skew = 0, float fill = 0.0f) : n_(n) {
    words_.assign(static_cast<size_t>(n) + 2 * kGuard + 32, kPattern);
    size_t at = kGuard;
    while ((reinterpret_cast<uintptr_t>(words_.data() + at) & 63) != 0) ++at;
    at_ = at + skew;
    std::fill_n(data(), n, fill);
  }
  float* data() { return reinterpret_cast<float*>(words_.data() + at_); }
  float& operator[](int64_t i) { return data()[i]; }
  int64_t size() const { return n_; }
  bool intact() const {
    for (size_t i = 0; i < words_.size(); ++i)
      if ((i < at_ || i >= at_ + static_cast<size_t>(n_)) && words_[i] != kPattern) return false;
    return true;
  }

 private:
  static constexpr size_t kGuard = 64;
  // A NaN: whatever reads a guard into a result shows at once.
  static constexpr uint32_t kPattern = 0x7fedcba9u;
  std::vector<uint32_t> words_;
  size_t at_ = 0;
  int64_t n_;
};

inline int& failures() {
  static int n = 0;
  return n;
}

inline void check(bool ok, const std::string& what) {
  if (ok) return;
  if (++failures() <= 20) std::fprintf(stderr, "FAILED: %s\n", what.c_str());
}

inline int finish(const char* name, int64_t checks) {
  std::printf("%s: %lld checks, %d failures\n", name, static_cast<long long>(checks), failures());
  return failures() == 0 ? 0 : 1;
}

// Weights of which about `density` are nonzero; 0 and 1 are exact, a negative density means exactly one nonzero.
inline std::vector<float> sparse_weights(int64_t n, double density, Random& rng) {
  std::vector<float> w(n, 0.0f);
  if (density < 0) {
    w[rng.below(static_cast<int>(n))] = rng.normal();
    return w;
  }
  for (auto& x : w)
    if (rng.unit() < density) x = rng.normal();
  return w;
}

// Median microseconds of `calls` timings of fn, each long enough to read a clock.
template <class Fn>
double median_us(Fn&& fn, int calls = 31) {
  using Clock = std::chrono::steady_clock;
  const auto once = [&](int n) {
    const auto start = Clock::now();
    for (int i = 0; i < n; ++i) fn();
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count() / n;
  };
  const double first = once(2);
  const int n = std::max(1, static_cast<int>(200.0 / std::max(first, 0.01)));
  std::vector<double> us;
  for (int i = 0; i < calls; ++i) us.push_back(once(n));
  std::nth_element(us.begin(), us.begin() + calls / 2, us.end());
  return us[calls / 2];
}

// For bench.cc: the levels to time, those of the machine up to SECATEUR_ISA.
inline std::vector<Isa> benched_isas() {
  std::vector<Isa> isas;
  for (Isa isa : available_isas())
    if (isa <= selected_isa() && isa == float_isa(isa)) isas.push_back(isa);
  return isas;
}

// One line: a kernel on a shape at a level, its time, and how many billions of `unit` it does in a second.
template <class Fn>
void bench_line(const std::string& what, Isa isa, double work, const char* unit, Fn&& fn) {
  const double us = median_us(fn);
  std::printf("%-40s %-8s %10.2f us %8.2f G%s/s\n", what.c_str(), isa_name(isa), us, work / us / 1e3, unit);
}

inline void fill_normal(float* x, int64_t n, Random& rng) {
  for (int64_t i = 0; i < n; ++i) x[i] = rng.normal();
}

}  // namespace secateur::testing
