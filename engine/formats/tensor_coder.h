// One tensor's stream, written once for both directions: with an Encoder the members are read, with a Decoder they are
// filled in. docs/format.md, "Tensor stream".
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/bodies/blocks.h"
#include "formats/matched.h"
#include "formats/mixing.h"
#include "formats/split.h"
#include "formats/study.h"
#include "formats/tensor.h"
#include "formats/values.h"

namespace secateur::sct {

// Where the kept values sit and how one is written; the numbers are what the file holds, layouts from kBlocks on behind
// an escape.
enum class Layout : uint8_t { kDense = 0, kSparse = 1, kGaps = 2, kNm = 3, kBlocks = 4 };
enum class Codec : uint8_t {
  kRaw = 0,
  kCodebook = 1,
  kGrid = 2,
  kFields = 3,
  kInts = 4,
  kSplit = 5,
  kMatched = 6,
  kSame = 7
};

inline constexpr int64_t kMixedMax = int64_t{1} << 20;  // elements: mixing costs ~0.1 us each
inline constexpr int64_t kMixedCodebookMax = 256;
inline constexpr int64_t kRowContexts = 65536;  // rows x entries that get a context of their own

struct Plan {
  Layout layout = Layout::kDense;
  Codec codec = Codec::kRaw;
  bool mixed = false;  // contexts are mixed (always for sparse; codebooks may)
  bool columns_first = false;
  bool split_rows = false;  // rank 2: the period cuts axis 0, not axis 1
  int64_t period = 1;
  int64_t group = 0, kept = 0;  // N:M: kept of group
  BlockShape blocks;
  std::vector<uint8_t> inside;  // blocks: 1 for each element of a kept one
  int64_t nnz = 0;
  int shift = 0;         // zero bits at the end of every pattern
  bool on_grid = false;  // codebook entries are whole numbers times the scale
  uint32_t scale = 0;
  std::vector<uint64_t> entries;      // codebook, ascending keys (patterns)
  std::vector<int32_t> index;         // encoder: entry of each element, -1 where pattern 0 is left out
  bool fast = false;                  // codebook: indices by rANS, as split values are
  std::vector<uint32_t> frequencies;  // split values: of sign and exponent, or of codebook entries
  uint64_t split_bytes = 0;           // split values: length of the rANS part
  uint64_t back = 0;                  // same, matched: the tensor this many before (0: none)
  bool turned = false;                // matched: that tensor is read transposed
  MatchedPlan match;
  std::vector<uint8_t> tail;  // encoder: bytes that follow the arithmetic stream (raw, split)
};

// A tensor as rows x columns x positions: position = place in a convolution kernel or in a flattened map.
struct View {
  int64_t rows = 1, cols = 1, size = 1, width = 1;
  int64_t row_stride = 0, col_stride = 0, stride = 1;

  static View of(const std::vector<int64_t>& dims, int64_t period, bool split_rows) {
    View v;
    int64_t rest = 1;
    for (size_t i = 2; i < dims.size(); ++i) rest *= dims[i];
    if (dims.size() >= 3) {
      v = {dims[0], dims[1], rest, dims.back(), dims[1] * rest, rest, 1};
    } else if (dims.size() == 2 && !split_rows) {
      v = {dims[0], dims[1] / period, period, root(period), dims[1], period, 1};
    } else if (dims.size() == 2) {
      v = {dims[1], dims[0] / period, period, root(period), 1, period * dims[1], dims[1]};
    } else {
      const int64_t n = dims.empty() ? 1 : dims[0];
      v = {1, n / period, period, root(period), n, period, 1};
    }
    return v;
  }
  static int64_t root(int64_t n) {  // side of a square map, else n
    int64_t s = 1;
    while (s * s < n) ++s;
    return s * s == n ? s : n;
  }
};

template <class C>
class TensorCoder {
 public:
  // `data`: numel elements of the dtype; read when encoding, zeros to be filled when decoding.
  // Files of version 1 know neither `matched` nor `same`, those before version 3 no blocks.
  TensorCoder(C& c, DType dtype, const std::vector<int64_t>& dims, uint8_t* data, const Earlier& earlier, int version)
      : c_(c), t_(Pattern::of(dtype)), dtype_(dtype), dims_(dims), data_(data), earlier_(earlier), version_(version) {
    for (int64_t d : dims) n_ *= d;
  }

  void run(Plan& p) {
    if (n_ == 0) return;
    header(p);
    if (p.codec == Codec::kRaw) {
      if constexpr (kEnc) p.tail.assign(data_, data_ + n_ * (t_.width / 8));
      return;
    }
    if (p.codec == Codec::kSame) return same(p);
    if (p.codec == Codec::kMatched) return matched(p);
    values_header(p);
    switch (p.layout) {
      case Layout::kDense:
        if (p.codec == Codec::kSplit || p.fast) return;
        return p.mixed ? mixed_body<false>(p) : dense_body(p);
      case Layout::kSparse:
        return mixed_body<true>(p);
      case Layout::kGaps:
        return gaps_body(p);
      case Layout::kNm:
        return nm_body(p);
      case Layout::kBlocks:
        return inside_body(p);
    }
  }

