// The container: header, graph stream (or skeleton), tensor streams, checksums; both directions.
#include <algorithm>
#include <memory>
#include <string>

#include "base/error.h"
#include "formats/checksum.h"
#include "formats/graph_coder.h"
#include "formats/pack.h"
#include "formats/prime.h"
#include "formats/skeleton.h"
#include "formats/tensor.h"
#include "formats/unpack.h"
#include "graph/check.h"
#include "graph/onnx_read.h"
#include "graph/onnx_write.h"

namespace secateur {

void restore_kernel_shapes(Graph& g);  // canonical.cc

namespace {

using Bytes = std::vector<uint8_t>;
using Span = std::span<const uint8_t>;

constexpr uint8_t kMagic[3] = {'S', 'C', 'T'};
constexpr int kMajor = 1, kMinor = 0;
constexpr size_t kHeader = 5;
constexpr uint8_t kSectioned = 1;              // flag: every part has a length and a checksum of its own
constexpr uint8_t kExact = 2;                  // flag: the first part is a skeleton, not a graph
constexpr size_t kSmallFile = 65536;           // up to here one CRC-32 guards the whole file
constexpr uint64_t kFreeExpansion = 64 << 20;  // a file may always decode to this many bytes...
constexpr uint64_t kExpansion = 16384;         // ...and to this many times its own size

bool plausible(uint64_t decoded, uint64_t file) { return decoded <= kFreeExpansion + kExpansion * file; }

struct Source {  // a tensor to be written
  DType dtype;
  std::vector<int64_t> dims;
  Span data;
};

// ---- writing ---------------------------------------------------------------------------------------------------------

void put_u32(Bytes& out, uint32_t x) {
  for (int i = 0; i < 4; ++i) out.push_back(static_cast<uint8_t>(x >> (8 * i)));
}
void put_varint(Bytes& out, uint64_t x) {
  for (; x >= 128; x >>= 7) out.push_back(static_cast<uint8_t>(x | 128));
  out.push_back(static_cast<uint8_t>(x));
}

Bytes assemble(const Bytes& first, const std::vector<Source>& tensors, uint8_t flags) {
  std::vector<Bytes> coded;
  uint64_t decoded = 0, size = kHeader + first.size() + 4;
  for (const Source& t : tensors) {
    coded.push_back(sct::encode_tensor(t.dtype, t.dims, t.data).bytes);
    decoded += t.data.size();
    size += coded.back().size();
  }
  // A reader refuses a file that grows beyond belief; such tensors (gigabytes of one value) stay raw.
  for (size_t k = 0; k < tensors.size() && !plausible(decoded, size); ++k) {
    if (tensors[k].data.size() <= kFreeExpansion / 64) continue;
    size -= coded[k].size();
    coded[k] = sct::encode_tensor_raw(tensors[k].dtype, tensors[k].dims, tensors[k].data).bytes;
    size += coded[k].size();
  }

  const bool sectioned = size > kSmallFile;
  Bytes out(kMagic, kMagic + 3);
  out.push_back(kMajor << 4 | kMinor);
  out.push_back(flags | (sectioned ? kSectioned : 0));
  size_t guarded = 0;  // first byte the next checksum covers
  const auto part = [&](const Bytes& bytes) {
    if (sectioned) put_varint(out, bytes.size());
    out.insert(out.end(), bytes.begin(), bytes.end());
    if (!sectioned) return;
    put_u32(out, sct::crc32(Span(out).subspan(guarded)));
    guarded = out.size();
  };
  part(first);
  for (const Bytes& c : coded) part(c);
  if (!sectioned) put_u32(out, sct::crc32(out));
  return out;
}

// ---- reading ---------------------------------------------------------------------------------------------------------

[[noreturn]] void fail(const std::string& what, size_t at) { throw FormatError(what, static_cast<int64_t>(at)); }

// Hands out the parts of a file after checking what guards them.
class Parts {
 public:
  explicit Parts(Span bytes) : bytes_(bytes) {
    if (!is_sct(bytes)) fail("not a .sct file: it does not start with 'SCT'", 0);
    if (bytes.size() < kHeader + 4) fail("truncated .sct file: the header is incomplete", bytes.size());
    const int major = bytes[3] >> 4;
    minor_ = bytes[3] & 15;
    if (major > kMajor) {
      fail(".sct version " + std::to_string(major) + "." + std::to_string(minor_) + " is newer than this reader (" + std::to_string(kMajor) +
               "." + std::to_string(kMinor) + "); update secateur",
           3);
    }
    if (major < 1) fail("damaged .sct file: version 0 does not exist", 3);
    if (bytes[4] & ~(kSectioned | kExact)) fail("damaged .sct file: unknown flags", 4);
    sectioned_ = bytes[4] & kSectioned;
    exact_ = bytes[4] & kExact;
    end_ = bytes.size() - (sectioned_ ? 0 : 4);
    if (!sectioned_ && u32(end_) != sct::crc32(bytes.first(end_))) fail("damaged .sct file: the checksum does not match", end_);
  }

