#include "formats/search.h"

#include <algorithm>
#include <cmath>

#include "formats/tensor_coder.h"

namespace secateur::sct {
namespace {

using codecs::Codebook;
using layouts::Dense;
using layouts::Gaps;
using layouts::Sparse;

constexpr int64_t kFastMin = 65536;  // kept values: from here on the fast codings are taken if within 1 % of the ideal
constexpr int64_t kSplitMin = 4096;  // below, the table and states of rANS cost more than they save
constexpr size_t kFastEntries = 4096;
constexpr int64_t kSearchWork = 6 << 20;  // decisions spent on visiting orders of one codec; ~50 ns each

// A layout that fits: see Found.
struct Fitting {
  Layout layout;
  bool zeros = false;
  double bits = 0;
};

// Asks every layout of the table that looks at a tensor by itself.
template <class... Row>
std::vector<Fitting> fitting(const Seen& t, const std::variant<Row...>*) {
  std::vector<Fitting> all;
  const auto ask = [&]<class R>(const R*) {
    if constexpr (requires { R::find(t); }) {
      if (auto found = R::find(t)) all.push_back({found->layout, found->zeros, found->bits});
    }
  };
  (ask(static_cast<const Row*>(nullptr)), ...);
  return all;
}

class Search {
 public:
  Search(DType dtype, const Seen& seen, const Past& past, const Sketch& own)
      : dtype_(dtype),
        dims_(seen.dims),
        data_(seen.data),
        past_(past),
        own_(own),
        v_(seen.values),
        ideal_bits_(seen.ideal_bits) {
    if (v_.nnz == v_.n) return;
    fitting_ = fitting(seen, static_cast<const Layout*>(nullptr));
    for (const Fitting& f : fitting_)
      if (f.bits > 0) ideal_bits_ = std::min(ideal_bits_, f.bits);
  }

  CodedTensor run() {
    independent();
    matched();
    return std::move(best_);
  }

 private:
  // Codings that look at this tensor's values one by one, or at their neighbours.
  void independent() {
    if (v_.nnz >= kFastMin) {
      fast();
      if (any_ && static_cast<double>(best_.bytes.size()) <= 1.01 / 8 * ideal_bits_) return;
    }
    const bool sparse = v_.nnz < v_.n;
    for (const Codec& codec : codecs()) {
      Plan p{Dense{}, with_entries(codec, true)};
      if (!(sparse && v_.n > 4096 && v_.nnz * 4 < v_.n)) attempt(p);  // mostly zeros: dense never wins
      if (any_ && best_.bytes.size() <= 4) break;
      if (std::holds_alternative<Codebook>(codec) && mixes(p.codec) && (!sparse || v_.nnz * 2 > v_.n))
        orders<Dense>({Dense{.mixed = true}, p.codec});
      if (sparse) without_zeros(codec);
    }
    if (!any_ || best_.bytes.size() > data_.size()) attempt({Dense{}, codecs::Raw{}});
  }

  // Layouts that leave zeros out.
  void without_zeros(const Codec& codec) {
    const Codec kept = with_entries(codec, false);
    for (const Fitting& f : fitting_) {
      if (std::holds_alternative<codecs::Split>(codec) && !may_lie_behind(f.layout)) continue;
      attempt({f.layout, f.zeros ? with_entries(codec, true) : kept});
    }
    if (mixes(kept) && (v_.n <= 65536 || best_.bytes.size() > 64))  // nothing to gain where gaps take a few bytes
      orders<Sparse>({Sparse{.nnz = v_.nnz}, kept});
  }

  // Repeats, in this tensor or of an earlier one of its size. Large tensors take them only for a real gain: they decode
  // at a tenth of the speed.
  void matched() {
    if (v_.n > kMatchedMax || best_.bytes.size() <= 8) return;
    const size_t best = best_.bytes.size();
    most_ = v_.nnz < kFastMin ? best : v_.n <= kMixedMax ? best / 20 * 19 : best / 2;
    codecs::Matched m;
    m.plan.shift = splits() ? v_.shift : 0;
    const std::vector<int64_t> strides = row_lengths();
    m.plan.stride = strides.front();
    const Hints hints = hints_of(v_, data_, strides.front());
    m.plan.smooth = hints.smooth;
    if (hints.repeats || hints.smooth) choose_rows(m, strides, hints.smooth && v_.n < kFastMin);
    after_another(m);
  }

  // The best row length, and where asked whether distances pay after all.
  void choose_rows(codecs::Matched& m, const std::vector<int64_t>& strides, bool ask) {
    size_t best = ~size_t{0};
    const auto better = [&](const codecs::Matched& q) {
      const size_t size = attempt({Dense{}, q}, most_);
      if (size < best) best = size, m = q;
    };
    for (codecs::Matched q = m; int64_t stride : strides) {
      q.plan.stride = stride;
      better(q);
    }
    if (!ask) return;
    codecs::Matched q = m;
    q.plan.smooth = false;
    better(q);
  }

