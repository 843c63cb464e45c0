#include "formats/skeleton.h"

#include "base/error.h"
#include "graph/check.h"

namespace secateur::sct {
namespace {

// The messages of onnx.proto3 that may hold tensors.
enum class Kind { kModel, kGraph, kNode, kAttribute, kTensor, kSparse, kFunction, kOther };

struct Child {
  Kind in;
  uint64_t field;
  Kind kind;
};
constexpr Child kChildren[] = {{Kind::kModel, 7, Kind::kGraph},       {Kind::kGraph, 5, Kind::kTensor},
                               {Kind::kModel, 25, Kind::kFunction},   {Kind::kGraph, 1, Kind::kNode},
                               {Kind::kGraph, 15, Kind::kSparse},     {Kind::kNode, 5, Kind::kAttribute},
                               {Kind::kAttribute, 5, Kind::kTensor},  {Kind::kAttribute, 6, Kind::kGraph},
                               {Kind::kAttribute, 10, Kind::kTensor}, {Kind::kAttribute, 11, Kind::kGraph},
                               {Kind::kAttribute, 22, Kind::kSparse}, {Kind::kAttribute, 23, Kind::kSparse},
                               {Kind::kSparse, 1, Kind::kTensor},     {Kind::kSparse, 2, Kind::kTensor},
                               {Kind::kFunction, 7, Kind::kNode},     {Kind::kFunction, 11, Kind::kAttribute}};
constexpr size_t kChildrenOfVersion1 = 2;

constexpr int kMaxDepth = 64;      // messages inside messages; deeper ones are not looked into
constexpr uint64_t kCutFrom = 12;  // bytes: what is shorter costs no more in the skeleton
constexpr size_t kMaxRankHere = 16;

Kind child(Kind in, uint64_t field, int major) {
  const size_t n = major == 1 ? kChildrenOfVersion1 : std::size(kChildren);
  for (size_t i = 0; i < n; ++i)
    if (kChildren[i].in == in && kChildren[i].field == field) return kChildren[i].kind;
  return Kind::kOther;
}

// Reads protobuf fields from bytes in which some payloads may be missing: positions are kept in the whole file,
// `skipped_` says how many bytes before here are not in the buffer.
class Walker {
 public:
  Walker(std::span<const uint8_t> bytes, size_t full_size, bool payloads_missing, int major)
      : bytes_(bytes), full_(full_size), missing_(payloads_missing), major_(major) {}

  std::vector<Cut> run() {
    message(Kind::kModel, full_, 0);
    if (at_ - skipped_ != bytes_.size()) fail("the skeleton and its file differ in length");
    if (!graph_) fail("no graph in it; is it an ONNX model?");
    return std::move(cuts_);
  }

 private:
  struct Tag {
    uint64_t field;
    int wire;
  };
  [[noreturn]] void fail(const char* what) const {
    throw FormatError(std::string("damaged ONNX file: ") + what, missing_ ? -1 : static_cast<int64_t>(at_));
  }

