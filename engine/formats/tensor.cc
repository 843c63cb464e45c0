#include "formats/tensor.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "formats/tensor_coder.h"

namespace secateur::sct {
namespace {

constexpr int64_t kFastMin = 65536;  // kept values: from here on the fast codings are taken if within 1 % of the ideal
constexpr int64_t kSplitMin = 4096;  // below, the table and states of rANS cost more than they save
constexpr size_t kFastEntries = 4096;
constexpr int64_t kSearchWork = 6 << 20;  // decisions spent on visiting orders of one codec; ~50 ns each

// One row per layout and codec: the unpack table. What a stream may hold is what stands here; names are those of the
// Python files that describe them.
struct Row {
  Layout layout;
  const char* name;
};
constexpr Row kLayouts[] = {
    {Layout::kDense, "dense"}, {Layout::kSparse, "sparse"}, {Layout::kGaps, "gaps"}, {Layout::kNm, "nm"}};
struct CodecRow {
  Codec codec;
  const char* name;
};
constexpr CodecRow kCodecs[] = {{Codec::kRaw, "raw"},
                                {Codec::kCodebook, "codebook"},
                                {Codec::kGrid, "grid"},
                                {Codec::kFields, "fields"},
                                {Codec::kInts, "ints"},
                                {Codec::kSplit, "split"}};

// ---- what the values are -------------------------------------------------------------------------------------------

struct Values {
  Pattern type;
  int64_t n = 0, nnz = 0;
  bool few = false;                   // at most kCodebookMax distinct patterns: then the three below are known
  std::vector<uint64_t> entries;      // distinct patterns in ascending key order, 0 included when present
  std::vector<int64_t> counts;        // of each entry
  std::vector<int32_t> index;         // entry of each element
  int shift = 0;                      // trailing zero bits of all nonzero patterns
  bool ints_fit = false;              // whole numbers below 2^61
  uint32_t scale = 0;                 // every value is float32(q * scale); 0 = no such scale found
};

// Distinct patterns by open addressing; stops at the limit.
class Distinct {
 public:
  Distinct() : slots_(size_t{1} << 18, -1) {}
  int32_t add(uint64_t x) {
    size_t h = (x * 0x9E3779B97F4A7C15ull) >> 46;
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
  if (gap > 0) for (int j = 1; j <= 4; ++j) guesses.push_back(gap / j);
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

uint64_t load(const uint8_t* p, int width) {
  uint64_t x = 0;
  std::memcpy(&x, p, static_cast<size_t>(width / 8));
  return x;
}

Values study(DType dtype, int64_t n, std::span<const uint8_t> data) {
  Values v;
  v.type = Pattern::of(dtype);
  v.n = n;
  const int width = v.type.width;
  Distinct distinct;
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

// ---- trying ----------------------------------------------------------------------------------------------------------

struct Best {
  std::vector<uint8_t> bytes;
  Plan plan;
  bool any = false;
};

class Search {
 public:
  Search(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data, Values& v,
         double ideal_bits)
      : dtype_(dtype), dims_(dims), data_(data), v_(v), ideal_bits_(ideal_bits) {}

  Best run() {
    if (v_.nnz >= kFastMin) {
      fast();
      if (best_.any && static_cast<double>(best_.bytes.size()) <= 1.01 / 8 * ideal_bits_) return std::move(best_);
    }
    const bool sparse = v_.nnz < v_.n;
    for (Plan& p : codecs()) {
      const bool codebook = p.codec == Codec::kCodebook;
      if (codebook) set_entries(p, true);
      if (!(sparse && v_.n > 4096 && v_.nnz * 4 < v_.n)) attempt(p);  // mostly zeros: dense never wins
      if (best_.any && best_.bytes.size() <= 4) break;
      if (codebook && mixes(p) && (!sparse || v_.nnz * 2 > v_.n)) {
        p.mixed = true;
        orders(p);
      }
      if (!sparse) continue;
      Plan q = p;
      q.mixed = false;
      q.nnz = v_.nnz;
      if (codebook) set_entries(q, false);
      q.layout = Layout::kGaps;
      attempt(q);
      if (find_groups(q)) attempt(q);
      if (mixes(q) && (v_.n <= 65536 || best_.bytes.size() > 64)) {  // nothing to gain where gaps take a few bytes
        q.layout = Layout::kSparse;
        q.mixed = true;
        orders(q);
      }
    }
    if (!best_.any || best_.bytes.size() > data_.size()) attempt(Plan{});
    return std::move(best_);
  }

 private:
  // rANS codings, dense and with gaps.
  void fast() {
    const auto both = [&](Plan p) {
      const bool codebook = p.codec == Codec::kCodebook;
      if (codebook) set_entries(p, true);
      if (v_.nnz * 4 >= v_.n) attempt(p);
      if (v_.nnz == v_.n) return;
      if (codebook) set_entries(p, false);
      p.layout = Layout::kGaps;
      p.nnz = v_.nnz;
      attempt(p);
    };
    Plan p;
    p.shift = v_.shift;
    if (v_.few && v_.entries.size() <= kFastEntries) {
      p.codec = Codec::kCodebook;
      p.fast = true;
      both(p);
    }
    if (splits() && !(v_.few && v_.entries.size() <= 64)) {
      p.codec = Codec::kSplit;
      p.fast = false;
      both(p);
    }
  }
  bool splits() const { return v_.type.is_float() && v_.shift <= v_.type.width - 1 - v_.type.exponent; }

  bool mixes(const Plan& p) const {
    return v_.n <= kMixedMax && p.codec != Codec::kSplit && (p.codec != Codec::kCodebook || static_cast<int64_t>(p.entries.size()) <= kMixedCodebookMax);
  }

  std::vector<Plan> codecs() const {
    std::vector<Plan> all;
    const auto add = [&](Codec c) {
      Plan p;
      p.codec = c;
      p.shift = v_.shift;
      p.scale = v_.scale;
      all.push_back(p);
      return &all.back();
    };
    if (v_.few && codebook_may_win()) {
      add(Codec::kCodebook);
      if (v_.scale) add(Codec::kCodebook)->on_grid = true;
    }
    const bool very_few = v_.few && static_cast<int64_t>(v_.entries.size()) * 16 < v_.nnz;  // a codebook always wins
    if (v_.scale && !(very_few && v_.n > 65536)) add(Codec::kGrid);
    if (v_.type.is_float() && !(very_few && v_.n > 4096)) {
      if (v_.nnz < kFastMin || !splits()) add(Codec::kFields);
      if (v_.nnz >= kSplitMin && v_.nnz < kFastMin && splits()) add(Codec::kSplit);
    }
    if (v_.ints_fit && !(very_few && v_.n > 65536)) add(Codec::kInts);
    return all;
  }

  // Nearly as many entries as values: the bound itself is then above the plain bits, no need to try.
  bool codebook_may_win() const {
    const double m = static_cast<double>(v_.entries.size()), k = static_cast<double>(std::max<int64_t>(v_.nnz, 1));
    return m < 0.75 * k || std::log2(k) < 0.25 * v_.type.width + 0.5;
  }

  void set_entries(Plan& p, bool with_zero) const {
    p.entries.clear();
    p.index.clear();
    const auto zero = std::find(v_.entries.begin(), v_.entries.end(), uint64_t{0});
    if (with_zero || zero == v_.entries.end()) {
      p.entries = v_.entries;
      p.index = v_.index;
      return;
    }
    const auto skip = static_cast<int32_t>(zero - v_.entries.begin());
    for (size_t i = 0; i < v_.entries.size(); ++i) {
      if (static_cast<int32_t>(i) != skip) p.entries.push_back(v_.entries[i]);
    }
    p.index = v_.index;
    for (auto& x : p.index) x = x == skip ? -1 : x > skip ? x - 1 : x;
  }

  // Visiting orders and periods, the likeliest first, each question asked at the best answer so far, until the work is
  // worth a fraction of a second.
  void orders(Plan p) {
    const bool sparse = p.layout == Layout::kSparse;
    const int64_t cost = sparse ? v_.n + 8 * v_.nnz : v_.n * std::bit_width(p.entries.size());
    int64_t work = kSearchWork;
    const auto affordable = [&] { return (work -= cost) > 0; };
    size_t best = attempt(p);
    if (dims_.size() >= 2 && dims_[0] > 1 && dims_[1] > 1 && affordable()) {
      p.columns_first = true;
      const size_t size = attempt(p);
      if (size < best) best = size; else p.columns_first = false;
    }
    if (dims_.size() != 2 || (!sparse && v_.n > 4096)) return;
    for (bool rows : {false, true}) {
      for (int64_t period : {16, 25, 4, 9, 36, 49, 64, 81}) {
        const int64_t side = dims_[rows ? 0 : 1];
        if (side % period != 0 || side / period < 2) continue;
        Plan q = p;
        q.split_rows = rows;
        q.period = period;
        for (bool first : {false, true}) {
          if (!affordable()) return;
          q.columns_first = first;
          const size_t size = attempt(q);
          if (size < best) best = size, p = q;
        }
      }
    }
  }

  bool find_groups(Plan& p) const {
    if (dims_.size() < 2 || p.codec == Codec::kSplit) return false;
    const View view = View::of(dims_, 1, false);
    for (int64_t group : {4, 8, 16, 32, 2}) {
      if (dims_[1] % group != 0) continue;
      int64_t kept = -1;
      bool same = true;
      for (int64_t r = 0; same && r < view.rows; ++r) {
        for (int64_t q = 0; same && q < view.size; ++q) {
          for (int64_t g = 0; same && g < view.cols; g += group) {
            int64_t count = 0;
            for (int64_t k = g; k < g + group; ++k) {
              const int64_t i = r * view.row_stride + k * view.col_stride + q;
              count += load(data_.data() + i * (v_.type.width / 8), v_.type.width) != 0;
            }
            if (kept < 0) kept = count;
            same = count == kept && kept > 0 && kept < group;
          }
        }
      }
      if (!same) continue;
      p.layout = Layout::kNm;
      p.group = group;
      p.kept = kept;
      return true;
    }
    return false;
  }

  size_t attempt(const Plan& plan) {
    Plan p = plan;
    Encoder e;
    TensorCoder<Encoder> coder(e, dtype_, dims_, const_cast<uint8_t*>(data_.data()));  // read only when encoding
    coder.run(p);
    std::vector<uint8_t> bytes = e.finish();
    bytes.insert(bytes.end(), p.tail.begin(), p.tail.end());
    p.tail.clear();
    const size_t size = bytes.size();
    if (!best_.any || size < best_.bytes.size()) {
      best_.any = true;
      best_.bytes = std::move(bytes);
      p.index.clear();
      best_.plan = std::move(p);
    }
    return size;
  }

  DType dtype_;
  const std::vector<int64_t>& dims_;
  std::span<const uint8_t> data_;
  Values& v_;
  double ideal_bits_;
  Best best_;
};

int64_t count_elements(const std::vector<int64_t>& dims) {
  int64_t n = 1;
  for (int64_t d : dims) n *= d;
  return n;
}

void describe(TensorReport& r, const Plan& p) {
  for (const Row& row : kLayouts) if (row.layout == p.layout) r.layout = row.name;
  for (const CodecRow& row : kCodecs) if (row.codec == p.codec) r.codec = row.name;
}

// The ideal: H0 over the kept values, a codebook entry at its full width; all values distinct when they are too many.
void bound(TensorReport& r, const Values& v) {
  r.n = v.n;
  r.nnz = v.nnz;
  double entropy = 0;
  if (v.few) {
    for (size_t i = 0; i < v.entries.size(); ++i) {
      if (v.entries[i] == 0) continue;
      const auto count = static_cast<double>(v.counts[i]);
      entropy += count * std::log2(static_cast<double>(v.nnz) / count);
      ++r.n_values;
    }
  } else {
    r.n_values = kCodebookMax;  // at least
    entropy = static_cast<double>(v.nnz) * v.type.width - 1.0 * static_cast<double>(r.n_values) * v.type.width;
  }
  r.bound_bits = log2_choose(v.n, v.nnz) + entropy + static_cast<double>(r.n_values) * v.type.width;
}

}  // namespace

double log2_choose(int64_t n, int64_t k) {
  if (k <= 0 || k >= n) return 0;
  const auto f = [](int64_t x) { return std::lgamma(static_cast<double>(x) + 1); };
  return (f(n) - f(k) - f(n - k)) / std::log(2.0);
}

CodedTensor encode_tensor(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data) {
  CodedTensor out;
  const int64_t n = count_elements(dims);
  if (n == 0) {
    out.report.layout = "dense";
    out.report.codec = "raw";
    return out;
  }
  Values v = study(dtype, n, data);
  bound(out.report, v);
  Best best = Search(dtype, dims, data, v, out.report.bound_bits).run();
  describe(out.report, best.plan);
  out.report.nbytes = best.bytes.size();
  out.bytes = std::move(best.bytes);
  return out;
}

CodedTensor encode_tensor_raw(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data) {
  CodedTensor out;
  out.report.layout = "dense";
  out.report.codec = "raw";
  Encoder e;
  Plan p;
  TensorCoder<Encoder>(e, dtype, dims, const_cast<uint8_t*>(data.data())).run(p);
  out.bytes = e.finish();
  out.bytes.insert(out.bytes.end(), p.tail.begin(), p.tail.end());
  out.report.n = count_elements(dims);
  out.report.nbytes = out.bytes.size();
  return out;
}

void bound_of(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data, TensorReport& report) {
  const int64_t n = count_elements(dims);
  if (n > 0) bound(report, study(dtype, n, data));
}

size_t decode_tensor(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> bytes,
                     std::vector<uint8_t>& data, TensorReport* report) {
  const int64_t n = count_elements(dims);
  data.assign(static_cast<size_t>(n) * dtype_size(dtype), 0);
  Decoder d(bytes);
  Plan p;
  TensorCoder<Decoder> coder(d, dtype, dims, data.data());
  coder.run(p);
  size_t used = n == 0 ? 0 : d.consumed();
  if (used > bytes.size()) throw FormatError("truncated: a tensor's stream ends early");
  if (n > 0) used += coder.tail_read(p, bytes.subspan(used));
  if (report) {
    describe(*report, p);
    report->nbytes = used;
    report->n = n;
  }
  return used;
}

}  // namespace secateur::sct