  bool exact() const { return exact_; }
  size_t at() const { return at_; }

  // Calls read(bytes that may be used) -> bytes used, for the next part; errors without a place get this part's.
  template <class F>
  void next(F&& read) {
    const Span span = open();
    size_t used = 0;
    try {
      used = read(span);
    } catch (const FormatError& e) {
      if (e.offset >= 0) throw;
      throw FormatError(e.what(), static_cast<int64_t>(at_));
    }
    if (used > span.size() || (sectioned_ && used != span.size())) {
      fail("damaged .sct file: a stream and its section differ in length", at_ + std::min(used, span.size()));
    }
    at_ += used;
    if (sectioned_) guarded_ = at_ += 4;
  }

  // What follows the known parts was added by a newer minor version: skipped, its checksums held all the same.
  void finish() {
    if (minor_ == kMinor && at_ != end_) fail("damaged .sct file: bytes after the last tensor", at_);
    while (sectioned_ && at_ < end_) next([](Span s) { return s.size(); });
  }

 private:
  uint32_t u32(size_t at) const {
    return bytes_[at] | uint32_t{bytes_[at + 1]} << 8 | uint32_t{bytes_[at + 2]} << 16 | uint32_t{bytes_[at + 3]} << 24;
  }
  Span open() {
    if (!sectioned_) return bytes_.subspan(at_, end_ - at_);
    const size_t start = at_;
    uint64_t length = 0;
    for (int shift = 0;; shift += 7) {
      if (at_ >= end_ || shift > 49) fail("truncated .sct file: a section's length is cut off", at_);
      const uint8_t b = bytes_[at_++];
      length |= uint64_t{b & 127u} << shift;
      if (b >= 128) continue;
      if (b == 0 && shift > 0) fail("damaged .sct file: a length is not in its shortest form", at_ - 1);
      break;
    }
    if (end_ - at_ < 4 || length > end_ - at_ - 4) {
      fail("truncated .sct file: a section of " + std::to_string(length) + " bytes runs past the end", start);
    }
    if (u32(at_ + length) != sct::crc32(bytes_.subspan(guarded_, at_ + length - guarded_))) {
      fail("damaged .sct file: a section's checksum does not match", at_ + length);
    }
    return bytes_.subspan(at_, length);
  }