  size_t left() const { return bytes_.size() - (at_ - skipped_); }
  uint64_t varint(size_t end) {
    uint64_t x = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (at_ >= end || left() == 0) fail("a number is cut off");
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
  void pass(size_t stop) {
    if (stop - at_ > left()) fail("a field runs past the end");
    at_ = stop;
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
    if (n > end - at_) fail("a field runs past the end");
    pass(at_ + n);
  }

  void message(Kind kind, size_t end, int depth) {
    if (kind == Kind::kTensor) return tensor(end);
    while (at_ < end) {
      const auto [field, wire] = tag(end);
      const Kind inner = wire == 2 ? child(kind, field, major_) : Kind::kOther;
      graph_ |= kind == Kind::kModel && inner == Kind::kGraph;
      if (inner == Kind::kOther || depth >= kMaxDepth) {
        skip(wire, end);
      } else {
        message(inner, length(end), depth + 1);
      }
    }
  }

  void tensor(size_t end) {
    Tensor t;
    uint64_t type = 0;
    bool typed = false, done = false;
    while (at_ < end) {
      const auto [field, wire] = tag(end);
      if (field == 1 && wire == 0) {
        t.dims.push_back(static_cast<int64_t>(varint(end)));
      } else if (field == 1 && wire == 2) {
        const size_t stop = length(end);
        while (at_ < stop) t.dims.push_back(static_cast<int64_t>(varint(stop)));
      } else if (field == 2 && wire == 0) {
        type = varint(end);
        typed = true;
      } else if (field == 8 && wire == 2) {
        const size_t stop = length(end);
        const size_t from = at_ - skipped_;
        pass(stop);
        t.name.assign(reinterpret_cast<const char*>(bytes_.data()) + from, at_ - skipped_ - from);
      } else if (field == 14 && wire == 0) {
        if (varint(end) == 1 && !missing_) refuse_external(t);
      } else if (wire == 2 && typed && !done && holds_data(field, type)) {
        done = payload(t, type, field, length(end));
      } else {
        skip(wire, end);
      }
      if (t.dims.size() > 1024) fail("a tensor has too many axes");
    }
    if (done) cuts_.back().tensor.name = t.name;  // float_data stands before the name
  }

  // raw_data; float_data and double_data are, where they are packed, the same bytes.
  bool holds_data(uint64_t field, uint64_t type) const {
    if (field == 9) return true;
    return major_ > 1 && ((field == 4 && type == 1) || (field == 10 && type == 11));
  }

  // Cuts what may be cut; says whether.
  bool payload(const Tensor& t, uint64_t type, uint64_t field, size_t stop) {
    const size_t size = stop - at_;
    Cut cut{at_, t};
    cut.tensor.dtype = type < 32 ? static_cast<DType>(type) : DType::kUndefined;
    const bool known = size > 0 && whole(cut.tensor, size);
    if (major_ == 1 ? !known : size < kCutFrom) {
      pass(stop);
      return false;
    }
    if (!known) {  // sub-byte and other types, shapes told later: bytes, or numbers, in a row
      const size_t width = field == 4 ? 4 : field == 10 ? 8 : 1;
      if (size % width != 0) fail("packed numbers of a broken length");
      cut.tensor.dtype = field == 4 ? DType::kFloat : field == 10 ? DType::kDouble : DType::kUInt8;
      cut.tensor.dims = {static_cast<int64_t>(size / width)};
    }
    cuts_.push_back(std::move(cut));
    if (missing_) {
      at_ = stop;
      skipped_ += size;
    } else {
      pass(stop);
    }
    return true;
  }

  static bool whole(const Tensor& t, size_t length) {
    uint64_t n = dtype_size(t.dtype);
    if (n == 0 || t.dims.size() > kMaxRankHere) return false;
    for (int64_t d : t.dims) {
      if (d <= 0 || n > length / static_cast<uint64_t>(d)) return false;
      n *= static_cast<uint64_t>(d);
    }
    return n == length;
  }

  [[noreturn]] static void refuse_external(const Tensor& t) {
    throw UnsupportedError("tensor '" + t.name +
                           "': its data lies in another file (external data), which .sct does not follow; save the "
                           "model as one file first");
  }

  std::span<const uint8_t> bytes_;
  size_t full_;
  bool missing_;
  int major_;
  bool graph_ = false;
  size_t at_ = 0, skipped_ = 0;
  std::vector<Cut> cuts_;
};

}  // namespace

std::vector<Cut> find_cuts(std::span<const uint8_t> onnx) { return Walker(onnx, onnx.size(), false, 2).run(); }

std::vector<Cut> find_cuts_in_skeleton(std::span<const uint8_t> skeleton, size_t full_size, int major) {
  return Walker(skeleton, full_size, true, major).run();
}

void decode_skeleton_1(Decoder& d, std::vector<uint8_t>& bytes, uint64_t size, FieldModel& fields) {
  Recent r;
  for (uint64_t i = 0; i < size; ++i) {
    if ((i & 255) == 0 && d.exhausted()) throw FormatError("truncated: the skeleton's stream ends early");
    if (i >= kModelled) {
      bytes.push_back(static_cast<uint8_t>(d.bits(0, 8)));
      continue;
    }
    const uint64_t* last = r.last;
    const std::array<uint64_t, kMaxContexts> names = {hash(100, 0),
                                                      hash(101, last[0]),
                                                      hash(102, last[0], last[1]),
                                                      hash(103, last[0], last[1], last[2]),
                                                      hash(104, last[0], last[1], last[2], last[3]),
                                                      hash(105, last[0], last[1], last[2], last[3], last[4]),
                                                      hash(106, r.word),
                                                      hash(107, last[1], last[2])};
    bytes.push_back(code_byte(d, fields, 0, names, 3, [](auto&, uint64_t, int) {}));
    r.push(bytes.back());
  }
}

}  // namespace secateur::sct
