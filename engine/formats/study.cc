#include "formats/study.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "formats/fields.h"

namespace secateur::sct {
namespace {

// Distinct patterns by open addressing; stops at the limit.
class Distinct {
 public:
  explicit Distinct(int64_t n) {
    const int bits = std::clamp<int>(std::bit_width(static_cast<uint64_t>(n)) + 1, 4, 18);
    slots_.assign(size_t{1} << bits, -1);
    shift_ = 64 - bits;
  }
  int32_t add(uint64_t x) {
    size_t h = (x * 0x9E3779B97F4A7C15ull) >> shift_;
    for (;; h = (h + 1) & (slots_.size() - 1)) {
      const int32_t s = slots_[h];
      if (s < 0) break;
      if (values_[static_cast<size_t>(s)] == x) return s;
    }
    if (values_.size() > static_cast<size_t>(kCodebookMax)) return -1;
    slots_[h] = static_cast<int32_t>(values_.size());
    values_.push_back(x);
    return slots_[h];
  }
  const std::vector<uint64_t>& values() const { return values_; }

 private:
  std::vector<int32_t> slots_;
  std::vector<uint64_t> values_;
  int shift_ = 0;
};

// A scale s with v == float32(q * s) for all values, |q| <= 65536; 0 if none is found. Only for few distinct values.
uint32_t find_scale(const std::vector<uint64_t>& entries) {
  std::vector<float> sizes;
  for (uint64_t e : entries) {
    const float v = std::bit_cast<float>(static_cast<uint32_t>(e));
    if (!std::isfinite(v) || (v == 0 && e != 0)) return 0;
    if (v != 0) sizes.push_back(std::fabs(v));
  }
  if (sizes.empty()) return 0;
  std::sort(sizes.begin(), sizes.end());
  const float most = sizes.back();
  std::vector<double> guesses;
  for (int j = 1; j <= 16; ++j) guesses.push_back(sizes[0] / double(j));
  double gap = 0;
  for (size_t i = 1; i < sizes.size(); ++i) {
    const double d = double(sizes[i]) - sizes[i - 1];
    if (d > 1e-6 * most && (gap == 0 || d < gap)) gap = d;
  }
  if (gap > 0)
    for (int j = 1; j <= 4; ++j) guesses.push_back(gap / j);
  for (double guess : guesses) {
    const double q = std::round(most / guess);
    if (q < 1 || q > kGridMax) continue;
    const auto centre = std::bit_cast<uint32_t>(static_cast<float>(most / q));
    for (int ulp : {0, -1, 1, -2, 2}) {
      const uint32_t s = centre + static_cast<uint32_t>(ulp);
      const float value = std::bit_cast<float>(s);
      if (!(value > 0) || !std::isfinite(value)) continue;
      bool all = true;
      for (uint64_t e : entries) {
        const double ratio = std::bit_cast<float>(static_cast<uint32_t>(e)) / double(value);
        if (std::fabs(ratio) > kGridMax || scaled(std::llround(ratio), s) != e) {
          all = false;
          break;
        }
      }
      if (all) return s;
    }
  }
  return 0;
}

}  // namespace

Values study(DType dtype, int64_t n, std::span<const uint8_t> data) {
  Values v;
  v.type = Pattern::of(dtype);
  v.n = n;
  const int width = v.type.width;
  Distinct distinct(n);
  v.few = true;
  v.index.resize(static_cast<size_t>(n));
  std::vector<int64_t> counts;
  uint64_t all = 0;
  v.ints_fit = !v.type.is_float();
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t x = load(data.data() + i * (width / 8), width);
    all |= x;
    v.nnz += x != 0;
    if (v.ints_fit && width == 64) {
      const auto s = static_cast<int64_t>(x);
      if (s >= (int64_t{1} << 61) || s <= -(int64_t{1} << 61)) v.ints_fit = false;
    }
    if (v.few) {
      const int32_t at = distinct.add(x);
      if (at < 0) {
        v.few = false;
        v.index.clear();
        v.index.shrink_to_fit();
        continue;
      }
      if (static_cast<size_t>(at) == counts.size()) counts.push_back(0);
      ++counts[static_cast<size_t>(at)];
      v.index[static_cast<size_t>(i)] = at;
    }
  }
  v.shift = all == 0 ? 0 : std::countr_zero(all);
  if (!v.few) return v;
  // Renumber in ascending key order.
  const auto& found = distinct.values();
  std::vector<int32_t> order(found.size()), rank(found.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return to_key(found[static_cast<size_t>(a)], v.type, 0) < to_key(found[static_cast<size_t>(b)], v.type, 0);
  });
  for (size_t i = 0; i < order.size(); ++i) {
    rank[static_cast<size_t>(order[i])] = static_cast<int32_t>(i);
    v.entries.push_back(found[static_cast<size_t>(order[i])]);
    v.counts.push_back(counts[static_cast<size_t>(order[i])]);
  }
  for (auto& x : v.index) x = rank[static_cast<size_t>(x)];
  if (dtype == DType::kFloat && v.entries.size() <= 4096) v.scale = find_scale(v.entries);
  return v;
}