 private:
  static constexpr uint32_t kEscape = 7;

 public:
  // ---- for the bodies in files of their own ----
  static constexpr bool kEnc = C::kEncoding;

  C& coder() { return c_; }
  const std::vector<int64_t>& dims() const { return dims_; }
  int64_t numel() const { return n_; }

  [[noreturn]] static void damaged(const char* what) { throw FormatError(std::string("damaged tensor: ") + what); }
  void watch(int64_t i) {
    if constexpr (!kEnc) {
      if ((i & 1023) == 0 && c_.exhausted()) throw FormatError("truncated: a tensor's stream ends early");
    }
  }

  uint64_t get(int64_t i) const {
    if constexpr (!kEnc) return 0;
    uint64_t x = 0;
    std::memcpy(&x, data_ + i * (t_.width / 8), static_cast<size_t>(t_.width / 8));
    return x;
  }
  // A number up to about `most`: all lengths equally likely, then all numbers of the length.
  uint64_t below(uint64_t value, uint64_t most) {
    const int length = uniform(std::bit_width(value), std::bit_width(most) + 1);
    if (length <= 1) return static_cast<uint64_t>(length);
    const uint64_t top = uint64_t{1} << (length - 1);
    return top | code_raw(c_, value & (top - 1), length - 1);
  }

 private:
  void set(int64_t i, uint64_t x) {
    if constexpr (!kEnc) std::memcpy(data_ + i * (t_.width / 8), &x, static_cast<size_t>(t_.width / 8));
  }

  // ---- header ------------------------------------------------------------------------------------------------------
  void header(Plan& p) {
    // The first bits are cheap for what small files hold: a mixed sparse or dense codebook.
    const int mixed_codebook = c_.bit(p.mixed && p.codec == Codec::kCodebook, 49152);
    if (mixed_codebook) {
      p.mixed = true;
      p.codec = Codec::kCodebook;
      p.layout = c_.bit(p.layout == Layout::kSparse, 32768) ? Layout::kSparse : Layout::kDense;
    } else {
      const bool far = p.layout == Layout::kBlocks;
      Layout near = static_cast<Layout>(c_.bits(far ? 0 : static_cast<uint32_t>(p.layout), 2));
      const uint32_t codec = c_.bits(far ? kEscape : static_cast<uint32_t>(p.codec), 3);
      if (codec > 5 && version_ == 1) damaged("unknown codec");
      if (codec == kEscape && !c_.bit(!far, 57344)) {
        further(p, near);
      } else {
        p.layout = near;
        p.codec = static_cast<Codec>(codec);
      }
      p.mixed = p.layout == Layout::kSparse;
    }
    if (p.codec == Codec::kRaw) {
      if (p.layout != Layout::kDense) damaged("raw values need the dense layout");
      return;
    }
    if (p.codec == Codec::kMatched || p.codec == Codec::kSame) {
      if (p.layout != Layout::kDense) damaged("matched values need the dense layout");
      return;
    }
    if (p.mixed && n_ > kMixedMax) damaged("a mixed model on a tensor this large");
    if (p.codec == Codec::kGrid && dtype_ != DType::kFloat) damaged("grid values need float32");
    if (p.codec == Codec::kFields && !t_.is_float()) damaged("field values need a floating type");
    if (p.codec == Codec::kSplit && (!t_.is_float() || p.mixed || p.layout == Layout::kNm))
      damaged("split values need a floating type, dense or with gaps");
    if (p.codec == Codec::kInts && t_.is_float()) damaged("integer values need an integer type");

    if (p.mixed) {
      p.columns_first = c_.bit(p.columns_first, 16384);
      if (dims_.size() <= 2 && c_.bit(p.period > 1, 16384)) {
        if (dims_.size() == 2) p.split_rows = c_.bit(p.split_rows, 16384);
        const int64_t side = 2 + c_.bits(static_cast<uint32_t>(View::root(p.period) - 2), 3);
        p.period = side * side;
        if (dims_.empty() || dims_[p.split_rows ? 0 : dims_.size() - 1] % p.period != 0)
          damaged("period does not divide the axis");
      } else {
        p.period = 1;
        p.split_rows = false;
      }
    }
    if (p.layout == Layout::kBlocks) {
      code_block_positions(*this, p);
    } else if (p.layout == Layout::kSparse || p.layout == Layout::kGaps) {
      p.nnz = static_cast<int64_t>(below(static_cast<uint64_t>(p.nnz), static_cast<uint64_t>(n_)));
      if (p.nnz > n_) damaged("more kept values than elements");
    } else if (p.layout == Layout::kNm) {
      p.group = static_cast<int64_t>(c_.bits(static_cast<uint32_t>(p.group - 1), 6)) + 1;
      p.kept = static_cast<int64_t>(c_.bits(static_cast<uint32_t>(p.kept - 1), 6)) + 1;
      if (dims_.size() < 2 || p.kept >= p.group || dims_[1] % p.group != 0) damaged("group does not divide axis 1");
      p.nnz = n_ / p.group * p.kept;
    } else {
      p.nnz = n_;
    }
  }

