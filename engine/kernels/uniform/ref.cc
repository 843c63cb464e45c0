#include <algorithm>
#include <bit>
#include <cmath>
#include <deque>
#include <utility>
#include <vector>

#include "kernels/uniform/uniform.h"

namespace secateur {

namespace {

constexpr int64_t kPassed = 1024;  // changes of codes in an interval up to which passing them beats splitting it
constexpr double kClose = 1e-12;   // an interval of that relative width is passed, however many changes fall together
constexpr double kGain = 1e-10;    // of the error: what an interval must promise
constexpr double kNoise = 1e-15;   // of sum h a^2: rounding of the prefix sums

constexpr double kLeast = 1e-250;  // of the largest value: what is smaller is as good as 0, and its scale no float64

using Edges = std::vector<int32_t>;  // by code: how many values lie below what rounds to it

struct Change {
  double alpha;
  int32_t value, code;
};

// From the largest scale, all of them in low..high, down: into as many drawers as there are, then by insertion.
void sort_down(double low, double high, std::vector<Change>& changes, std::vector<Change>& sorted, Edges& starts) {
  const size_t n = changes.size();
  const double by = high > low ? static_cast<double>(n) / (high - low) : 0.0;
  const auto drawer = [&](const Change& c) {
    return static_cast<size_t>(std::clamp((high - c.alpha) * by, 0.0, static_cast<double>(n - 1)));
  };
  starts.assign(n + 1, 0);
  for (const Change& c : changes) ++starts[drawer(c) + 1];
  for (size_t k = 0; k < n; ++k) starts[k + 1] += starts[k];
  sorted.resize(n);
  for (const Change& c : changes) sorted[static_cast<size_t>(starts[drawer(c)]++)] = c;
  if (by == 0) return;
  for (size_t i = 1; i < n; ++i) {
    const Change c = sorted[i];
    size_t at = i;
    for (; at > 0 && sorted[at - 1].alpha < c.alpha; --at) sorted[at] = sorted[at - 1];
    sorted[at] = c;
  }
}

class ScaleSearch {
 public:
  // Values ascending, none 0 where 0 is a code; the largest is 1.
  ScaleSearch(std::vector<double> a, const std::vector<double>& h, int64_t top, bool zero)
      : a_(std::move(a)), sums_(a_.size() + 1), least_(zero ? 0 : 1), end_(static_cast<size_t>(top) + 1) {
    for (size_t i = 0; i < a_.size(); ++i)
      sums_[i + 1] = {sums_[i].h + h[i], sums_[i].ha + h[i] * a_[i], sums_[i].haa + h[i] * a_[i] * a_[i]};
  }

  double solve() {
    // Below `low` all codes that a value over 0 can have are `top` and stay so; above 1 a refit of the same codes, a
    // mean of a / q, is better.
    const double low = *std::upper_bound(a_.begin(), a_.end(), 0.0) / static_cast<double>(end_ - 1);
    const Edges none(end_ + 1, 0), all(end_ + 1, static_cast<int32_t>(a_.size()));
    Edges at_low(end_ + 1), at_high(end_ + 1);
    place(low, none, all, at_low);
    place(1.0, none, all, at_high);
    fit(at_low);
    fit(at_high);
    descend(low, 1.0, at_low, at_high, 0);
    return alpha_;
  }

 private:
  struct Sums {
    double h = 0, ha = 0, haa = 0;
  };

  // Edges at `alpha`, which lie between those at a smaller and at a larger scale. The first is 0, the last n.
  void place(double alpha, const Edges& from, const Edges& to, Edges& edges) const {
    edges[least_] = 0;
    edges[end_] = static_cast<int32_t>(a_.size());
    for (size_t t = least_ + 1; t < end_; ++t)
      edges[t] = from[t] == to[t] ? from[t]
                                  : static_cast<int32_t>(std::lower_bound(a_.begin() + from[t], a_.begin() + to[t],
                                                                          (static_cast<double>(t) - 0.5) * alpha) -
                                                         a_.begin());
  }

  void take(double s1, double s2) {
    if (s2 > 0 && s1 * s1 > gain_ * s2) gain_ = s1 * s1 / s2, alpha_ = s1 / s2;
  }

  // S2 (h) and S1 (ha).
  Sums codes_at(const Edges& edges) const {
    Sums s;
    for (size_t t = least_; t < end_ && static_cast<size_t>(edges[t]) < a_.size(); ++t) {
      const auto q = static_cast<double>(t);
      const Sums &b = sums_[static_cast<size_t>(edges[t])], &e = sums_[static_cast<size_t>(edges[t + 1])];
      s.h += (e.h - b.h) * (q * q), s.ha += (e.ha - b.ha) * q;
    }
    return s;
  }