namespace {

// Entropy of the nonzero magnitudes.
double bits_of_a_magnitude(const Values& v, uint64_t sign) {
  std::unordered_map<uint64_t, int64_t> counts;
  for (size_t k = 0; k < v.entries.size(); ++k)
    if (v.entries[k] & ~sign) counts[v.entries[k] & ~sign] += v.counts[k];
  double total = 0, bits = 0;
  for (const auto& [value, count] : counts) total += static_cast<double>(count);
  for (const auto& [value, count] : counts)
    bits += static_cast<double>(count) / total * std::log2(total / static_cast<double>(count));
  return bits;
}

// Counts, among groups of neighbouring nonzero magnitudes, those seen before in this order or the other. A group holds
// about 40 bits, so that chance gives none. Groups are sampled by their content: equal ones are sampled together.
bool groups_return(const Values& v, std::span<const uint8_t> data, uint64_t sign) {
  const double bits = v.few ? bits_of_a_magnitude(v, sign) : v.type.width;
  if (bits < 1) return false;  // too few values: any group comes again
  // 40 bits of wide values; where a row may hold far less than the whole tensor, longer.
  const auto length = static_cast<size_t>(std::clamp(std::ceil((bits < 8 ? 120 : 40) / bits), 2.0, 120.0));
  const int sample = std::max(0, static_cast<int>(std::bit_width(static_cast<uint64_t>(v.nnz))) - 16);
  std::vector<uint64_t> ring(length);
  std::unordered_set<uint64_t> seen;
  size_t filled = 0, at = 0, groups = 0, again = 0;
  uint64_t last = 0;
  for (int64_t i = 0; i < v.n; ++i) {
    const uint64_t x = load(data.data() + i * (v.type.width / 8), v.type.width) & ~sign;
    if (x == 0 || x == last) continue;  // runs of one value are for other codings
    last = x;
    ring[at] = x * 0x9E3779B97F4A7C15ull;
    at = at + 1 == length ? 0 : at + 1;
    if (++filled < length) continue;
    // The same for both orders: a sum over pairs of neighbours, each symmetric.
    uint64_t sum = 0;
    for (size_t k = 0; k + 1 < length; ++k) {
      const uint64_t a = ring[(at + k) % length], b = ring[(at + k + 1) % length];
      sum += (a + b) * ((a ^ b) | 1);
    }
    sum = hash(sum, 1);
    if (sum >> 32 & ((uint64_t{1} << sample) - 1)) continue;
    ++groups;
    again += !seen.insert(sum).second;
  }
  return again * 4 > groups;
}

// Zeros equal their neighbours and lie on lines, and cost less elsewhere: nine of ten make a pruned layer look full of
// repeats. A small tensor may be tried for nothing, a large one costs a second.
constexpr int64_t kSureOfZeros = 65536;

// How often is an element other than the commonest told by the one above, the one up and left, or by going on as the
// row or plane did, beyond chance?
bool neighbours_tell(const Values& v, std::span<const uint8_t> data, int64_t stride) {
  const auto x = [&](int64_t i) { return load(data.data() + i * (v.type.width / 8), v.type.width); };
  uint64_t common = 0;
  if (v.few)
    common = v.entries[static_cast<size_t>(std::max_element(v.counts.begin(), v.counts.end()) - v.counts.begin())];
  int64_t asked = 0, told[4] = {};
  double chance = 0;
  const int64_t first = std::max<int64_t>(stride + 1, 2), step = std::max<int64_t>(1, v.n / 50000) | 1;
  for (int64_t i = first; i < v.n; i += step) {
    if (x(i) == common && (v.few ? v.entries.size() > 1 : v.n > kSureOfZeros)) continue;
    ++asked;
    if (v.few)
      chance += static_cast<double>(v.counts[static_cast<size_t>(v.index[static_cast<size_t>(i)])]) /
                static_cast<double>(v.n);
    if (stride > 0) {
      told[0] += x(i) == x(i - stride);
      told[1] += x(i) == x(i - stride - 1);
      told[2] += x(i) == ((x(i - 1) + x(i - stride) - x(i - stride - 1)) & v.type.mask());
    }
    told[3] += x(i) == ((2 * x(i - 1) - x(i - 2)) & v.type.mask());
  }
  const auto most = static_cast<double>(*std::max_element(told, told + 4));
  return most - chance > 0.5 * (static_cast<double>(asked) - chance);
}

// Lines through the last two, in the row or in the column, come nearer than three fifths of a bit pattern.
bool lines_tell(const Values& v, std::span<const uint8_t> data, int64_t stride) {
  if (v.type.width < 16 || v.n < 32) return false;
  const auto key = [&](int64_t i) {
    return to_key(load(data.data() + i * (v.type.width / 8), v.type.width), v.type, 0);
  };
  int64_t asked = 0, bits[2] = {};
  const int64_t first = std::max<int64_t>(2 * stride, 2), step = std::max<int64_t>(1, v.n / 20000) | 1;
  for (int64_t i = first; i < v.n; i += step) {
    if (v.n > kSureOfZeros && (load(data.data() + i * (v.type.width / 8), v.type.width) == 0 || key(i) == key(i - 1)))
      continue;
    ++asked;
    for (int j = 0; j < 2; ++j) {
      const int64_t s = j ? stride : 1;
      const auto off = static_cast<int64_t>(key(i) - 2 * key(i - s) + key(i - 2 * s));
      bits[j] += std::bit_width(static_cast<uint64_t>(off < 0 ? -off : off));
    }
  }
  return asked > 16 && std::min(bits[0], stride > 0 ? bits[1] : bits[0]) < asked * v.type.width * 3 / 5;
}

// Nearly every magnitude is there once.
bool all_differ(const Values& v, uint64_t sign) {
  if (!v.few || static_cast<int64_t>(v.entries.size()) * 4 < v.nnz) return false;
  std::unordered_set<uint64_t> magnitudes;
  for (uint64_t e : v.entries) magnitudes.insert(e & ~sign);
  return static_cast<int64_t>(magnitudes.size()) * 10 > v.nnz * 9;
}

}  // namespace

