#include "formats/skeleton.h"

#include <limits>

#include "base/error.h"
#include "graph/check.h"

namespace secateur::sct {
namespace {

// Reads protobuf fields from bytes in which some payloads may be missing: positions are kept in the whole file, `skipped_`
// says how many bytes before here are not in the buffer.
class Walker {
 public:
  Walker(std::span<const uint8_t> bytes, size_t full_size, bool payloads_missing)
      : bytes_(bytes), full_(full_size), missing_(payloads_missing) {}

  std::vector<Cut> run() {
    while (at_ < full_) {
      const auto [field, wire] = tag(full_);
      if (field == 7 && wire == 2) {
        graph(length(full_));
      } else {
        skip(wire, full_);
      }
    }
    if (at_ - skipped_ != bytes_.size()) fail("the skeleton and its file differ in length");
    return std::move(cuts_);
  }

 private:
  struct Tag {
    uint64_t field;
    int wire;
  };
  [[noreturn]] void fail(const char* what) const { throw FormatError(std::string("damaged ONNX file: ") + what); }

  uint64_t varint(size_t end) {
    uint64_t x = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (at_ >= end || at_ - skipped_ >= bytes_.size()) fail("a number is cut off");
      const uint8_t b = bytes_[at_ - skipped_];
      ++at_;
      if (shift < 64) x |= uint64_t{b & 127u} << shift;
      if (b < 128) return x;
    }
    fail("a number is too long");
  }
  Tag tag(size_t end) {
    const uint64_t x = varint(end);
    return {x >> 3, static_cast<int>(x & 7)};
  }
  size_t length(size_t end) {  // returns where the payload ends
    const uint64_t n = varint(end);
    if (n > end - at_) fail("a length runs past the end");
    return at_ + n;
  }
  void skip(int wire, size_t end) {
    size_t n = 0;
    if (wire == 0) {
      varint(end);
    } else if (wire == 1) {
      n = 8;
    } else if (wire == 2) {
      n = length(end) - at_;
    } else if (wire == 5) {
      n = 4;
    } else {
      fail("an unknown wire type");
    }
    if (n > end - at_ || n > bytes_.size() - (at_ - skipped_)) fail("a field runs past the end");
    at_ += n;
  }
  void graph(size_t end) {
    while (at_ < end) {
      const auto [field, wire] = tag(end);
      if (field == 5 && wire == 2) {
        tensor(length(end));
      } else {
        skip(wire, end);
      }
    }
  }
  void tensor(size_t end) {
    Tensor t;
    bool typed = false, done = false;
    while (at_ < end) {
      const auto [field, wire] = tag(end);
      if (field == 1 && wire == 0) {
        t.dims.push_back(static_cast<int64_t>(varint(end)));
      } else if (field == 1 && wire == 2) {
        const size_t stop = length(end);
        while (at_ < stop) t.dims.push_back(static_cast<int64_t>(varint(stop)));
      } else if (field == 2 && wire == 0) {
        t.dtype = static_cast<DType>(varint(end));
        typed = true;
      } else if (field == 8 && wire == 2) {
        const size_t stop = length(end);
        if (stop - at_ > bytes_.size() - (at_ - skipped_)) fail("a field runs past the end");
        t.name.assign(reinterpret_cast<const char*>(bytes_.data()) + (at_ - skipped_), stop - at_);
        at_ = stop;
      } else if (field == 9 && wire == 2 && typed && !done) {
        const size_t stop = length(end);
        const size_t size = dtype_size(t.dtype);
        const bool cut = size > 0 && stop > at_ && t.dims.size() <= 16 && whole(t, size, stop - at_);
        if (cut) {
          done = true;
          cuts_.push_back({at_, t});
          if (missing_) skipped_ += stop - at_;
        }
        if (!(cut && missing_) && stop - at_ > bytes_.size() - (at_ - skipped_)) fail("a field runs past the end");
        at_ = stop;
      } else {
        skip(wire, end);
      }
      if (t.dims.size() > 1024) fail("a tensor has too many axes");
    }
  }
  static bool whole(const Tensor& t, size_t size, size_t length) {
    uint64_t n = size;
    for (int64_t d : t.dims) {
      if (d <= 0 || n > length / static_cast<uint64_t>(d)) return false;
      n *= static_cast<uint64_t>(d);
    }
    return n == length;
  }

  std::span<const uint8_t> bytes_;
  size_t full_;
  bool missing_;
  size_t at_ = 0, skipped_ = 0;
  std::vector<Cut> cuts_;
};

}  // namespace

std::vector<Cut> find_cuts(std::span<const uint8_t> onnx) { return Walker(onnx, onnx.size(), false).run(); }

std::vector<Cut> find_cuts_in_skeleton(std::span<const uint8_t> skeleton, size_t full_size) {
  return Walker(skeleton, full_size, true).run();
}

}  // namespace secateur::sct