  void fit(const Edges& edges) {
    const Sums s = codes_at(edges);
    take(s.ha, s.h);
  }

  // Of E on [low, high]. Values of one code there: the minimum of their common parabola. Values that change once,
  // between t - 1 and t: at least what they miss t by at `low` or t - 1 by at `high`. Others: nothing.
  double bound(double low, double high, const Edges& at_low, const Edges& at_high) const {
    double f0 = 0, f1 = 0, f2 = 0, moved = 0;
    for (size_t t = least_; t < end_ && static_cast<size_t>(at_low[t]) < a_.size(); ++t) {
      const auto q = static_cast<double>(t);
      const int32_t start = at_high[t], stop = at_low[t + 1];
      if (start < stop) {
        const Sums &b = sums_[static_cast<size_t>(start)], &e = sums_[static_cast<size_t>(stop)];
        f0 += e.haa - b.haa, f1 += (e.ha - b.ha) * q, f2 += (e.h - b.h) * (q * q);
      }
      if (t == least_) continue;
      const auto first = static_cast<size_t>(std::max(at_low[t], at_high[t - 1]));
      const auto last = static_cast<size_t>(std::min(start, stop));
      if (first < last) {
        const double missed = std::min(q * low - a_[last - 1], a_[first] - (q - 1) * high);
        if (missed > 0) moved += (sums_[last].h - sums_[first].h) * (missed * missed);
      }
    }
    const double alpha = f2 > 0 ? std::clamp(f1 / f2, low, high) : low;
    return f0 - 2 * alpha * f1 + alpha * alpha * f2 + moved;
  }

  bool hopeful(double value) const {
    const double total = sums_.back().haa;
    return value < std::max(total - gain_, 0.0) * (1 - kGain) - kNoise * total;
  }

  void descend(double low, double high, const Edges& at_low, const Edges& at_high, size_t depth) {
    int64_t n_changes = 0;
    for (size_t t = least_; t <= end_; ++t) n_changes += at_high[t] - at_low[t];
    if (n_changes <= kPassed || high - low <= kClose * high) {
      pass(low, high, at_low, at_high);
      return;
    }
    while (middles_.size() <= depth) middles_.emplace_back(end_ + 1);
    Edges& at_middle = middles_[depth];
    const double middle = low * std::sqrt(high / low);
    place(middle, at_low, at_high, at_middle);
    fit(at_middle);
    const double below = bound(low, middle, at_low, at_middle), above = bound(middle, high, at_middle, at_high);
    const bool down = below < above;  // the more promising half first
    if (down && hopeful(below)) descend(low, middle, at_low, at_middle, depth + 1);
    if (hopeful(above)) descend(middle, high, at_middle, at_high, depth + 1);
    if (!down && hopeful(below)) descend(low, middle, at_low, at_middle, depth + 1);
  }

  // All changes of codes between the two scales, from the larger down.
  void pass(double low, double high, const Edges& at_low, const Edges& at_high) {
    changes_.clear();
    for (size_t t = least_ + 1; t < end_; ++t)
      for (int32_t i = at_low[t]; i < at_high[t]; ++i)
        changes_.push_back({a_[static_cast<size_t>(i)] / (static_cast<double>(t) - 0.5), i, static_cast<int32_t>(t)});
    Sums s = codes_at(at_high);
    take(s.ha, s.h);
    if (changes_.empty()) return;
    sort_down(low, high, changes_, sorted_, starts_);
    for (const Change& c : sorted_) {
      const auto i = static_cast<size_t>(c.value);
      const double h = sums_[i + 1].h - sums_[i].h;
      s.ha += h * a_[i], s.h += h * (2 * c.code - 1);
      take(s.ha, s.h);
    }
  }