Hints hints_of(const Values& v, std::span<const uint8_t> data, int64_t stride) {
  constexpr int64_t kJustTry = 2048;
  const uint64_t sign = v.type.is_float() ? uint64_t{1} << (v.type.width - 1) : 0;
  Hints h;
  h.smooth = lines_tell(v, data, stride);
  if (v.type.is_float() && all_differ(v, sign)) return h;
  if (v.n <= kJustTry) {
    h.repeats = v.n > 4;
    return h;
  }
  h.repeats = neighbours_tell(v, data, stride) || groups_return(v, data, sign);
  return h;
}

Sketch sketch_of(DType dtype, std::span<const uint8_t> data) {
  const Pattern type = Pattern::of(dtype);
  if (type.width < 32) return {};
  const uint64_t sign = type.is_float() ? uint64_t{1} << (type.width - 1) : 0;
  const auto size = static_cast<size_t>(type.width / 8);
  std::set<uint64_t> least;
  for (size_t at = 0; at + size <= data.size(); at += size) {
    const uint64_t x = load(data.data() + at, type.width) & ~sign, h = hash(x, 1) * 0xD6E8FEB86659FD93ull;
    if (x == 0 || (least.size() == kSketch && h >= *least.rbegin())) continue;
    least.insert(h);
    if (least.size() > kSketch) least.erase(std::prev(least.end()));
  }
  return {least.begin(), least.end()};
}

bool alike(const Sketch& a, const Sketch& b) {
  size_t both = 0;
  for (uint64_t h : a) both += std::binary_search(b.begin(), b.end(), h);
  return both * 4 > std::max<size_t>(a.size(), 8);
}

}  // namespace secateur::sct
