#include "formats/tensor.h"

#include <algorithm>
#include <cmath>

#include "formats/search.h"
#include "formats/tensor_coder.h"

namespace secateur::sct {
namespace {

template <class... Row>
constexpr bool versions_known(const std::variant<Row...>*) {
  return ((Row::kVersion <= kNewest) && ...);
}
template <class... Row>
constexpr bool three_bits_do(const std::variant<Row...>*) {
  return ((Row::kNumber <= kFurther) && ...);
}
static_assert(versions_known(static_cast<const Layout*>(nullptr)), "a layout of a later version: raise kNewest");
static_assert(three_bits_do(static_cast<const Codec*>(nullptr)), "beside near layouts a codec needs an escape now");

int64_t count_elements(const std::vector<int64_t>& dims) {
  int64_t n = 1;
  for (int64_t d : dims) n *= d;
  return n;
}

void describe(TensorReport& r, const Plan& p, int64_t n, size_t nbytes) {
  r.layout = name_of(p.layout);
  r.codec = name_of(p.codec);
  r.version = std::max(2, version_of(p.layout));
  r.n = n;
  r.nbytes = nbytes;
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
                          const Past& past, const Sketch& own) {
  const int64_t n = count_elements(dims);
  if (n == 0) {
    CodedTensor nothing;
    nothing.report.layout = "dense";
    nothing.report.codec = "raw";
    return nothing;
  }
  const Values v = study(dtype, n, data);
  TensorReport ideal;
  bound(ideal, v);
  CodedTensor out = shortest(dtype, dims, data, past, own, v, ideal.bound_bits);
  bound(out.report, v);
  return out;
}

CodedTensor encode_as(Plan p, DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data,
                      const Earlier& earlier) {
  CodedTensor out;
  Encoder e;
  TensorStream<Encoder> s(e, dtype, dims, const_cast<uint8_t*>(data.data()), earlier, kNewest);  // encoding only reads
  code_tensor(s, p);
  out.bytes = e.finish();
  out.bytes.insert(out.bytes.end(), s.tail.begin(), s.tail.end());
  describe(out.report, p, s.numel(), out.bytes.size());
  return out;
}

CodedTensor encode_tensor_raw(DType dtype, const std::vector<int64_t>& dims, std::span<const uint8_t> data) {
  return encode_as({layouts::Dense{}, codecs::Raw{}}, dtype, dims, data, {});
}

CodedTensor encode_same(DType dtype, const std::vector<int64_t>& dims, const Earlier& earlier, size_t back) {
  return encode_as({layouts::Dense{}, codecs::Same{back}}, dtype, dims, {}, earlier);
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
  TensorStream<Decoder> s(d, dtype, dims, data.data(), earlier, version);
  const Kept kept = code_tensor(s, p);
  size_t used = n == 0 ? 0 : d.consumed();
  if (used > bytes.size()) throw FormatError("truncated: a tensor's stream ends early");
  if (n > 0) used += read_tail(s, p, kept, bytes.subspan(used));
  if (report) describe(*report, p, n, used);
  return used;
}

}  // namespace secateur::sct