  // Behind the last code is room for 64 layouts and as many codecs; one layout is given out.
  void further(Plan& p, Layout near) {
    if (version_ < 3) damaged("unknown codec");
    if (near != Layout::kDense) damaged("a further layout beside another");
    const uint32_t layout = c_.bits(0, 6), codec = c_.bits(static_cast<uint32_t>(p.codec), 6);
    if (layout != 0) damaged("unknown layout");
    if (codec == 0 || codec > static_cast<uint32_t>(Codec::kSplit)) damaged("unknown codec of blocks");
    p.layout = Layout::kBlocks;
    p.codec = static_cast<Codec>(codec);
  }

  // ---- what was there before ---------------------------------------------------------------------------------------
  std::span<const uint8_t> earlier(uint64_t back) const {
    if (back > earlier_.size()) damaged("it refers to a tensor before the first");
    return earlier_[earlier_.size() - back];
  }

  // The bytes of an earlier tensor, whatever its type and shape.
  void same(Plan& p) {
    p.back = small_.code(c_, p.back - 1) + 1;
    const auto bytes = earlier(p.back);
    if (bytes.size() != static_cast<size_t>(n_) * static_cast<size_t>(t_.width / 8))
      damaged("it refers to a tensor of another size");
    if constexpr (!kEnc) std::memcpy(data_, bytes.data(), bytes.size());
  }

  void matched(Plan& p) {
    MatchedPlan& m = p.match;
    p.back = small_.code(c_, p.back);
    m.stride = static_cast<int64_t>(small_.code(c_, static_cast<uint64_t>(m.stride)));
    m.shift = trailing(m.shift, t_.is_float() ? t_.width - 1 - t_.exponent : 0);
    m.smooth = c_.bit(m.smooth, 16384);
    const auto before = p.back == 0 ? std::span<const uint8_t>() : earlier(p.back);
    const size_t size = static_cast<size_t>(t_.width / 8);
    const auto known = static_cast<int64_t>(before.size() / size);
    if (before.size() % size != 0) damaged("it refers to a tensor of another width");
    if (m.stride >= n_ || m.stride > kStrideMax) damaged("its rows are too long");
    if (n_ > kMatchedMax - known) damaged("matched values on a tensor this large");
    if (known == n_ && m.stride > 0 && n_ % m.stride == 0) p.turned = c_.bit(p.turned, 16384);
    else p.turned = false;
    std::vector<uint64_t> x(static_cast<size_t>(known + n_));
    const int64_t rows = p.turned ? n_ / m.stride : 0;
    for (int64_t i = 0; i < known; ++i) {
      const int64_t from = p.turned ? i % m.stride * rows + i / m.stride : i;
      std::memcpy(&x[static_cast<size_t>(i)], before.data() + static_cast<size_t>(from) * size, size);
    }
    for (int64_t i = 0; i < n_; ++i) x[static_cast<size_t>(known + i)] = get(i);
    MatchedCoder<C>(c_, t_, x, known, m).run();
    for (int64_t i = 0; i < n_; ++i) set(i, x[static_cast<size_t>(known + i)]);
  }

  void values_header(Plan& p) {
    if (p.nnz == 0) return;
    if (p.codec == Codec::kCodebook) {
      codebook_header(p);
      if (!p.mixed && p.layout != Layout::kNm) p.fast = c_.bit(p.fast, 32768);
      if (p.fast) split_header(p);
      return;
    }
    if (p.codec == Codec::kGrid) return scale(p);
    if (p.codec == Codec::kFields) p.shift = trailing(p.shift, t_.width - 1);
    if (p.codec == Codec::kSplit) split_header(p);
  }

  // ---- split values
  // --------------------------------------------------------------------------------------------------
  int mantissa() const { return t_.width - 1 - t_.exponent; }

  void split_header(Plan& p) {
    if (p.codec == Codec::kSplit) p.shift = trailing(p.shift, mantissa());
    if constexpr (kEnc) split_write(p);
    p.frequencies.resize(split_symbols(p));
    Uint model;
    uint64_t sum = 0;
    for (uint32_t& f : p.frequencies) {
      const uint64_t x = model.code(c_, f);
      if (x > kSplitTotal) damaged("a frequency is too large");
      f = static_cast<uint32_t>(x);
      sum += x;
    }
    if (sum != kSplitTotal) damaged("frequencies do not add up");
    p.split_bytes = Uint{}.code(c_, p.split_bytes);
  }

  size_t split_symbols(const Plan& p) const {
    return p.codec == Codec::kSplit ? size_t{2} << t_.exponent : p.entries.size();
  }
  int split_bits(const Plan& p) const { return p.codec == Codec::kSplit ? mantissa() - p.shift : 0; }

