#include "formats/tensor.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "formats/study.h"
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
constexpr Row kLayouts[] = {{Layout::kDense, "dense"},
                            {Layout::kSparse, "sparse"},
                            {Layout::kGaps, "gaps"},
                            {Layout::kNm, "nm"},
                            {Layout::kBlocks, "blocks"}};
struct CodecRow {
  Codec codec;
  const char* name;
};
constexpr CodecRow kCodecs[] = {{Codec::kRaw, "raw"},         {Codec::kCodebook, "codebook"}, {Codec::kGrid, "grid"},
                                {Codec::kFields, "fields"},   {Codec::kInts, "ints"},         {Codec::kSplit, "split"},
                                {Codec::kMatched, "matched"}, {Codec::kSame, "same"}};

// ---- trying
// ----------------------------------------------------------------------------------------------------------

struct Best {
  std::vector<uint8_t> bytes;
  Plan plan;
  bool any = false;
};

class Search {
 public:
  Search(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data, const Past& past,
         const Sketch& own, Values& v, double ideal_bits)
      : dtype_(dtype), dims_(dims), data_(data), past_(past), own_(own), v_(v), ideal_bits_(ideal_bits) {}

  Best run() {
    if (v_.nnz > 0 && v_.nnz < v_.n) {
      const double positions = log2_choose(v_.n, v_.nnz);
      blocks_ = likely_blocks(dims_, nonzero(), (ideal_bits_ - positions) / static_cast<double>(v_.nnz));
      if (blocks_.bits > 0) ideal_bits_ = std::min(ideal_bits_, blocks_.bits);
    }
    independent();
    matched();
    return std::move(best_);
  }

 private:
  // Codings that look at this tensor's values one by one, or at their neighbours.
  void independent() {
    if (v_.nnz >= kFastMin) {
      fast();
      if (best_.any && static_cast<double>(best_.bytes.size()) <= 1.01 / 8 * ideal_bits_) return;
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
      if (blocks_.bits > 0) attempt(in_blocks(q));
      if (find_groups(q)) attempt(q);
      if (mixes(q) && (v_.n <= 65536 || best_.bytes.size() > 64)) {  // nothing to gain where gaps take a few bytes
        q.layout = Layout::kSparse;
        q.mixed = true;
        orders(q);
      }
    }
    if (!best_.any || best_.bytes.size() > data_.size()) attempt(Plan{});
  }

  // Repeats, in this tensor or of an earlier one of its size. Large tensors take them only for a real gain: they decode
  // at a tenth of the speed.
  void matched() {
    if (v_.n > kMatchedMax || best_.bytes.size() <= 8) return;
    const size_t best = best_.bytes.size();
    most_ = v_.nnz < kFastMin ? best : v_.n <= kMixedMax ? best / 20 * 19 : best / 2;
    Plan p;
    p.codec = Codec::kMatched;
    p.match.shift = splits() ? v_.shift : 0;
    const std::vector<int64_t> strides = row_lengths();
    p.match.stride = strides.front();
    const Hints hints = hints_of(v_, data_, strides.front());
    p.match.smooth = hints.smooth;
    if (hints.repeats || hints.smooth) choose(p, strides, hints.smooth && v_.n < kFastMin);
    after_another(p);
  }

  // The best row length, and where asked whether distances pay after all.
  void choose(Plan& p, const std::vector<int64_t>& strides, bool ask) {
    size_t best = ~size_t{0};
    const auto better = [&](const Plan& q) {
      const size_t size = attempt(q, most_);
      if (size < best) best = size, p = q;
    };
    for (Plan q = p; int64_t stride : strides) {
      q.match.stride = stride;
      better(q);
    }
    if (!ask) return;
    Plan q = p;
    q.match.smooth = false;
    better(q);
  }

  // The same with an earlier tensor of the size before it, as it is or transposed.
  void after_another(Plan p) {
    if (2 * v_.n > kMatchedMax || best_.bytes.size() <= 64) return;
    int tries = 0;
    const size_t known = past_.tensors.size();
    for (uint64_t back = 1; back <= known && tries < 3; ++back) {
      if (past_.tensors[known - back].size() != data_.size() || !alike(own_, past_.sketches[known - back])) continue;
      p.back = back;
      attempt(p, most_);
      if (p.match.stride > 0 && v_.n % p.match.stride == 0) {
        p.turned = true;
        attempt(p, most_);
        p.turned = false;
      }
      ++tries;
    }
  }

  // Elements from one row to the next, the likeliest first; 0 for a vector.
  std::vector<int64_t> row_lengths() const {
    std::vector<int64_t> all;
    int64_t length = 1;
    for (size_t a = dims_.size(); a-- > 1;) {
      length *= dims_[a];
      if (length > 1 && length < v_.n && length <= kStrideMax && (all.empty() || all.back() != length))
        all.push_back(length);
    }
    if (all.empty()) return {0};
    std::swap(all.front(), all.back());
    all.resize(std::min<size_t>(all.size(), 2));
    return all;
  }

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
      if (blocks_.bits > 0) attempt(in_blocks(p));
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
    return v_.n <= kMixedMax && p.codec != Codec::kSplit &&
           (p.codec != Codec::kCodebook || static_cast<int64_t>(p.entries.size()) <= kMixedCodebookMax);
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
      if (size < best) best = size;
      else p.columns_first = false;
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