  // The same with an earlier tensor of the size before it, as it is or transposed.
  void after_another(codecs::Matched m) {
    if (2 * v_.n > kMatchedMax || best_.bytes.size() <= 64) return;
    int tries = 0;
    const size_t known = past_.tensors.size();
    for (uint64_t back = 1; back <= known && tries < 3; ++back) {
      if (past_.tensors[known - back].size() != data_.size() || !alike(own_, past_.sketches[known - back])) continue;
      m.back = back;
      attempt({Dense{}, m}, most_);
      if (m.plan.stride > 0 && v_.n % m.plan.stride == 0) {
        m.turned = true;
        attempt({Dense{}, m}, most_);
        m.turned = false;
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

  // rANS codings, dense and without zeros.
  void fast() {
    const auto all = [&](const Codec& codec) {
      if (v_.nnz * 4 >= v_.n) attempt({Dense{}, with_entries(codec, true)});
      for (const Fitting& f : fitting_)
        if (may_lie_behind(f.layout)) attempt({f.layout, with_entries(codec, f.zeros)});
    };
    if (v_.few && v_.entries.size() <= kFastEntries) {
      Codebook book;
      book.shift = v_.shift;
      book.fast = true;
      all(book);
    }
    if (splits() && !(v_.few && v_.entries.size() <= 64)) all(codecs::Split{.shift = v_.shift});
  }
  bool splits() const { return v_.type.is_float() && v_.shift <= v_.type.mantissa(); }

  bool mixes(const Codec& codec) const {
    const auto* book = std::get_if<Codebook>(&codec);
    return v_.n <= kMixedMax && !std::holds_alternative<codecs::Split>(codec) &&
           (!book || static_cast<int64_t>(book->entries.size()) <= kMixedCodebookMax);
  }

  // What is worth trying; a codebook's entries are filled in by with_entries().
  std::vector<Codec> codecs() const {
    std::vector<Codec> all;
    if (v_.few && codebook_may_win()) {
      Codebook book;
      book.shift = v_.shift;
      book.scale = v_.scale;
      all.push_back(book);
      book.on_grid = true;
      if (v_.scale) all.push_back(book);
    }
    const bool very_few = v_.few && static_cast<int64_t>(v_.entries.size()) * 16 < v_.nnz;  // a codebook always wins
    if (v_.scale && !(very_few && v_.n > 65536)) all.push_back(codecs::Grid{v_.scale});
    if (v_.type.is_float() && !(very_few && v_.n > 4096)) {
      if (v_.nnz < kFastMin || !splits()) all.push_back(codecs::Fields{v_.shift});
      if (v_.nnz >= kSplitMin && v_.nnz < kFastMin && splits()) all.push_back(codecs::Split{.shift = v_.shift});
    }
    if (v_.ints_fit && !(very_few && v_.n > 65536)) all.push_back(codecs::Ints{});
    return all;
  }

  // Nearly as many entries as values: the bound itself is then above the plain bits, no need to try.
  bool codebook_may_win() const {
    const double m = static_cast<double>(v_.entries.size()), k = static_cast<double>(std::max<int64_t>(v_.nnz, 1));
    return m < 0.75 * k || std::log2(k) < 0.25 * v_.type.width + 0.5;
  }

  Codec with_entries(Codec codec, bool with_zero) const {
    auto* book = std::get_if<Codebook>(&codec);
    if (!book) return codec;
    book->entries = v_.entries;
    book->index = v_.index;
    const auto zero = std::find(v_.entries.begin(), v_.entries.end(), uint64_t{0});
    if (with_zero || zero == v_.entries.end()) return codec;
    const auto skip = static_cast<int32_t>(zero - v_.entries.begin());
    book->entries.erase(book->entries.begin() + skip);
    for (auto& x : book->index) x = x == skip ? -1 : x > skip ? x - 1 : x;
    return codec;
  }

  // Visiting orders and periods of a mixed layout L, the likeliest first, each question asked at the best answer so
  // far, until the work is worth a fraction of a second.
  template <class L>
  void orders(Plan p) {
    const auto order = [](Plan& of) -> Order& { return std::get<L>(of.layout).order; };
    const bool sparse = std::is_same_v<L, Sparse>;
    const auto* book = std::get_if<Codebook>(&p.codec);
    const int64_t cost = sparse ? v_.n + 8 * v_.nnz : v_.n * std::bit_width(book ? book->entries.size() : 0);
    int64_t work = kSearchWork;
    const auto affordable = [&] { return (work -= cost) > 0; };
    size_t best = attempt(p);
    if (dims_.size() >= 2 && dims_[0] > 1 && dims_[1] > 1 && affordable()) {
      order(p).columns_first = true;
      const size_t size = attempt(p);
      if (size < best) best = size;
      else order(p).columns_first = false;
    }
    if (dims_.size() != 2 || (!sparse && v_.n > 4096)) return;
    for (bool rows : {false, true}) {
      for (int64_t period : {16, 25, 4, 9, 36, 49, 64, 81}) {
        const int64_t side = dims_[rows ? 0 : 1];
        if (side % period != 0 || side / period < 2) continue;
        Plan q = p;
        order(q).split_rows = rows;
        order(q).period = period;
        for (bool first : {false, true}) {
          if (!affordable()) return;
          order(q).columns_first = first;
          const size_t size = attempt(q);
          if (size < best) best = size, p = q;
        }
      }
    }
  }

  // Takes the plan if it is shorter than the best and than `most`; returns its length.
  size_t attempt(const Plan& plan, size_t most = ~size_t{0}) {
    CodedTensor coded = encode_as(plan, dtype_, dims_, data_, past_.tensors);
    const size_t size = coded.bytes.size();
    if (!any_ || (size < best_.bytes.size() && size < most)) best_ = std::move(coded);
    any_ = true;
    return size;
  }

  DType dtype_;
  const std::vector<int64_t>& dims_;
  std::span<const uint8_t> data_;
  const Past& past_;
  const Sketch& own_;
  const Values& v_;
  size_t most_ = 0;  // bytes a matched coding must stay below
  double ideal_bits_;
  std::vector<Fitting> fitting_;  // of a tensor with zeros
  CodedTensor best_;
  bool any_ = false;
};

}  // namespace

CodedTensor shortest(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data, const Past& past,
                     const Sketch& own, const Values& values, double ideal_bits) {
  return Search(dtype, {dims, data, values, ideal_bits}, past, own).run();
}

}  // namespace secateur::sct