  static bool kept(const Plan& p, int64_t i, uint64_t x) {
    return x != 0 || (p.layout == Layout::kBlocks && p.inside[static_cast<size_t>(i)]);
  }

  void split_write(Plan& p) {
    std::vector<uint64_t> counts(split_symbols(p));
    const bool all = p.layout == Layout::kDense;
    const auto symbol = [&](int64_t i, uint64_t x) {
      return p.codec == Codec::kSplit ? static_cast<size_t>(x >> mantissa())
                                      : static_cast<size_t>(p.index[static_cast<size_t>(i)]);
    };
    for (int64_t i = 0; i < n_; ++i) {
      const uint64_t x = get(i);
      if (all || kept(p, i, x)) ++counts[symbol(i, x)];
    }
    p.frequencies = split_frequencies(counts);
    SplitWriter w(p.frequencies);
    uint64_t k = static_cast<uint64_t>(p.nnz);
    for (int64_t i = n_; i-- > 0;) {
      const uint64_t x = get(i);
      if (all || kept(p, i, x)) w.put(--k, symbol(i, x));
    }
    p.tail = w.finish();
    p.split_bytes = p.tail.size();
    const int bits = split_bits(p);
    if (bits == 0) return;
    uint64_t hold = 0;
    int held = 0;
    for (int64_t i = 0; i < n_; ++i) {
      const uint64_t x = get(i);
      if (!all && !kept(p, i, x)) continue;
      hold |= (x >> p.shift & ((uint64_t{1} << bits) - 1)) << held;
      for (held += bits; held >= 8; held -= 8, hold >>= 8) p.tail.push_back(static_cast<uint8_t>(hold));
    }
    if (held > 0) p.tail.push_back(static_cast<uint8_t>(hold));
  }

 public:
  // Decoding, after run(): what lies behind the arithmetic stream; returns how many bytes it took.
  size_t tail_read(const Plan& p, std::span<const uint8_t> bytes) {
    if (p.codec == Codec::kRaw) {
      const auto size = static_cast<size_t>(n_) * static_cast<size_t>(t_.width / 8);
      if (size > bytes.size()) throw FormatError("truncated: raw elements end early");
      std::memcpy(data_, bytes.data(), size);
      return size;
    }
    return (p.codec == Codec::kSplit || p.fast) && p.nnz > 0 ? split_read(p, bytes) : 0;
  }

 private:
  size_t split_read(const Plan& p, std::span<const uint8_t> bytes) {
    const int bits = split_bits(p);
    const bool codebook = p.codec == Codec::kCodebook;
    const auto nnz = static_cast<uint64_t>(p.nnz);
    const uint64_t packed = (nnz * static_cast<uint64_t>(bits) + 7) / 8;
    if (p.split_bytes > bytes.size() || packed > bytes.size() - p.split_bytes)
      throw FormatError("truncated: split values end early");
    SplitReader r(p.frequencies, bytes.first(p.split_bytes));
    const uint8_t* from = bytes.data() + p.split_bytes;
    const uint64_t mask = (uint64_t{1} << bits) - 1;
    const bool all = p.layout == Layout::kDense;
    uint64_t hold = 0, k = 0;
    int held = 0;
    for (int64_t i = 0; i < n_; ++i) {
      if (!all && data_[i * (t_.width / 8)] == 0) continue;  // run() left a 1 where a value belongs
      if (codebook) {
        set(i, p.entries[r.get(k++)]);
        continue;
      }
      for (; held < bits; held += 8) hold |= uint64_t{*from++} << held;
      const uint64_t x = uint64_t{r.get(k++)} << mantissa() | (hold & mask) << p.shift;
      hold >>= bits;
      held -= bits;
      set(i, x);
    }
    if (!r.clean()) damaged("split values do not end where they should");
    return p.split_bytes + packed;
  }

  // 0 .. count - 1, all equally likely (count <= 65536), as binary decisions.
  int uniform(int value, int count) {
    int lo = 0, hi = count;
    while (hi - lo > 1) {
      const int mid = (lo + hi) / 2;
      const auto p = static_cast<uint32_t>(((hi - mid) << 16) / (hi - lo));
      if (c_.bit(value >= mid, p)) lo = mid;
      else hi = mid;
    }
    return lo;
  }

  int trailing(int shift, int most) {
    shift = static_cast<int>(c_.bits(static_cast<uint32_t>(shift), 6));
    if (shift > most) damaged("more trailing zero bits than the type has");
    return shift;
  }

  void scale(Plan& p) {
    const int zeros = trailing(kEnc && p.scale ? std::countr_zero(p.scale) : 0, 31);
    p.scale = static_cast<uint32_t>(code_raw(c_, p.scale >> zeros, 31 - zeros) << zeros);
  }