  std::vector<uint8_t> nonzero() const {
    std::vector<uint8_t> any(static_cast<size_t>(v_.n));
    for (size_t i = 0; i < any.size(); ++i)
      any[i] = load(data_.data() + i * static_cast<size_t>(v_.type.width / 8), v_.type.width) != 0;
    return any;
  }

  // The plan in blocks of the likeliest shape; a codebook holds zero only where one lies inside.
  Plan in_blocks(Plan p) const {
    p.layout = Layout::kBlocks;
    p.blocks = blocks_.shape;
    if (p.codec != Codec::kCodebook) return p;
    const std::vector<uint8_t> any = nonzero();
    const BlockView view(dims_, p.blocks);
    bool zeros = false;
    for (int64_t row = 0; row < view.down(); ++row)
      for (int64_t col = 0; col < view.across(); ++col) {
        bool some = false, all = true;
        view.each(row, col, [&](int64_t i) { (any[static_cast<size_t>(i)] ? some = true : all = false); });
        zeros = zeros || (some && !all);
      }
    set_entries(p, zeros);
    return p;
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

  // Takes the plan if it is shorter than the best and than `most`; returns its length.
  size_t attempt(const Plan& plan, size_t most = ~size_t{0}) {
    Plan p = plan;
    Encoder e;
    TensorCoder<Encoder> coder(e, dtype_, dims_, const_cast<uint8_t*>(data_.data()), past_.tensors,
                               kNewest);  // read only when encoding
    coder.run(p);
    std::vector<uint8_t> bytes = e.finish();
    bytes.insert(bytes.end(), p.tail.begin(), p.tail.end());
    p.tail.clear();
    const size_t size = bytes.size();
    if (!best_.any || (size < best_.bytes.size() && size < most)) {
      best_.any = true;
      best_.bytes = std::move(bytes);
      p.index.clear();
      p.inside.clear();
      best_.plan = std::move(p);
    }
    return size;
  }

  DType dtype_;
  const std::vector<int64_t>& dims_;
  std::span<const uint8_t> data_;
  const Past& past_;
  const Sketch& own_;
  Values& v_;
  size_t most_ = 0;  // bytes a matched coding must stay below
  double ideal_bits_;
  LikelyBlocks blocks_;  // bits = 0: none
  Best best_;
};

int64_t count_elements(const std::vector<int64_t>& dims) {
  int64_t n = 1;
  for (int64_t d : dims) n *= d;
  return n;
}

void describe(TensorReport& r, const Plan& p) {
  for (const Row& row : kLayouts)
    if (row.layout == p.layout) r.layout = row.name;
  r.version = p.layout == Layout::kBlocks ? kNewest : 2;
  for (const CodecRow& row : kCodecs)
    if (row.codec == p.codec) r.codec = row.name;
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

CodedTensor encode_tensor(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data,
                          const Past& past, const std::vector<uint64_t>& own) {
  CodedTensor out;
  const int64_t n = count_elements(dims);
  if (n == 0) {
    out.report.layout = "dense";
    out.report.codec = "raw";
    return out;
  }
  Values v = study(dtype, n, data);
  bound(out.report, v);
  Best best = Search(dtype, dims, data, past, own, v, out.report.bound_bits).run();
  describe(out.report, best.plan);
  out.report.nbytes = best.bytes.size();
  out.bytes = std::move(best.bytes);
  return out;
}

namespace {

CodedTensor encode_as(Plan p, DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data,
                      const Earlier& earlier) {
  CodedTensor out;
  Encoder e;
  TensorCoder<Encoder>(e, dtype, dims, const_cast<uint8_t*>(data.data()), earlier, kNewest).run(p);
  out.bytes = e.finish();
  out.bytes.insert(out.bytes.end(), p.tail.begin(), p.tail.end());
  describe(out.report, p);
  out.report.n = count_elements(dims);
  out.report.nbytes = out.bytes.size();
  return out;
}

}  // namespace

CodedTensor encode_tensor_raw(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data) {
  return encode_as(Plan{}, dtype, dims, data, {});
}

CodedTensor encode_same(DType dtype, const std::vector<int64_t>& dims, const Earlier& earlier, size_t back) {
  Plan p;
  p.codec = Codec::kSame;
  p.back = back;
  return encode_as(p, dtype, dims, {}, earlier);
}

void bound_of(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data, TensorReport& report) {
  const int64_t n = count_elements(dims);
  if (n > 0) bound(report, study(dtype, n, data));
}

size_t decode_tensor(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> bytes,
                     std::vector<uint8_t>& data, const Earlier& earlier, int version, TensorReport* report) {
  const int64_t n = count_elements(dims);
  data.assign(static_cast<size_t>(n) * dtype_size(dtype), 0);
  Decoder d(bytes);
  Plan p;
  TensorCoder<Decoder> coder(d, dtype, dims, data.data(), earlier, version);
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
