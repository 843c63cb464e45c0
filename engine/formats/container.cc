// The container: header, graph stream (or skeleton), tensor streams, checksums; both directions.
#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/error.h"
#include "formats/checksum.h"
#include "formats/graph_coder.h"
#include "formats/levels.h"
#include "formats/pack.h"
#include "formats/parts.h"
#include "formats/prime.h"
#include "formats/skeleton.h"
#include "formats/study.h"
#include "formats/tensor.h"
#include "formats/unpack.h"
#include "graph/check.h"
#include "graph/onnx_read.h"
#include "graph/onnx_write.h"

namespace secateur {

void restore_kernel_shapes(Graph& g);  // canonical.cc

namespace {

using namespace sct;

struct Source {  // a tensor to be written
  DType dtype;
  std::vector<int64_t> dims;
  Span data;
};

// ---- writing
// ---------------------------------------------------------------------------------------------------------

void put_u32(Bytes& out, uint32_t x) {
  for (int i = 0; i < 4; ++i) out.push_back(static_cast<uint8_t>(x >> (8 * i)));
}
void put_varint(Bytes& out, uint64_t x) {
  for (; x >= 128; x >>= 7) out.push_back(static_cast<uint8_t>(x | 128));
  out.push_back(static_cast<uint8_t>(x));
}

bool is_one_value(const Source& t) {
  const size_t size = dtype_size(t.dtype);
  return t.data.size() > size &&
         std::equal(t.data.begin() + static_cast<ptrdiff_t>(size), t.data.end(), t.data.begin());
}

// Codes the tensors one after the other; one that has the bytes of an earlier one points back at it.
std::vector<Bytes> code_tensors(const std::vector<Source>& tensors, int* version) {
  constexpr size_t kCheap = 64;  // bytes: here the values themselves may be shorter than a reference
  std::vector<Bytes> coded;
  sct::Past past;
  std::unordered_map<std::string_view, size_t> first;
  for (const Source& t : tensors) {
    const std::string_view bytes(reinterpret_cast<const char*>(t.data.data()), t.data.size());
    const auto [known, is_new] = first.try_emplace(bytes, coded.size());
    Bytes best;
    sct::Sketch sketch;
    if (!is_new && !bytes.empty())
      best = sct::encode_same(t.dtype, t.dims, past.tensors, coded.size() - known->second).bytes;
    if (best.empty() || bytes.size() <= kCheap || is_one_value(t)) {
      sketch = sct::sketch_of(t.dtype, t.data);
      sct::CodedTensor own = sct::encode_tensor(t.dtype, t.dims, t.data, past, sketch);
      if (best.empty() || own.bytes.size() <= best.size()) {
        best = std::move(own.bytes);
        *version = std::max(*version, own.report.version);
      }
    }
    known->second = coded.size();
    coded.push_back(std::move(best));
    past.tensors.push_back(t.data);
    past.sketches.push_back(std::move(sketch));
  }
  return coded;
}

// Args: `tighter` has the streams of each further level.
Bytes assemble(const Bytes& first, const std::vector<Source>& tensors, uint8_t flags,
               const std::vector<std::vector<Bytes>>& tighter = {}) {
  int version = 2;
  std::vector<Bytes> coded = code_tensors(tensors, &version);
  uint64_t decoded = 0, size = kHeader + first.size() + 4;
  for (const auto& level : tighter)
    for (const Bytes& c : level) size += c.size();
  if (!tighter.empty()) flags |= kLevels, version = kLevelsVersion, ++size;
  for (size_t k = 0; k < tensors.size(); ++k) {
    decoded += tensors[k].data.size();
    size += coded[k].size();
  }
  // A reader refuses a file that grows beyond belief; such tensors (gigabytes of one value) stay raw.
  for (size_t k = 0; k < tensors.size() && !plausible(decoded, size); ++k) {
    if (tensors[k].data.size() <= kFreeExpansion / 64) continue;
    size -= coded[k].size();
    coded[k] = sct::encode_tensor_raw(tensors[k].dtype, tensors[k].dims, tensors[k].data).bytes;
    size += coded[k].size();
  }

  Bytes out(kMagic, kMagic + 3);
  out.push_back(static_cast<uint8_t>(version << 4 | kMinor));
  out.push_back(flags);
  if (!tighter.empty()) out.push_back(static_cast<uint8_t>(tighter.size() + 1));
  for (const auto& level : tighter) coded.insert(coded.end(), level.begin(), level.end());
  if (size <= kSmallFile) {
    out.insert(out.end(), first.begin(), first.end());
    for (const Bytes& c : coded) out.insert(out.end(), c.begin(), c.end());
    put_u32(out, sct::crc32(out));
    return out;
  }
  out[kHeader - 1] |= kSectioned;
  size_t guarded = 0;  // first byte the next checksum covers
  Bytes section = first;
  const auto close = [&] {
    put_varint(out, section.size());
    out.insert(out.end(), section.begin(), section.end());
    put_u32(out, sct::crc32(Span(out).subspan(guarded)));
    guarded = out.size();
    section.clear();
  };
  for (const Bytes& c : coded) {
    if (section.size() >= kSection) close();
    section.insert(section.end(), c.begin(), c.end());
  }
  if (!section.empty()) close();
  return out;
}

// ---- reading
// ---------------------------------------------------------------------------------------------------------

Span as_span(const std::string& s) { return {reinterpret_cast<const uint8_t*>(s.data()), s.size()}; }

void add_section(std::vector<SectionInfo>* sections, const char* kind, size_t nbytes) {
  if (!sections) return;
  SectionInfo s;
  s.name = s.kind = kind;
  s.report.nbytes = nbytes;
  sections->push_back(std::move(s));
}

// Adds what a tensor decodes to and refuses what nobody could mean.
void account(uint64_t& decoded, const Tensor& t, uint64_t limit, size_t file, size_t at) {
  decoded += static_cast<uint64_t>(checked_numel(t.dims, dtype_size(t.dtype), "tensor '" + t.name + "'")) *
             dtype_size(t.dtype);
  if (decoded > limit) {
    fail("this .sct file decodes to " + std::to_string(decoded) + " bytes or more, the limit is " +
             std::to_string(limit) + "; raise the limit if you trust the file",
         at);
  }
  if (!plausible(decoded, file)) {
    fail("damaged .sct file: " + std::to_string(file) + " bytes cannot stand for " + std::to_string(decoded), at);
  }
}

// The next tensor's stream; a tensor without elements has none. `earlier` grows by it.
void read_tensor(Parts& parts, Tensor& t, sct::Earlier& earlier, std::vector<SectionInfo>* sections) {
  SectionInfo info;
  const bool first_version = parts.major() == 1;
  const auto read = [&](Span span) {
    return sct::decode_tensor(t.dtype, t.dims, span, t.data, earlier, parts.major(), &info.report);
  };
  if (first_version || t.numel() > 0) parts.next(read);
  else read({});
  earlier.push_back(t.data);
  if (!sections) return;
  info.name = t.name;
  info.kind = "tensor";
  info.dtype = dtype_name(t.dtype);
  info.shape = t.dims;
  sct::bound_of(t.dtype, t.dims, t.data, info.report);
  sections->push_back(std::move(info));
}

// From the level before to the next, in place: the level's stream, then the tensors that it does not tell.
void read_level(Parts& parts, const std::vector<Tensor*>& tensors, int level, uint64_t& decoded, size_t file,
                uint64_t limit, std::vector<SectionInfo>* sections) {
  const std::string name = "level " + std::to_string(level);
  std::vector<Tensor*> others;
  parts.next([&](Span span) {
    sct::Decoder decoder(span);
    sct::LevelStream<sct::Decoder> stream(decoder);
    for (Tensor* t : tensors)
      if (t->numel() > 0 && stream.code(*t, {}) == sct::Change::kOther) others.push_back(t);
    const size_t used = decoder.consumed();
    if (used > span.size()) throw FormatError("truncated: a level's stream ends early");
    for (const Tensor* t : others) account(decoded, *t, limit, file, parts.at());
    add_section(sections, name.c_str(), used);
    return used;
  });
  sct::Earlier earlier;
  for (Tensor* t : others) {
    read_tensor(parts, *t, earlier, sections);
    if (sections) sections->back().name = name + ": " + t->name, sections->back().kind = name;
  }
}

// Args: `level`: what the tensors are to be; all levels are read, and the last stays, where `sections` are asked for.
Graph read_graph(Parts& parts, size_t file, uint64_t limit, std::vector<SectionInfo>* sections, int level = 0) {
  Graph g;
  uint64_t decoded = 0;
  parts.check_level(level);
  std::vector<Tensor*> tensors;
  parts.next([&](Span span) {
    sct::GraphModels models = sct::primed_models();
    sct::Decoder decoder(span);
    sct::code_graph(decoder, models, g, tensors);
    const size_t used = decoder.consumed();
    if (used > span.size()) throw FormatError("truncated: the graph's stream ends early");
    for (const Tensor* t : tensors) account(decoded, *t, limit, file, parts.at());
    add_section(sections, "graph", used);
    return used;
  });
  sct::Earlier earlier;
  for (Tensor* t : tensors) read_tensor(parts, *t, earlier, sections);
  const int last = sections ? parts.levels() - 1 : level;
  for (int k = 1; k <= last; ++k) read_level(parts, tensors, k, decoded, file, limit, sections);
  parts.finish(last + 1 < parts.levels());
  restore_kernel_shapes(g);
  g.name = "main_graph";
  try {
    check_graph(g);
  } catch (const FormatError& e) {
    fail(std::string("damaged .sct file: ") + e.what(), parts.header());
  }
  return g;
}

// Where the first stream of an exact file and, of a long skeleton, the second, lead.
struct Skeleton {
  Bytes bytes;
  uint64_t full_size = 0;
  Tensor rest;  // of a long skeleton of version 2: what lies behind the modelled bytes
};

Skeleton read_skeleton(Parts& parts, sct::Earlier& earlier, size_t file, uint64_t limit,
                       std::vector<SectionInfo>* sections) {
  Skeleton s;
  parts.next([&](Span span) {
    sct::Decoder decoder(span);
    uint64_t size = 0;
    sct::code_sizes(decoder, s.full_size, size);
    if (s.full_size > limit || !plausible(s.full_size, file))
      throw FormatError("damaged skeleton: the file would be too large");
    if (parts.major() == 1) {
      sct::GraphModels models = sct::primed_models();
      sct::decode_skeleton_1(decoder, s.bytes, size, models.fields);
    } else {
      sct::code_skeleton(decoder, s.bytes, std::min(size, sct::kModelled));
      s.rest.dims = {static_cast<int64_t>(size - std::min(size, sct::kModelled))};
    }
    const size_t used = decoder.consumed();
    if (used > span.size()) throw FormatError("truncated: the skeleton's stream ends early");
    add_section(sections, "graph", used);
    return used;
  });
  if (s.rest.dims.empty() || s.rest.numel() == 0) return s;
  s.rest.dtype = DType::kUInt8;
  read_tensor(parts, s.rest, earlier, sections);
  if (sections) sections->back().name = sections->back().kind = "graph";
  s.bytes.insert(s.bytes.end(), s.rest.data.begin(), s.rest.data.end());
  return s;
}

std::string read_exact(Parts& parts, size_t file, uint64_t limit, std::vector<SectionInfo>* sections) {
  sct::Earlier earlier;
  const Skeleton s = read_skeleton(parts, earlier, file, limit, sections);
  std::vector<sct::Cut> cuts = sct::find_cuts_in_skeleton(s.bytes, s.full_size, parts.major());
  std::string onnx;
  onnx.reserve(s.full_size);  // never moves: later tensors may look at earlier ones
  size_t from = 0;
  const auto keep = [&](size_t size) {
    onnx.append(reinterpret_cast<const char*>(s.bytes.data()) + from, size);
    from += size;
  };
  for (sct::Cut& cut : cuts) {
    keep(cut.at - onnx.size());
    Tensor& t = cut.tensor;
    read_tensor(parts, t, earlier, sections);
    onnx.append(reinterpret_cast<const char*>(t.data.data()), t.data.size());
    earlier.back() = as_span(onnx).last(t.data.size());
    t.data = {};
  }
  keep(s.bytes.size() - from);
  parts.finish();
  return onnx;
}

}  // namespace

namespace {

// The graph's stream; `tensors` lists what follows it, inside `g`.
Bytes code_first(Graph& g, std::vector<Tensor*>& tensors) {
  sct::GraphModels models = sct::primed_models();
  sct::Encoder encoder;
  sct::code_graph(encoder, models, g, tensors);
  return encoder.finish();
}

std::vector<Source> sources_of(const std::vector<Tensor*>& tensors) {
  std::vector<Source> sources;
  for (const Tensor* t : tensors) sources.push_back({t->dtype, t->dims, t->data});
  return sources;
}

// The streams of a level, told from the one before, which becomes it.
std::vector<Bytes> code_level(const std::vector<Tensor*>& before, const std::vector<Tensor*>& now) {
  sct::Encoder encoder;
  sct::LevelStream<sct::Encoder> stream(encoder);
  std::vector<Tensor*> others;
  for (size_t i = 0; i < now.size(); ++i)
    if (now[i]->numel() > 0 && stream.code(*before[i], now[i]->data) == sct::Change::kOther) others.push_back(now[i]);
  std::vector<Bytes> streams = {encoder.finish()};
  int version = 2;
  for (Bytes& c : code_tensors(sources_of(others), &version)) streams.push_back(std::move(c));
  for (size_t i = 0; i < now.size(); ++i) before[i]->data = now[i]->data;
  return streams;
}

}  // namespace

std::vector<uint8_t> pack(const Graph& graph) {
  Graph g = canonical(graph);
  std::vector<Tensor*> tensors;
  const Bytes first = code_first(g, tensors);
  return assemble(first, sources_of(tensors), 0);
}

std::vector<uint8_t> pack_levels(const std::vector<Graph>& graphs) {
  if (graphs.size() < 2 || graphs.size() > sct::kMostLevels)
    throw UsageError("pack: " + std::to_string(graphs.size()) + " levels; 2 to " + std::to_string(sct::kMostLevels) +
                     " are possible");
  Graph loosest = canonical(graphs[0]);
  std::vector<Tensor*> tensors;
  const Bytes first = code_first(loosest, tensors);
  Graph last = loosest;
  std::vector<Tensor*> before, now;
  code_first(last, before);
  std::vector<std::vector<Bytes>> tighter;
  for (size_t k = 1; k < graphs.size(); ++k) {
    Graph g = canonical(graphs[k]);
    now.clear();
    if (code_first(g, now) != first)
      throw UsageError("pack: level " + std::to_string(k) +
                       " is another graph than the one before; levels differ in the values of tensors only");
    tighter.push_back(code_level(before, now));
  }
  return assemble(first, sources_of(tensors), 0, tighter);
}

std::vector<uint8_t> pack_exact(std::span<const uint8_t> onnx) {
  Bytes skeleton;
  std::vector<Source> sources;
  size_t from = 0;
  const auto keep = [&](size_t to) {
    skeleton.insert(skeleton.end(), onnx.begin() + static_cast<ptrdiff_t>(from),
                    onnx.begin() + static_cast<ptrdiff_t>(to));
  };
  for (const sct::Cut& cut : sct::find_cuts(onnx)) {
    const size_t size = static_cast<size_t>(cut.tensor.numel()) * dtype_size(cut.tensor.dtype);
    keep(cut.at);
    sources.push_back({cut.tensor.dtype, cut.tensor.dims, onnx.subspan(cut.at, size)});
    from = cut.at + size;
  }
  keep(onnx.size());
  sct::Encoder encoder;
  uint64_t full_size = onnx.size(), size = skeleton.size();
  sct::code_sizes(encoder, full_size, size);
  sct::code_skeleton(encoder, skeleton, std::min(size, sct::kModelled));
  if (size > sct::kModelled) {
    const Span rest = Span(skeleton).subspan(sct::kModelled);
    sources.insert(sources.begin(), {DType::kUInt8, {static_cast<int64_t>(rest.size())}, rest});
  }
  return assemble(encoder.finish(), sources, kExact);
}

std::vector<uint8_t> pack(std::span<const uint8_t> onnx) {
  try {
    return pack(read_onnx(onnx));
  } catch (const UnsupportedError&) {
    return pack_exact(onnx);
  }
}

bool is_sct(Span bytes) { return bytes.size() >= 3 && std::equal(kMagic, kMagic + 3, bytes.begin()); }

int levels(Span bytes) {
  const bool told = is_sct(bytes) && bytes.size() > kHeader && bytes[3] >> 4 >= kLevelsVersion;
  return told && bytes[kHeader - 1] & kLevels ? bytes[kHeader] : 1;
}

Graph unpack(Span bytes, uint64_t limit, int level) {
  Parts parts(bytes);
  parts.check_level(level);
  if (!parts.exact()) return read_graph(parts, bytes.size(), limit, nullptr, level);
  const std::string onnx = read_exact(parts, bytes.size(), limit, nullptr);
  return read_onnx(as_span(onnx));
}

std::vector<SectionInfo> sections(Span bytes, uint64_t limit) {
  std::vector<SectionInfo> all;
  Parts parts(bytes);
  add_section(&all, "header", parts.header());
  if (parts.exact()) read_exact(parts, bytes.size(), limit, &all);
  else read_graph(parts, bytes.size(), limit, &all);
  size_t known = 0;
  for (const SectionInfo& s : all) known += s.report.nbytes;
  add_section(&all, "checksum", bytes.size() - known);
  return all;
}

std::string unpack_onnx(Span bytes, uint64_t limit, int level) {
  Parts parts(bytes);
  parts.check_level(level);
  if (!parts.exact()) return write_onnx(read_graph(parts, bytes.size(), limit, nullptr, level));
  return read_exact(parts, bytes.size(), limit, nullptr);
}

}  // namespace secateur