  void codebook_header(Plan& p) {
    const uint64_t size = small_.code(c_, kEnc ? p.entries.size() - 1 : 0) + 1;
    if (size > static_cast<uint64_t>(kCodebookMax) || size > static_cast<uint64_t>(p.nnz))
      damaged("codebook too large");
    if (p.mixed && size > static_cast<uint64_t>(kMixedCodebookMax)) damaged("codebook too large to mix");
    p.entries.resize(size);
    if (dtype_ == DType::kFloat) p.on_grid = c_.bit(p.on_grid, 32768);
    if (p.on_grid) {
      scale(p);
      p.shift = 0;
    } else {
      p.shift = trailing(p.shift, t_.width - 1);
    }
    // Ascending order: negative entries from the largest magnitude, then the others from the smallest.
    uint64_t negatives = 0;
    if constexpr (kEnc) {
      for (uint64_t e : p.entries) negatives += is_negative(e, t_);
    }
    if (t_.is_signed)
      negatives = static_cast<uint64_t>(uniform(static_cast<int>(negatives), static_cast<int>(size) + 1));
    magnitudes(p, 0, negatives, true);
    magnitudes(p, negatives, size, false);
  }

  // Entries first .. last - 1 of one sign: the largest magnitude, then the steps down, Rice coded.
  void magnitudes(Plan& p, uint64_t first, uint64_t last, bool negative) {
    if (first == last) return;
    const int width = p.on_grid ? 17 : t_.width - p.shift - (t_.is_signed ? 1 : 0);
    const auto at = [&](uint64_t i) { return negative ? first + i : last - 1 - i; };  // i-th largest magnitude
    int rice = 0;
    if constexpr (kEnc) {
      uint64_t best = ~uint64_t{0};
      for (int k = 0; k < width; ++k) {
        uint64_t cost = 0;
        for (uint64_t i = 1; i < last - first; ++i) {
          const uint64_t step = magnitude(p, at(i - 1)) - magnitude(p, at(i)) - 1;
          cost +=
              std::min<uint64_t>((step >> k) + 1, kRiceMax) + static_cast<uint64_t>(step >> k >= kRiceMax ? width : k);
        }
        if (cost < best) best = cost, rice = k;
      }
    }
    uint64_t now = kEnc ? magnitude(p, at(0)) : 0;
    if (p.on_grid || !t_.is_float()) {
      now = below(now, width > 0 ? uint64_t{1} << (width - 1) : 0);
    } else {
      // The exponent counts from the one of numbers in 0.5 .. 1.
      const int mantissa = std::max(t_.width - 1 - t_.exponent - p.shift, 0), exponent = width - mantissa;
      const int64_t middle = ((int64_t{1} << (t_.exponent - 1)) - 2) >> (t_.exponent - exponent);
      const int64_t e = middle - unzigzag(small_.code(c_, zigzag(middle - static_cast<int64_t>(now >> mantissa))));
      if (e < 0 || e >> exponent != 0) damaged("codebook entry out of range");
      now = static_cast<uint64_t>(e) << mantissa | code_raw(c_, now & ((uint64_t{1} << mantissa) - 1), mantissa);
    }
    if (last - first > 1) rice = uniform(rice, width);
    for (uint64_t i = 0; i < last - first; ++i) {
      if (i > 0) {
        uint64_t step = kEnc ? now - magnitude(p, at(i)) - 1 : 0;
        uint64_t high = 0;
        while (high < kRiceMax && c_.bit(high < step >> rice, 32768)) ++high;
        step = high == kRiceMax ? code_raw(c_, step, width)
                                : high << rice | code_raw(c_, step & ((uint64_t{1} << rice) - 1), rice);
        if (step >= now) damaged("codebook entry out of range");
        now -= step + 1;
      }
      p.entries[at(i)] = from_magnitude(p, now, negative);
    }
  }
  static constexpr uint64_t kRiceMax = 24;

  // Whole numbers: -1 - v for negative v, so that magnitudes fit; floats: the pattern without sign; grids: |q|.
  uint64_t magnitude(const Plan& p, uint64_t i) const {
    const uint64_t e = p.entries[i];
    if (p.on_grid) return static_cast<uint64_t>(std::llabs(grid_index(e, p.scale)));
    const uint64_t body = t_.is_signed ? t_.mask() >> 1 : t_.mask();
    const uint64_t x = t_.is_float() || !is_negative(e, t_) ? e : ~e;
    return (x & body) >> p.shift;
  }
  uint64_t from_magnitude(const Plan& p, uint64_t m, bool negative) const {
    if (p.on_grid) return scaled(negative ? -static_cast<int64_t>(m) : static_cast<int64_t>(m), p.scale);
    const uint64_t x = m << p.shift;
    if (!negative) return x;
    return t_.is_float() ? x | (t_.mask() ^ t_.mask() >> 1) : ~(x | ((uint64_t{1} << p.shift) - 1)) & t_.mask();
  }

 public:
  static int64_t grid_index(uint64_t pattern, uint32_t scale) {
    const double v = std::bit_cast<float>(static_cast<uint32_t>(pattern));
    return std::llround(v / std::bit_cast<float>(scale));
  }

