#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/kmeans/kmeans.h"

namespace secateur {

void kmeans_layer(int64_t n, const double* s0, const double* s1, const double* s2, const double* previous,
                  const int32_t* floor, double* best, int32_t* origin) {
  best[0] = 0;
  origin[0] = 0;
  const auto longest = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(n)));
  for (int64_t stride = longest; stride > 0; stride /= 2) {
    for (int64_t i = stride; i <= n; i += 2 * stride) {
      const int64_t low = std::max(origin[i - stride], floor[i]);
      const int64_t high = std::max(low, i + stride <= n ? std::min<int64_t>(origin[i + stride], i) : i);
      double least = 0;
      int64_t first = -1;
      for (int64_t a = low; a <= high; ++a) {
        const double mass = s0[i] - s0[a], sum = s1[i] - s1[a];
        const double within = s2[i] - s2[a] - sum * sum / (mass > 0 ? mass : 1.0);
        const double total = previous[a] + std::max(within, 0.0);
        if (first < 0 || total < least) least = total, first = a;
      }
      best[i] = least;
      origin[i] = static_cast<int32_t>(first);
    }
  }
}

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kPositions = 1024;  // cut positions tried by rank, and as many by value

// Sum of term(i), i < n, by halves: error grows with log n.
template <class Term>
double pairwise(int64_t begin, int64_t end, const Term& term) {
  if (end - begin > 128) {
    const int64_t half = begin + (end - begin) / 2;
    return pairwise(begin, half, term) + pairwise(half, end, term);
  }
  double sum[4] = {0, 0, 0, 0};  // apart, so that an addition need not wait for the one before
  int64_t i = begin;
  for (; i + 4 <= end; i += 4)
    for (int64_t k = 0; k < 4; ++k) sum[k] += term(i + k);
  for (; i < end; ++i) sum[0] += term(i);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Cut positions for the coarse recursion: half evenly by rank, half evenly by value.
std::vector<int64_t> positions(const std::vector<double>& x) {
  const auto n = static_cast<int64_t>(x.size());
  const double reach = std::fabs(x.back() - x.front());
  const double rank_step = static_cast<double>(n) / (kPositions - 1), value_step = reach / (kPositions - 1);
  std::vector<int64_t> cuts{n};
  for (int64_t j = 0, at = 0; j < kPositions; ++j) {
    const bool end = j == kPositions - 1;
    cuts.push_back(end ? n : static_cast<int64_t>(static_cast<double>(j) * rank_step));
    while (at < n && std::fabs(x[at] - x.front()) < (end ? reach : static_cast<double>(j) * value_step)) ++at;
    cuts.push_back(at);
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  return cuts;
}

}  // namespace

// The recursion on one run of values; with a free zero, the values after the last cluster go to 0.
struct KMeans::Side {
  std::vector<double> x, w;
  std::vector<int64_t> cuts;
  std::vector<double> s0, s1, s2, rest, last;
  std::vector<std::vector<int32_t>> origin;  // a layer each: where the last cluster starts
  std::vector<double> costs;                 // a layer each: the least cost, and the cut that has it
  std::vector<int64_t> ends;

  Side(std::vector<double> values, std::vector<double> mass, bool zero, bool exact)
      : x(std::move(values)), w(std::move(mass)) {
    const auto n = static_cast<int64_t>(x.size());
    if (exact)
      for (int64_t i = 0; i <= n; ++i) cuts.push_back(i);
    else cuts = positions(x);
    // Differences of sums keep more digits around the mean.
    const double middle =
        pairwise(0, n, [&](int64_t i) { return x[i] * w[i]; }) / pairwise(0, n, [&](int64_t i) { return w[i]; });
    const size_t size = cuts.size();
    s0.resize(size), s1.resize(size), s2.resize(size), rest.resize(size);
    double a = 0, b = 0, c = 0, d = 0;
    for (size_t k = 0; k < size; ++k) {
      for (int64_t i = k ? cuts[k - 1] : 0; i < cuts[k]; ++i) {
        const double gap = x[i] - middle;
        a += w[i], b += w[i] * gap, c += w[i] * (gap * gap);
      }
      s0[k] = a, s1[k] = b, s2[k] = c;
    }
    for (size_t k = size; k-- > 0;) {
      for (int64_t i = k + 1 < size ? cuts[k + 1] : n; i-- > cuts[k];) d += w[i] * x[i] * x[i];
      rest[k] = zero ? d : cuts[k] == n ? 0.0 : kInfinity;
    }
    last.assign(size, kInfinity);
    last[0] = 0;
    close(std::vector<int32_t>(size, 0));
  }

  void close(std::vector<int32_t> from) {
    size_t end = 0;
    for (size_t k = 1; k < last.size(); ++k)
      if (last[k] + rest[k] < last[end] + rest[end]) end = k;
    costs.push_back(last[end] + rest[end]);
    ends.push_back(static_cast<int64_t>(end));
    origin.push_back(std::move(from));
  }

  // Smallest cost with at most m clusters (infinite for m = 0 without a free zero).
  double cost(int64_t m) {
    while (static_cast<int64_t>(costs.size()) <= m) {
      std::vector<double> best(last.size());
      std::vector<int32_t> from(last.size());
      kmeans_layer(static_cast<int64_t>(last.size()) - 1, s0.data(), s1.data(), s2.data(), last.data(),
                   origin.back().data(), best.data(), from.data());
      last = std::move(best);
      close(std::move(from));
    }
    return costs[static_cast<size_t>(m)];
  }

  void centres(int64_t m, std::vector<double>& out) {
    cost(m);
    int64_t at = ends[static_cast<size_t>(m)];
    for (; m > 0; --m) {
      const int64_t from = origin[static_cast<size_t>(m)][static_cast<size_t>(at)];
      const int64_t begin = cuts[static_cast<size_t>(from)], end = cuts[static_cast<size_t>(at)];
      at = from;
      if (begin == end) continue;
      const double base = x[begin];  // from the first value: one distinct value gives itself
      out.push_back(base + pairwise(begin, end, [&](int64_t i) { return w[i] * (x[i] - base); }) /
                               pairwise(begin, end, [&](int64_t i) { return w[i]; }));
    }
  }
};

namespace {

using Numbers = std::vector<double>;

// Alternate nearest centre and mean until nothing moves; a centre at 0 stays, for `zero`.
void lloyd(const Numbers& values, const Numbers& mass, bool zero, Numbers& centres) {
  const size_t n = values.size();
  std::vector<double> s0(n + 1, 0.0), s1(n + 1, 0.0);
  for (size_t i = 0; i < n; ++i) s0[i + 1] = s0[i] + mass[i], s1[i + 1] = s1[i] + mass[i] * values[i];
  for (int round = 0; round < 200; ++round) {
    std::vector<double> held = centres, moved;
    if (zero) {
      held.insert(std::lower_bound(held.begin(), held.end(), 0.0), 0.0);
      held.erase(std::unique(held.begin(), held.end()), held.end());
    }
    size_t begin = 0;
    for (size_t k = 0; k < held.size(); ++k) {
      size_t end = n;
      if (k + 1 < held.size()) {
        const auto edge = std::upper_bound(values.begin(), values.end(), (held[k + 1] + held[k]) / 2);
        end = static_cast<size_t>(edge - values.begin());
      }
      const double w = s0[end] - s0[begin];
      if (!zero || held[k] != 0) moved.push_back(w > 0 ? (s1[end] - s1[begin]) / w : held[k]);
      begin = end;
    }
    std::sort(moved.begin(), moved.end());
    moved.erase(std::unique(moved.begin(), moved.end()), moved.end());
    if (moved == centres) return;
    centres = std::move(moved);
  }
}

}  // namespace

KMeans::KMeans(int64_t n, const double* x, const double* w, bool zero, int64_t exact_below) : zero_(zero) {
  const bool counted = std::any_of(w, w + n, [](double v) { return v > 0; });
  double most = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double weight = counted ? w[i] : 1.0;
    if (weight <= 0 || (zero && x[i] == 0)) continue;
    if (!values_.empty() && values_.back() == x[i]) mass_.back() += weight;
    else values_.push_back(x[i]), mass_.push_back(weight);
    most = std::max(most, mass_.back());
  }
  for (double& m : mass_) m /= most;  // tiny or huge weights must not leave float64
  exact_ = static_cast<int64_t>(values_.size()) <= exact_below;
  if (values_.empty()) return;
  if (!zero) {
    sides_.push_back(std::make_unique<Side>(values_, mass_, zero, exact_));
    return;
  }
  // A cluster never reaches across 0: values beyond half its centre on the far side prefer 0 itself. From far to near.
  const auto below = std::lower_bound(values_.begin(), values_.end(), 0.0) - values_.begin();
  const auto above = static_cast<int64_t>(values_.size()) - below;
  if (below)
    sides_.push_back(std::make_unique<Side>(std::vector<double>(values_.begin(), values_.begin() + below),
                                            std::vector<double>(mass_.begin(), mass_.begin() + below), zero, exact_));
  if (above)
    sides_.push_back(std::make_unique<Side>(std::vector<double>(values_.rbegin(), values_.rbegin() + above),
                                            std::vector<double>(mass_.rbegin(), mass_.rbegin() + above), zero, exact_));
}

KMeans::~KMeans() = default;

std::vector<double> KMeans::centres(int64_t m) {
  if (sides_.empty()) return std::vector<double>(zero_ ? 0 : 1, 0.0);
  std::vector<double> found;
  if (sides_.size() == 1) {
    sides_[0]->centres(m, found);
  } else {
    int64_t share = 0;
    double least = kInfinity;
    for (int64_t j = 0; j <= m; ++j) {
      const double cost = sides_[0]->cost(j) + sides_[1]->cost(m - j);
      if (cost < least) least = cost, share = j;
    }
    sides_[0]->centres(share, found);
    sides_[1]->centres(m - share, found);
  }
  std::sort(found.begin(), found.end());
  if (!exact_) lloyd(values_, mass_, zero_, found);
  return found;
}

}  // namespace secateur
