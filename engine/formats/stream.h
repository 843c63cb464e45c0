// What layouts and codecs write with: a tensor's stream in one direction. With an Encoder the elements are read, with a
// Decoder they are filled in; every function that gets a number and returns one codes it, and when decoding what came
// in does not matter (docs/format.md, sections 3 and 4).
#pragma once

#include <bit>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/tensor.h"
#include "formats/values.h"

namespace secateur::sct {

template <class C>
class TensorStream {
 public:
  static constexpr bool kEnc = C::kEncoding;

  // `data`: numel elements of the dtype; read when encoding, zeros to be filled when decoding. `version`: the file's.
  TensorStream(C& c, DType dtype, const std::vector<int64_t>& dims, uint8_t* data, const Earlier& earlier, int version)
      : dtype(dtype),
        type(Pattern::of(dtype)),
        dims(dims),
        version(version),
        c_(c),
        bytes_(type.width / 8),
        data_(data),
        earlier_(earlier) {
    for (int64_t d : dims) n_ *= d;
  }

  const DType dtype;
  const Pattern type;
  const std::vector<int64_t>& dims;
  const int version;
  std::vector<uint8_t> tail;  // encoder: bytes that follow the arithmetic stream

  C& coder() { return c_; }
  int64_t numel() const { return n_; }
  size_t nbytes() const { return static_cast<size_t>(n_ * bytes_); }
  std::span<uint8_t> data() { return {data_, nbytes()}; }

  [[noreturn]] static void damaged(const std::string& what) { throw FormatError("damaged tensor: " + what); }
  // Ends a decoder that ran past its bytes; `i` counts elements, so that most calls cost nothing.
  void watch(int64_t i) {
    if constexpr (!kEnc) {
      if ((i & 1023) == 0 && c_.exhausted()) throw FormatError("truncated: a tensor's stream ends early");
    }
  }

  // ---- elements, as patterns ----
  uint64_t get(int64_t i) const {
    if constexpr (!kEnc) return 0;
    uint64_t x = 0;
    std::memcpy(&x, data_ + i * bytes_, static_cast<size_t>(bytes_));
    return x;
  }
  void set(int64_t i, uint64_t x) {
    if constexpr (!kEnc) std::memcpy(data_ + i * bytes_, &x, static_cast<size_t>(bytes_));
  }
  // Decoder: a value that lies behind the stream belongs here.
  void mark(int64_t i) { set(i, 1); }
  bool marked(int64_t i) const { return data_[i * bytes_] != 0; }

  // The bytes of the tensor `back` before this one.
  std::span<const uint8_t> earlier(uint64_t back) const {
    if (back > earlier_.size()) damaged("it refers to a tensor before the first");
    return earlier_[earlier_.size() - back];
  }

  // ---- numbers of a header ----
  uint64_t small(uint64_t value) { return small_.code(c_, value); }
  // A number up to about `most`: all lengths equally likely, then all numbers of the length.
  uint64_t below(uint64_t value, uint64_t most) {
    const int length = uniform(std::bit_width(value), std::bit_width(most) + 1);
    if (length <= 1) return static_cast<uint64_t>(length);
    const uint64_t top = uint64_t{1} << (length - 1);
    return top | code_raw(c_, value & (top - 1), length - 1);
  }
  // Kept elements, of all.
  int64_t count(int64_t nnz) {
    nnz = static_cast<int64_t>(below(static_cast<uint64_t>(nnz), static_cast<uint64_t>(n_)));
    if (nnz > n_) damaged("more kept values than elements");
    return nnz;
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
  // 1 .. 64, all equally likely.
  int64_t upto64(int64_t value) { return static_cast<int64_t>(c_.bits(static_cast<uint32_t>(value - 1), 6)) + 1; }
  // Zero bits at the end of every pattern.
  int trailing(int shift, int most) {
    shift = static_cast<int>(c_.bits(static_cast<uint32_t>(shift), 6));
    if (shift > most) damaged("more trailing zero bits than the type has");
    return shift;
  }
  // The pattern of a positive float32.
  uint32_t scale(uint32_t value) {
    const int zeros = trailing(kEnc && value ? std::countr_zero(value) : 0, 31);
    return static_cast<uint32_t>(code_raw(c_, value >> zeros, 31 - zeros) << zeros);
  }

 private:
  C& c_;
  const int64_t bytes_;
  uint8_t* data_;
  const Earlier& earlier_;
  int64_t n_ = 1;
  Uint small_;
};

// Which elements a layout keeps; what the codec of their values needs to know of it.
struct Kept {
  int64_t nnz = 0;
  bool zeros = false;             // zeros may be among them
  bool mixed = false;             // each is predicted from its neighbours
  bool behind = false;            // their values may lie behind the arithmetic stream
  std::vector<uint8_t> inside{};  // where zeros may be among them, but not all are kept: 1 for each element that is

  bool all() const { return zeros && inside.empty(); }
  // Encoder: is element i, whose pattern is x, kept?
  bool has(int64_t i, uint64_t x) const {
    return x != 0 || (zeros && (inside.empty() || inside[static_cast<size_t>(i)]));
  }
};

}  // namespace secateur::sct