 private:
  static constexpr uint32_t kSymbolStart = 6;  // a codebook's histogram is near flat: do not jump at the first values

  // ---- values ------------------------------------------------------------------------------------------------------
  // The symbols of a codebook as a binary tree: the root parts negative entries from the others, every other node
  // halves. A node is known by its split point 1 .. size - 1.
  struct Symbols {
    static constexpr int kContexts = 5;
    int size = 0, negatives = 0;
    std::vector<Bit> base;
    std::array<std::vector<Odds>, kContexts> odds;
    std::vector<Mixer<kContexts>> mixers;

    int split(int lo, int hi) const {
      return lo == 0 && hi == size && negatives > 0 && negatives < size ? negatives : (lo + hi) / 2;
    }
    // 0 none, 1..4: negative or not, inner or outer half of its side. `symbol` counts from 1, 0 = none.
    int classify(int symbol) const {
      if (symbol == 0) return 0;
      const int s = symbol - 1;
      if (s < negatives) return s < negatives / 2 ? 1 : 2;
      return s < negatives + (size - negatives) / 2 ? 3 : 4;
    }
  };

  Symbols make_symbols(const Plan& p) const {
    Symbols s;
    s.size = static_cast<int>(p.entries.size());
    for (uint64_t e : p.entries) s.negatives += is_negative(e, t_);
    s.base.resize(static_cast<size_t>(s.size));
    for (Bit& b : s.base) b.n = kSymbolStart;
    return s;
  }

  int plain_symbol(Symbols& s, int symbol) {
    int lo = 0, hi = s.size;
    while (hi - lo > 1) {
      const int mid = s.split(lo, hi);
      if (s.base[mid].code(c_, symbol >= mid)) lo = mid;
      else hi = mid;
    }
    return lo;
  }

  int mixed_symbol(Symbols& s, int symbol, const std::array<int, Symbols::kContexts>& context) {
    int lo = 0, hi = s.size;
    std::array<int, Symbols::kContexts> votes;
    std::array<uint32_t, Symbols::kContexts> expected;
    while (hi - lo > 1) {
      const int mid = s.split(lo, hi);
      std::array<Odds*, Symbols::kContexts> o;
      for (int j = 0; j < Symbols::kContexts; ++j) {
        o[j] = &s.odds[j][static_cast<size_t>(context[j]) * s.size + mid];
        votes[j] = o[j]->vote(kValuePseudo);
      }
      const int bit =
          s.mixers[mid].code(c_, symbol >= mid, stretch(s.base[mid].probability()), votes, kValueRate, expected);
      s.base[mid].update(bit);
      for (int j = 0; j < Symbols::kContexts; ++j) {
        o[j]->ones.seen += int64_t{bit} << 16;
        o[j]->ones.expected += expected[j];
        o[j]->zeros.seen += int64_t{1 - bit} << 16;
        o[j]->zeros.expected += 65536 - expected[j];
      }
      if (bit) lo = mid;
      else hi = mid;
    }
    return lo;
  }

  // Sign, exponent, three leading mantissa bits by exponent; the rest as they are.
  struct Fields {
    Bit sign;
    std::vector<Bit> exponent;
    std::vector<std::array<Bit, 8>> lead;
  };
  Fields make_fields() const {
    Fields f;
    f.exponent.resize(size_t{1} << t_.exponent);
    f.lead.resize(size_t{1} << t_.exponent);
    return f;
  }
  uint64_t field_value(Fields& f, uint64_t pattern, int shift) {
    const int mantissa = t_.width - 1 - t_.exponent;
    uint64_t x = static_cast<uint64_t>(f.sign.code(c_, static_cast<int>(pattern >> (t_.width - 1) & 1)));
    size_t node = 1;
    for (int i = t_.width - 2; i >= mantissa; --i) {
      const int bit = i < shift ? 0 : f.exponent[node].code(c_, static_cast<int>(pattern >> i & 1));
      node = 2 * node + static_cast<size_t>(bit);
      x = 2 * x + static_cast<uint64_t>(bit);
    }
    auto& lead = f.lead[node - (size_t{1} << t_.exponent)];
    size_t at = 1;
    int left = mantissa;
    while (left > shift && at < 8) {
      --left;
      const int bit = lead[at].code(c_, static_cast<int>(pattern >> left & 1));
      at = 2 * at + static_cast<size_t>(bit);
      x = 2 * x + static_cast<uint64_t>(bit);
    }
    const int direct = std::max(left - shift, 0);
    x = x << direct | code_raw(c_, pattern >> shift & ((uint64_t{1} << direct) - 1), direct);
    return x << std::min(shift, left);
  }