  std::vector<double> a_;
  std::vector<Sums> sums_;
  size_t least_, end_;         // codes are least_..end_ - 1
  std::deque<Edges> middles_;  // one a depth: they stay where they are while deeper ones are made
  std::vector<Change> changes_, sorted_;
  Edges starts_;
  double gain_ = 0, alpha_ = 0;
};

double rounded(double x, FloatKind kind) {
  if (kind.digits >= 53) return x;
  if (kind.digits == 24 && kind.least == -126) return static_cast<float>(x);
  int exponent = 0;
  std::frexp(x, &exponent);
  const int last = std::max(exponent - kind.digits, kind.least - kind.digits + 1);  // of the last place
  return std::ldexp(std::nearbyint(std::ldexp(x, -last)), last);
}

// The scale of `kind` that gives `sizes` from `codes`, near what their quotients allow; 0 when there is none.
double exact_scale(const std::vector<double>& sizes, const std::vector<double>& codes, const std::vector<double>& slack,
                   FloatKind kind) {
  double low = 0, high = HUGE_VAL;
  for (size_t i = 0; i < sizes.size(); ++i) {
    low = std::max(low, (sizes[i] - slack[i]) / codes[i]);
    high = std::min(high, (sizes[i] + slack[i]) / codes[i]);
  }
  const double middle = (low + high) / 2;
  int exponent = 0;
  std::frexp(middle, &exponent);
  for (int step = -3; step <= 3; ++step) {
    const double scale = rounded(middle + step * std::ldexp(1.0, exponent - kind.digits), kind);
    bool exact = true;
    for (size_t i = 0; exact && i < sizes.size(); ++i) exact = rounded(scale * codes[i], kind) == sizes[i];
    if (exact) return scale;
  }
  return 0;
}

}  // namespace

double best_scale(int64_t n, const double* a, const double* h, int64_t top, bool zero) {
  const bool counted = std::any_of(h, h + n, [](double v) { return v > 0; });
  std::vector<std::pair<double, double>> pairs;
  double most = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double weight = counted ? h[i] : 1.0;
    if (weight <= 0 || (zero && a[i] == 0)) continue;
    pairs.emplace_back(a[i], weight);
    most = std::max(most, weight);
  }
  std::sort(pairs.begin(), pairs.end(), [](const auto& x, const auto& y) { return x.first < y.first; });
  if (pairs.empty() || pairs.back().first == 0) return 0;
  const double unit = pairs.back().first;
  std::vector<double> values, mass;
  for (const auto& [value, weight] : pairs) {  // tiny or huge numbers must not leave float64
    const double size = value / unit > kLeast ? value / unit : 0.0;
    if (zero && size == 0) continue;
    if (!values.empty() && values.back() == size) mass.back() += weight / most;
    else values.push_back(size), mass.push_back(weight / most);
  }
  return unit * ScaleSearch(std::move(values), mass, top, zero).solve();
}

bool grid_of(int64_t n, const double* x, int64_t top, bool nonzero, FloatKind kind, int16_t* codes, double* scale) {
  // Different magnitudes, at most `top`, in a table: one that holds twice as many always has a free place.
  const size_t size = std::bit_ceil(static_cast<size_t>(top) * 2 + 2);
  std::vector<int32_t> slots(size, -1);
  std::vector<double> met;
  std::vector<int32_t> which(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    const double value = std::fabs(x[i]);
    if (value == 0) {
      which[static_cast<size_t>(i)] = -1;
      continue;
    }
    size_t at = (std::bit_cast<uint64_t>(value) * 0x9e3779b97f4a7c15u >> 40) & (size - 1);
    while (slots[at] >= 0 && met[static_cast<size_t>(slots[at])] != value) at = (at + 1) & (size - 1);
    if (slots[at] < 0) {
      if (static_cast<int64_t>(met.size()) == top) return false;
      slots[at] = static_cast<int32_t>(met.size());
      met.push_back(value);
    }
    which[static_cast<size_t>(i)] = slots[at];
  }
  *scale = 1;
  std::fill(codes, codes + n, int16_t{0});
  if (met.empty()) return true;
  if (nonzero && std::find(which.begin(), which.end(), -1) != which.end()) return false;
  std::vector<double> sizes = met, slack, q(met.size());
  std::sort(sizes.begin(), sizes.end());
  const double eps = std::ldexp(1.0, 1 - kind.digits);  // half a unit in the last place:
  for (const double u : sizes) slack.push_back(0.5 * eps * u + 0.5 * eps * std::ldexp(1.0, kind.least));
  const double least = sizes.front();
  for (int64_t t = 1; t <= top; ++t) {  // the code of the smallest magnitude
    const auto by = static_cast<double>(t);
    if (std::nearbyint(sizes.back() / least * by) > static_cast<double>(top)) return false;
    bool fits = true;
    for (size_t i = 0; fits && i < sizes.size(); ++i) {
      q[i] = std::nearbyint(sizes[i] / least * by);
      fits = std::fabs(sizes[i] - least / by * q[i]) <= 3 * slack[i] + 3 * slack[0] * q[i] / by;
    }
    if (!fits) continue;
    *scale = exact_scale(sizes, q, slack, kind);
    if (*scale == 0) continue;
    for (int64_t i = 0; i < n; ++i) {
      const int32_t k = which[static_cast<size_t>(i)];
      if (k < 0) continue;
      const auto at = std::lower_bound(sizes.begin(), sizes.end(), met[static_cast<size_t>(k)]) - sizes.begin();
      codes[i] = static_cast<int16_t>(std::copysign(q[static_cast<size_t>(at)], x[i]));
    }
    return true;
  }
  return false;
}

}  // namespace secateur
