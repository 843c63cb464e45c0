// Mutates .sct files and streams for a few seconds: whatever the bytes, reading ends in a Graph or a FormatError.
// Under -DSECATEUR_SANITIZE=address,undefined it also proves that nothing is read or written out of bounds.
//   formats_sct_fuzz_test [seconds] [seed]
#include <chrono>
#include <cstdio>
#include <cstdlib>
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

secateur::Tensor tensor(Random& r, const std::string& name, secateur::DType dtype, std::vector<int64_t> dims, double density, int values) {
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

Graph example(Random& r) {
  using secateur::DType;
  Graph g;
  g.opsets[""] = 18;
  g.inputs = {{"input", DType::kFloat, {{-1, "batch"}, {1, ""}, {8, ""}, {8, ""}}, true}};
  g.outputs = {{"output", DType::kFloat, {{-1, "batch"}, {10, ""}}, true}};
  const DType types[] = {DType::kFloat, DType::kFloat16, DType::kInt8, DType::kInt64, DType::kDouble, DType::kUInt8};
  const auto pick = [&] { return types[r() % 6]; };
  const int rows = 1 + static_cast<int>(r() % 40);
  g.initializers.push_back(tensor(r, "conv1.weight", pick(), {rows, 1 + static_cast<int64_t>(r() % 8), 3, 3}, 0.2, 1 + static_cast<int>(r() % 9)));
  g.initializers.push_back(tensor(r, "conv1.bias", pick(), {rows}, 0.8, 5));
  g.initializers.push_back(tensor(r, "fc1.weight", pick(), {10, rows * 4}, 0.05, 3));
  const bool big = r() % 4 == 0;  // rANS, sectioned files; slow to pack
  if (big) g.initializers.push_back(tensor(r, "big", DType::kFloat, {200, 400}, 0.9, r() % 2 ? 20 : 100000));
  secateur::Node conv{"", "Conv", "", {"input", "conv1.weight", "conv1.bias"}, {"a"}, {}};
  conv.attrs["pads"].value = std::vector<int64_t>{1, 1, 1, 1};
  secateur::Node fc{"", "Gemm", "", {"a", "fc1.weight", "", big ? "big" : ""}, {"output"}, {}};
  fc.attrs["alpha"].value = 0.5f;
  fc.attrs["text"].value = std::string("some text");
  g.nodes = {conv, fc};
  return g;
}

void fix_checksum(Bytes& b) {
  if (b.size() < 9 || b[4] & 1) return;
  const uint32_t crc = secateur::sct::crc32(std::span<const uint8_t>(b).first(b.size() - 4));
  for (size_t i = 0; i < 4; ++i) b[b.size() - 4 + i] = static_cast<uint8_t>(crc >> (8 * i));
}

void mutate(Bytes& b, Random& r) {
  for (uint64_t n = 1 + r() % 4; n > 0 && !b.empty(); --n) {
    const size_t at = r() % b.size();
    switch (r() % 5) {
      case 0: b[at] ^= static_cast<uint8_t>(1u << (r() % 8)); break;
      case 1: b[at] = static_cast<uint8_t>(r()); break;
      case 2: b.erase(b.begin() + static_cast<ptrdiff_t>(at), b.begin() + static_cast<ptrdiff_t>(std::min(b.size(), at + 1 + r() % 20))); break;
      case 3: b.insert(b.begin() + static_cast<ptrdiff_t>(at), r() % 9, static_cast<uint8_t>(r())); break;
      case 4: b.resize(at); break;
    }
  }
}

bool same(const Graph& a, const Graph& b) {
  if (a.initializers.size() != b.initializers.size()) return false;
  for (const auto& t : a.initializers) {
    bool found = false;
    for (const auto& u : b.initializers) found |= t.name == u.name && t.dtype == u.dtype && t.dims == u.dims && t.data == u.data;
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
    const std::string onnx = secateur::write_onnx(g);
    const std::span<const uint8_t> onnx_bytes(reinterpret_cast<const uint8_t*>(onnx.data()), onnx.size());
    const bool exact = r() % 3 == 0;
    const Bytes packed = exact ? secateur::pack_exact(onnx_bytes) : secateur::pack(g);
    if (!same(exact ? g : secateur::canonical(g), secateur::unpack(packed)) || (exact && secateur::unpack_onnx(packed) != onnx)) {
      std::printf("round trip failed\n");
      return 1;
    }
    for (int k = 0; k < 200 && std::chrono::steady_clock::now() < end; ++k) {
      Bytes b = packed;
      mutate(b, r);
      if (r() % 8) fix_checksum(b);  // most mutants must get past the checksum to be of use
      ++files;
      try {
        secateur::unpack(b, uint64_t{1} << 26);
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