  // Whole numbers: zero?, sign, magnitude. 64-bit magnitudes above 2^62 - 2 are not representable (the raw codec holds
  // them).
  struct Ints {
    Bit zero, sign;
    Uint magnitude;
  };
  int64_t int_value(Ints& m, int64_t v, bool may_be_zero) {
    if (may_be_zero && m.zero.code(c_, v == 0)) return 0;
    const int negative = m.sign.code(c_, v < 0);
    const auto size = static_cast<int64_t>(m.magnitude.code(c_, static_cast<uint64_t>(v < 0 ? -(v + 1) : v - 1)));
    return negative ? -size - 1 : size + 1;
  }
  int64_t to_int(uint64_t x) const {
    const int pad = 64 - t_.width;
    return t_.is_signed ? static_cast<int64_t>(x << pad) >> pad : static_cast<int64_t>(x);
  }

  // One value by any codec without contexts.
  struct Plain {
    Codec codec;
    Symbols symbols;
    Fields fields;
    Ints ints;
  };
  Plain make_plain(const Plan& p) const {
    Plain v{p.codec, {}, {}, {}};
    if (p.codec == Codec::kCodebook) v.symbols = make_symbols(p);
    if (p.codec == Codec::kFields) v.fields = make_fields();
    return v;
  }
  static bool zeros_too(const Plan& p) { return p.layout == Layout::kDense || p.layout == Layout::kBlocks; }
  void plain_value(Plain& v, const Plan& p, int64_t i) {
    if (p.fast) return set(i, 1);  // a mark; split_read() fills it in
    switch (v.codec) {
      case Codec::kCodebook: {
        const int s = plain_symbol(v.symbols, kEnc ? p.index[static_cast<size_t>(i)] : 0);
        set(i, p.entries[static_cast<size_t>(s)]);
        return;
      }
      case Codec::kGrid: {
        const int64_t q = int_value(v.ints, kEnc ? grid_index(get(i), p.scale) : 0, zeros_too(p));
        if (q > kGridMax || q < -kGridMax) damaged("grid value out of range");
        set(i, scaled(q, p.scale));
        return;
      }
      case Codec::kFields:
        return set(i, field_value(v.fields, get(i), p.shift));
      case Codec::kInts:
        return set(i, static_cast<uint64_t>(int_value(v.ints, to_int(get(i)), zeros_too(p))) & t_.mask());
      case Codec::kSplit:
        return set(i, 1);  // a mark; split_read() fills it in
      case Codec::kRaw:
      case Codec::kMatched:
      case Codec::kSame:
        return;  // whole tensors, never value by value
    }
  }

  // ---- bodies ------------------------------------------------------------------------------------------------------
  void dense_body(Plan& p) {
    Plain v = make_plain(p);
    for (int64_t i = 0; i < n_; ++i) {
      plain_value(v, p, i);
      watch(i);
    }
  }

  void inside_body(Plan& p) {
    Plain v = make_plain(p);
    for (int64_t i = 0; i < n_; ++i) {
      if (p.inside[static_cast<size_t>(i)]) plain_value(v, p, i);
      watch(i);
    }
  }

  void gaps_body(Plan& p) {
    Plain v = make_plain(p);
    auto model = std::make_unique<Uint>();
    int64_t at = 0;
    for (int64_t k = 0; k < p.nnz; ++k) {
      int64_t gap = 0;
      if constexpr (kEnc) {
        while (get(at + gap) == 0) ++gap;
      }
      const int64_t room = n_ - at - (p.nnz - k);  // the largest gap possible
      if (room > 0) gap = static_cast<int64_t>(model->code(c_, static_cast<uint64_t>(gap)));
      if (gap > room) damaged("a gap leaves the tensor");
      at += gap;
      plain_value(v, p, at++);
      watch(k);
    }
  }

  void nm_body(Plan& p) {
    Plain v = make_plain(p);
    const View view = View::of(dims_, 1, false);
    std::vector<Bit> where(static_cast<size_t>(p.group * p.kept));
    for (int64_t r = 0; r < view.rows; ++r) {
      for (int64_t q = 0; q < view.size; ++q) {
        int64_t seen = 0;
        for (int64_t col = 0; col < view.cols; ++col) {
          const int64_t place = col % p.group;
          if (place == 0) seen = 0;
          const int64_t i = r * view.row_stride + col * view.col_stride + q;
          if (seen == p.kept) continue;
          const bool forced = p.group - place == p.kept - seen;
          const int here = forced ? 1 : where[static_cast<size_t>(place * p.kept + seen)].code(c_, get(i) != 0);
          if (!here) continue;
          ++seen;
          plain_value(v, p, i);
        }
        watch(0);
      }
    }
  }

  static constexpr int kPlaceContexts = 8;
  static constexpr int64_t kPlacePseudo[kPlaceContexts] = {131072, 98304, 98304, 655360, 65536, 655360, 196608, 65536};
  static constexpr int64_t kValuePseudo = 1 << 16;
  static constexpr int kRecentShift = 3;
  static constexpr int kPlaceRate = 5, kValueRate = 4;
  static constexpr int64_t kPlaceWeight = 21845, kValueWeight = 3277;