  Span bytes_;
  int minor_ = 0;
  bool sectioned_ = false, exact_ = false;
  size_t at_ = kHeader, guarded_ = 0, end_ = 0;
};

void add_section(std::vector<SectionInfo>* sections, const char* kind, size_t nbytes) {
  if (!sections) return;
  SectionInfo s;
  s.name = s.kind = kind;
  s.report.nbytes = nbytes;
  sections->push_back(std::move(s));
}

// Adds what a tensor decodes to and refuses what nobody could mean.
void account(uint64_t& decoded, const Tensor& t, uint64_t limit, size_t file, size_t at) {
  decoded += static_cast<uint64_t>(checked_numel(t.dims, dtype_size(t.dtype), "tensor '" + t.name + "'")) * dtype_size(t.dtype);
  if (decoded > limit) {
    fail("this .sct file decodes to " + std::to_string(decoded) + " bytes or more, the limit is " + std::to_string(limit) +
             "; raise the limit if you trust the file",
         at);
  }
  if (!plausible(decoded, file)) {
    fail("damaged .sct file: " + std::to_string(file) + " bytes cannot stand for " + std::to_string(decoded), at);
  }
}

void read_tensor(Parts& parts, Tensor& t, std::vector<SectionInfo>* sections) {
  SectionInfo info;
  parts.next([&](Span span) { return sct::decode_tensor(t.dtype, t.dims, span, t.data, &info.report); });
  if (!sections) return;
  info.name = t.name;
  info.kind = "tensor";
  info.dtype = dtype_name(t.dtype);
  info.shape = t.dims;
  sct::bound_of(t.dtype, t.dims, t.data, info.report);
  sections->push_back(std::move(info));
}

Graph read_graph(Parts& parts, size_t file, uint64_t limit, std::vector<SectionInfo>* sections) {
  Graph g;
  std::vector<Tensor*> tensors;
  parts.next([&](Span span) {
    sct::GraphModels models = sct::primed_models();
    sct::Decoder decoder(span);
    sct::GraphCoder<sct::Decoder>(decoder, models).run(g, tensors);
    const size_t used = decoder.consumed();
    if (used > span.size()) throw FormatError("truncated: the graph's stream ends early");
    uint64_t decoded = 0;
    for (const Tensor* t : tensors) account(decoded, *t, limit, file, parts.at());
    add_section(sections, "graph", used);
    return used;
  });
  for (Tensor* t : tensors) read_tensor(parts, *t, sections);
  parts.finish();
  restore_kernel_shapes(g);
  g.name = "main_graph";
  try {
    check_graph(g);
  } catch (const FormatError& e) {
    fail(std::string("damaged .sct file: ") + e.what(), kHeader);
  }
  return g;
}

std::string read_exact(Parts& parts, size_t file, uint64_t limit, std::vector<SectionInfo>* sections) {
  Bytes skeleton;
  uint64_t full_size = 0;
  std::vector<sct::Cut> cuts;
  parts.next([&](Span span) {
    sct::GraphModels models = sct::primed_models();
    sct::Decoder decoder(span);
    sct::code_skeleton(decoder, models, skeleton, full_size);
    const size_t used = decoder.consumed();
    if (used > span.size()) throw FormatError("truncated: the skeleton's stream ends early");
    if (full_size > limit || !plausible(full_size, file)) throw FormatError("damaged skeleton: the file would be too large");
    cuts = sct::find_cuts_in_skeleton(skeleton, full_size);
    add_section(sections, "graph", used);
    return used;
  });
  std::string onnx;
  onnx.reserve(full_size);
  size_t from = 0;
  for (sct::Cut& cut : cuts) {
    const size_t keep = cut.at - onnx.size();
    onnx.append(reinterpret_cast<const char*>(skeleton.data()) + from, keep);
    from += keep;
    read_tensor(parts, cut.tensor, sections);
    onnx.append(reinterpret_cast<const char*>(cut.tensor.data.data()), cut.tensor.data.size());
  }
  onnx.append(reinterpret_cast<const char*>(skeleton.data()) + from, skeleton.size() - from);
  parts.finish();
  return onnx;
}

Span as_span(const std::string& s) { return {reinterpret_cast<const uint8_t*>(s.data()), s.size()}; }

}  // namespace

std::vector<uint8_t> pack(const Graph& graph) {
  Graph g = canonical(graph);
  sct::GraphModels models = sct::primed_models();
  sct::Encoder encoder;
  std::vector<Tensor*> tensors;
  sct::GraphCoder<sct::Encoder>(encoder, models).run(g, tensors);
  std::vector<Source> sources;
  for (const Tensor* t : tensors) sources.push_back({t->dtype, t->dims, t->data});
  return assemble(encoder.finish(), sources, 0);
}

std::vector<uint8_t> pack_exact(std::span<const uint8_t> onnx) {
  read_onnx(onnx);  // refuses what the engine could not read back
  Bytes skeleton;
  std::vector<Source> sources;
  size_t from = 0;
  for (const sct::Cut& cut : sct::find_cuts(onnx)) {
    const size_t size = static_cast<size_t>(cut.tensor.numel()) * dtype_size(cut.tensor.dtype);
    skeleton.insert(skeleton.end(), onnx.begin() + static_cast<ptrdiff_t>(from), onnx.begin() + static_cast<ptrdiff_t>(cut.at));
    sources.push_back({cut.tensor.dtype, cut.tensor.dims, onnx.subspan(cut.at, size)});
    from = cut.at + size;
  }
  skeleton.insert(skeleton.end(), onnx.begin() + static_cast<ptrdiff_t>(from), onnx.end());
  sct::GraphModels models = sct::primed_models();
  sct::Encoder encoder;
  uint64_t full_size = onnx.size();
  sct::code_skeleton(encoder, models, skeleton, full_size);
  return assemble(encoder.finish(), sources, kExact);
}

bool is_sct(Span bytes) { return bytes.size() >= 3 && std::equal(kMagic, kMagic + 3, bytes.begin()); }

Graph unpack(Span bytes, uint64_t limit, std::vector<SectionInfo>* sections) {
  Parts parts(bytes);
  add_section(sections, "header", kHeader);
  Graph g;
  if (parts.exact()) {
    const std::string onnx = read_exact(parts, bytes.size(), limit, sections);
    g = read_onnx(as_span(onnx));
  } else {
    g = read_graph(parts, bytes.size(), limit, sections);
  }
  if (sections) {
    size_t known = 0;
    for (const SectionInfo& s : *sections) known += s.report.nbytes;
    add_section(sections, "checksum", bytes.size() - known);
  }
  return g;
}

std::string unpack_onnx(Span bytes, uint64_t limit) {
  Parts parts(bytes);
  if (!parts.exact()) return write_onnx(read_graph(parts, bytes.size(), limit, nullptr));
  return read_exact(parts, bytes.size(), limit, nullptr);
}

}  // namespace secateur
