// Mutates .sct files and streams for a few seconds: whatever the bytes, reading ends in a Graph or a FormatError.
// Under -DSECATEUR_SANITIZE=address,undefined it also proves that nothing is read or written out of bounds.
//   formats_sct_fuzz_test [seconds] [seed]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "base/error.h"
#include "formats/checksum.h"
#include "formats/pack.h"
#include "formats/unpack.h"
#include "graph/onnx_read.h"
#include "graph/onnx_write.h"

namespace {

using secateur::Graph;
using Bytes = std::vector<uint8_t>;
using Random = std::mt19937_64;

secateur::Tensor tensor(Random& r, const std::string& name, secateur::DType dtype, std::vector<int64_t> dims,
                        double density, int values) {
  secateur::Tensor t;
  t.name = name;
  t.dtype = dtype;
  t.dims = std::move(dims);
  const size_t size = dtype_size(dtype);
  t.data.resize(static_cast<size_t>(t.numel()) * size);
  std::vector<uint64_t> menu(static_cast<size_t>(values));
  for (auto& m : menu) m = r();
  for (size_t i = 0; i < t.data.size(); i += size) {
    if (std::uniform_real_distribution<>()(r) > density) continue;
    const uint64_t x = menu[r() % menu.size()];
    for (size_t k = 0; k < size; ++k) t.data[i + k] = static_cast<uint8_t>(x >> (8 * k));
  }
  return t;
}

// Equal tensors, and one that repeats itself or an earlier one: mirrored, with other signs, transposed, smooth, small
// types.
void add_repeats(Random& r, Graph& g) {
  using secateur::DType;
  const DType types[] = {DType::kFloat, DType::kFloat16, DType::kDouble, DType::kInt32,
                         DType::kUInt8, DType::kInt16,   DType::kInt64,  DType::kBool};
  const DType type = types[r() % 8];
  const int64_t rows = 4 + static_cast<int64_t>(r() % 30), cols = 4 + static_cast<int64_t>(r() % 30);
  secateur::Tensor t = tensor(r, "table", type, {rows, cols}, 1, 1 + static_cast<int>(r() % 2000));
  const size_t size = dtype_size(type);
  const auto place = [&](secateur::Tensor& of, int64_t i) { return of.data.data() + static_cast<size_t>(i) * size; };
  const auto copy = [&](int64_t to, int64_t from) { std::copy(place(t, from), place(t, from) + size, place(t, to)); };
  const uint64_t kind = r() % 5;
  for (int64_t i = 0; i < rows * cols; ++i) {
    const int64_t c = i % cols, row = i / cols;
    if (kind == 0 && row > 1) copy(i, i - 2 * cols);                 // tiles
    if (kind == 1 && c > cols / 2) copy(i, i - c + (cols - 1 - c));  // mirrored
    if (kind == 2 && row > 0 && c > 0) copy(i, i - cols - 1);        // diagonals
    if (kind == 3 && type == DType::kFloat) {                        // curves
      const float v = static_cast<float>(row) * 0.37f + static_cast<float>(c * c) * 1e-3f * (r() % 50 ? 1.0f : 1e38f);
      std::memcpy(place(t, i), &v, 4);
    }
    if (kind < 2 && r() % 2) place(t, i)[size - 1] ^= 128;
  }
  g.initializers.push_back(t);
  secateur::Tensor again = t;
  again.name = "again";
  if (r() % 2) {
    again.dims = {cols, rows};
    for (int64_t i = 0; i < rows * cols; ++i)
      std::copy(place(t, i), place(t, i) + size, place(again, i % cols * rows + i / cols));
  }
  if (r() % 2) again.dims = {rows * cols};
  g.initializers.push_back(again);
  secateur::Tensor nm = tensor(r, "two_of_four", DType::kFloat, {rows, 16}, 1, 1000);
  for (int64_t i = 0; i < rows * 16; i += 4) {
    const int64_t first = static_cast<int64_t>(r() % 4), second = (first + 1 + static_cast<int64_t>(r() % 3)) % 4;
    for (int64_t k : {first, second}) std::memset(nm.data.data() + 4 * (i + k), 0, 4);
  }
  g.initializers.push_back(nm);
}

// An ONNX file with the graph inside an If, which only exact files hold, and with bytes that are no tensor at all.
std::string with_subgraph(const std::string& onnx, Random& r) {
  const auto field = [](int number, const std::string& content) {
    std::string out(1, static_cast<char>(number << 3 | 2));
    for (uint64_t n = content.size();; n >>= 7) {
      out.push_back(static_cast<char>(n >= 128 ? n | 128 : n));
      if (n < 128) break;
    }
    return out + content;
  };
  // write_onnx puts ir_version (2 bytes) and producer before the graph, whose field holds all up to the opsets.
  size_t at = 2;
  at += 2 + static_cast<uint8_t>(onnx[at + 1]);
  uint64_t length = 0;
  size_t from = at + 1;
  for (int shift = 0;; shift += 7) {
    const auto b = static_cast<uint8_t>(onnx[from++]);
    length |= uint64_t{b & 127u} << shift;
    if (b < 128) break;
  }
  std::string graph = onnx.substr(from, length);
  for (uint64_t depth = 1 + r() % 3; depth > 0; --depth) {
    const std::string attribute = field(1, "then_branch") + field(6, graph);
    graph = field(1, field(1, "c") + field(2, "y") + field(4, "If") + field(5, attribute) + field(5, attribute));
  }
  if (r() % 4 == 0)
    graph += field(
        10, std::string(1 + r() % 3000, 'x') + std::string("text that comes again and again ") + std::to_string(r()));
  if (r() % 64 == 0) {  // a skeleton longer than what is modelled
    std::string text;
    while (text.size() < (1 << 20) + 5000) text += "text that comes again and again, as in exports of long loops; ";
    graph += field(10, text);
  }
  return onnx.substr(0, at) + field(7, graph) + onnx.substr(from + length);
}

Graph example(Random& r) {
  using secateur::DType;
  Graph g;
  g.opsets[""] = 18;
  g.inputs = {{"input", DType::kFloat, {{-1, "batch"}, {1, ""}, {8, ""}, {8, ""}}, true}};
  g.outputs = {{"output", DType::kFloat, {{-1, "batch"}, {10, ""}}, true}};
  const DType types[] = {DType::kFloat, DType::kFloat16, DType::kInt8, DType::kInt64, DType::kDouble, DType::kUInt8};
  const auto pick = [&] { return types[r() % 6]; };
  const int rows = 1 + static_cast<int>(r() % 40);
  g.initializers.push_back(tensor(r, "conv1.weight", pick(), {rows, 1 + static_cast<int64_t>(r() % 8), 3, 3}, 0.2,
                                  1 + static_cast<int>(r() % 9)));
  g.initializers.push_back(tensor(r, "conv1.bias", pick(), {rows}, 0.8, 5));
  g.initializers.push_back(tensor(r, "fc1.weight", pick(), {10, rows * 4}, 0.05, 3));
  const bool big = r() % 4 == 0;  // rANS, sectioned files; slow to pack
  if (big) g.initializers.push_back(tensor(r, "big", DType::kFloat, {200, 400}, 0.9, r() % 2 ? 20 : 100000));
  if (r() % 2) add_repeats(r, g);
  secateur::Node conv{"", "Conv", "", {"input", "conv1.weight", "conv1.bias"}, {"a"}, {}};
  conv.attrs["pads"].value = std::vector<int64_t>{1, 1, 1, 1};
  secateur::Node fc{"", "Gemm", "", {"a", "fc1.weight", "", big ? "big" : ""}, {"output"}, {}};
  fc.attrs["alpha"].value = 0.5f;
  fc.attrs["text"].value = std::string("some text");
  g.nodes = {conv, fc};
  return g;
}

// Some tighter levels of a graph: part of a tensor's values, other values, or the same.
std::vector<Graph> levels_of(const Graph& g, Random& r) {
  std::vector<Graph> all = {g};
  for (uint64_t n = 1 + r() % 3; n > 0; --n) {
    Graph next = all.back();
    for (secateur::Tensor& t : next.initializers) {
      const size_t size = dtype_size(t.dtype);
      const uint64_t kind = r() % 3;
      for (size_t i = 0; i < t.data.size() && kind > 0; i += size) {
        if (r() % 2) continue;
        for (size_t k = 0; k < size; ++k) t.data[i + k] = kind == 1 ? 0 : static_cast<uint8_t>(r());
      }
    }
    all.push_back(std::move(next));
  }
  return all;
}

void seal(Bytes& b, size_t guarded, size_t end) {
  const uint32_t crc = secateur::sct::crc32(std::span<const uint8_t>(b).subspan(guarded, end - guarded));
  for (size_t i = 0; i < 4; ++i) b[end + i] = static_cast<uint8_t>(crc >> (8 * i));
}

// Right checksums for the file, or for its sections as far as their lengths make sense.
void fix_checksum(Bytes& b) {
  if (b.size() < 9) return;
  if (!(b[4] & 1)) return seal(b, 0, b.size() - 4);
  for (size_t guarded = 0, at = 5; at < b.size();) {
    uint64_t length = 0;
    for (int shift = 0; at < b.size() && shift < 35; shift += 7) {
      length |= uint64_t{b[at] & 127u} << shift;
      if (b[at++] < 128) break;
    }
    if (at + length + 4 > b.size()) return;
    seal(b, guarded, at + length);
    guarded = at += length + 4;
  }
}

void mutate(Bytes& b, Random& r) {
  for (uint64_t n = 1 + r() % 4; n > 0 && !b.empty(); --n) {
    const size_t at = r() % b.size();
    switch (r() % 5) {
      case 0:
        b[at] ^= static_cast<uint8_t>(1u << (r() % 8));
        break;
      case 1:
        b[at] = static_cast<uint8_t>(r());
        break;
      case 2:
        b.erase(b.begin() + static_cast<ptrdiff_t>(at),
                b.begin() + static_cast<ptrdiff_t>(std::min(b.size(), at + 1 + r() % 20)));
        break;
      case 3:
        b.insert(b.begin() + static_cast<ptrdiff_t>(at), r() % 9, static_cast<uint8_t>(r()));
        break;
      case 4:
        b.resize(at);
        break;
    }
  }
}

bool same(const Graph& a, const Graph& b) {
  if (a.initializers.size() != b.initializers.size()) return false;
  for (const auto& t : a.initializers) {
    bool found = false;
    for (const auto& u : b.initializers)
      found |= t.name == u.name && t.dtype == u.dtype && t.dims == u.dims && t.data == u.data;
    if (!found) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 3;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : std::random_device{}();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  Random r(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  long files = 0, refused = 0;
  while (std::chrono::steady_clock::now() < end) {
    const Graph g = example(r);
    const bool subgraph = r() % 4 == 0;
    const std::string plain = secateur::write_onnx(g), onnx = subgraph ? with_subgraph(plain, r) : plain;
    const std::span<const uint8_t> onnx_bytes(reinterpret_cast<const uint8_t*>(onnx.data()), onnx.size());
    const bool exact = subgraph || r() % 3 == 0;
    const std::vector<Graph> levels = levels_of(g, r);
    const bool several = !exact && r() % 2;
    const Bytes packed = several ? secateur::pack_levels(levels)
                         : exact ? secateur::pack_exact(onnx_bytes)
                                 : secateur::pack(onnx_bytes);
    for (size_t k = 0; several && k < levels.size(); ++k) {
      if (same(secateur::canonical(levels[k]), secateur::unpack(packed, uint64_t{1} << 26, static_cast<int>(k))))
        continue;
      std::printf("round trip of level %zu failed\n", k);
      return 1;
    }
    const bool whole = subgraph || same(exact ? g : secateur::canonical(g), secateur::unpack(packed));
    if (!whole || (exact && secateur::unpack_onnx(packed) != onnx)) {
      std::printf("round trip failed\n");
      return 1;
    }
    for (int k = 0; k < 200 && std::chrono::steady_clock::now() < end; ++k) {
      Bytes b = packed;
      mutate(b, r);
      if (r() % 8 == 0 && b.size() > 4) b[3] = 0x10;  // read by the rules of version 1
      if (r() % 8) fix_checksum(b);                   // most mutants must get past the checksum to be of use
      ++files;
      try {
        secateur::unpack_onnx(b, r() % 32 ? uint64_t{1} << 26 : r() % 5000);
        secateur::sections(b, uint64_t{1} << 26);
        secateur::unpack(b, uint64_t{1} << 26, secateur::levels(b) - 1);
      } catch (const secateur::FormatError&) {
        ++refused;
      } catch (const secateur::UnsupportedError&) {
        ++refused;
      }
    }
  }
  std::printf("%ld mutants, %ld refused\n", files, refused);
  return 0;
}