  template <bool kSparse>
  void mixed_body(Plan& p) {
    const View v = View::of(dims_, p.period, p.split_rows);
    const bool codebook = p.codec == Codec::kCodebook;
    Plain plain = make_plain(p);
    if (p.nnz == 0) return;
    Symbols& symbols = plain.symbols;
    const int64_t own_rows = codebook ? std::min(v.rows, kRowContexts / symbols.size) : 1;
    if (codebook) {
      const int64_t classes[Symbols::kContexts] = {5, 5, 5, 5, own_rows};
      for (int j = 0; j < Symbols::kContexts; ++j)
        symbols.odds[j].resize(static_cast<size_t>(classes[j] * symbols.size));
      symbols.mixers.assign(static_cast<size_t>(symbols.size), Mixer<Symbols::kContexts>(kValueWeight));
    }
    std::vector<int32_t> symbol(static_cast<size_t>(n_));  // 1 + entry, 0 = empty
    std::vector<Rate> row(v.rows), place(v.cols * v.size), col(v.cols), position(v.size), around(16), before(4);
    Rate recent;
    std::vector<int32_t> last_in_place(v.cols * v.size);  // symbol of the nearest earlier survivor in this place
    Mixer<kPlaceContexts> mixer(kPlaceWeight);
    int64_t left = p.nnz, todo = n_;
    int32_t previous = 0;

    const int64_t outer = p.columns_first ? v.cols : v.rows, inner = p.columns_first ? v.rows : v.cols;
    for (int64_t a = 0; a < outer; ++a) {
      for (int64_t b = 0; b < inner; ++b) {
        const int64_t r = p.columns_first ? b : a, k = p.columns_first ? a : b;
        Rate kernel;
        for (int64_t q = 0; q < v.size; ++q, --todo) {
          const int64_t i = r * v.row_stride + k * v.col_stride + q * v.stride;
          const int64_t x = q % v.width, y = q / v.width;
          const auto at = [&](int64_t back) { return symbol[static_cast<size_t>(i - back * v.stride)]; };
          int32_t west = 0, north = 0, northwest = 0, northeast = 0;
          if (v.size > 1) {
            if (x > 0) west = at(1);
            if (y > 0) north = at(v.width);
            if (x > 0 && y > 0) northwest = at(v.width + 1);
            if (y > 0 && x + 1 < v.width) northeast = at(v.width - 1);
          } else {
            if (k > 0) west = symbol[static_cast<size_t>(i - v.col_stride)];
            if (k > 1) northwest = symbol[static_cast<size_t>(i - 2 * v.col_stride)];
          }
          int32_t above = 0, above2 = 0;
          if (r > 0) above = symbol[static_cast<size_t>(i - v.row_stride)];
          if (r > 1) above2 = symbol[static_cast<size_t>(i - 2 * v.row_stride)];
          if (v.size == 1) north = above;
          int here = 1;
          if constexpr (kSparse) {
            if (left == 0) {
              here = 0;
            } else if (left < todo) {
              Rate* rates[kPlaceContexts] = {&row[r],
                                             &place[k * v.size + q],
                                             &col[k],
                                             &position[q],
                                             &around[(west != 0) | (northwest != 0) << 1 |
                                                     (v.size > 1 && north != 0) << 2 | (northeast != 0) << 3],
                                             &before[(above != 0) | (above2 != 0) << 1],
                                             &kernel,
                                             &recent};
              std::array<int, kPlaceContexts> votes;
              std::array<uint32_t, kPlaceContexts> expected;
              for (int j = 0; j < kPlaceContexts; ++j) votes[j] = rates[j]->vote(kPlacePseudo[j]);
              const auto base = static_cast<uint32_t>(std::clamp<int64_t>((left << 16) / todo, 1, 65535));
              here = mixer.code(c_, get(i) != 0, stretch(base), votes, kPlaceRate, expected);
              for (int j = 0; j < kPlaceContexts; ++j) {
                rates[j]->seen += int64_t{here} << 16;
                rates[j]->expected += expected[j];
              }
            }
          }
          if (!here) continue;
          --left;
          int32_t now = 1;
          if (codebook) {
            const std::array<int, Symbols::kContexts> context = {
                symbols.classify(previous), symbols.classify(west), symbols.classify(north),
                symbols.classify(last_in_place[k * v.size + q]), static_cast<int>(r % own_rows)};
            const int s = mixed_symbol(symbols, kEnc ? p.index[static_cast<size_t>(i)] : 0, context);
            set(i, p.entries[static_cast<size_t>(s)]);
            now = s + 1;
          } else {
            plain_value(plain, p, i);
          }
          symbol[static_cast<size_t>(i)] = now;
          last_in_place[k * v.size + q] = now;
          previous = now;
        }
        if ((b & 63) == 0) watch(0);
      }
      recent.seen -= recent.seen >> kRecentShift;
      recent.expected -= recent.expected >> kRecentShift;
    }
  }

  C& c_;
  Pattern t_;
  DType dtype_;
  const std::vector<int64_t>& dims_;
  uint8_t* data_;
  const Earlier& earlier_;
  const int version_;
  int64_t n_ = 1;
  Uint small_;
};

}  // namespace secateur::sct
