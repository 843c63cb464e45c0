// Exact files: an ONNX file without the data of its tensors (the skeleton), so that unpack can give back the very same
// bytes (docs/format.md, "Exact files").
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "formats/graph_coder.h"
#include "graph/graph.h"

namespace secateur::sct {

// Which bytes are cut out is a rule both sides can follow from the bytes before them.
struct Cut {
  size_t at = 0;  // in the whole file
  Tensor tensor;  // name, dtype, dims; no data
};

// Walks a whole ONNX file. Throws FormatError where it is no protobuf message with a graph, UnsupportedError where
// tensors lie in other files.
std::vector<Cut> find_cuts(std::span<const uint8_t> onnx);

// Walks a skeleton of a .sct file of this major version; `at` counts in the whole file, which is `full_size` bytes
// long.
std::vector<Cut> find_cuts_in_skeleton(std::span<const uint8_t> skeleton, size_t full_size, int major);

inline constexpr uint64_t kModelled = 1 << 20;  // bytes of a skeleton; what comes after is stored like a tensor

// The sizes of the file and of its skeleton, each by the same fresh numbers.
template <class C>
void code_sizes(C& c, uint64_t& full_size, uint64_t& size) {
  Uint sizes;
  full_size = sizes.code(c, full_size);
  size = sizes.code(c, size);
  if (size > full_size) throw FormatError("damaged skeleton: larger than its file");
}

// One byte under eight names, digit by digit from the top. `more(node, digit)` may add names of its own.
template <class C, class Model, size_t N, class F>
uint8_t code_byte(C& c, Model& model, uint8_t byte, const std::array<uint64_t, N>& names, int group, F&& more) {
  std::array<uint64_t, N> at;
  uint64_t node = 1;
  for (int b = 7; b >= 0; --b) {
    for (size_t j = 0; j < N; ++j) at[j] = hash(names[j], node);
    more(at, node, b);
    node = 2 * node + static_cast<uint64_t>(model.code(c, byte >> b & 1, at, static_cast<int>(N), group));
  }
  return static_cast<uint8_t>(node);
}

// The bytes before the one at hand: plus 256, 0 before the start; `word` is the hash of the letters that just went by.
struct Recent {
  uint64_t last[6] = {}, word = 0, words = 0;
  void push(uint8_t byte) {
    const uint64_t node = byte + 256u;
    const bool letter = (byte | 32) >= 'a' && (byte | 32) <= 'z';
    if (!letter && word != 0) words = word;
    word = letter ? hash(word, node) : 0;
    for (int k = 5; k > 0; --k) last[k] = last[k - 1];
    last[0] = node;
  }
};

// Version 1: predicted like the texts of a graph, by the models primed for graphs.
void decode_skeleton_1(Decoder& d, std::vector<uint8_t>& bytes, uint64_t size, FieldModel& fields);

// Follows the last place that went on from the same bytes as stand here.
class TextMatch {
 public:
  TextMatch() : last_(size_t{1} << 18, 0) {}
  // The byte expected now plus 256, 0 without a match; `length` bytes agree before it.
  uint64_t expected(const std::vector<uint8_t>& bytes) const { return at_ > 0 ? bytes[at_] + 256u : 0; }
  uint64_t length() const { return length_; }
  void push(const std::vector<uint8_t>& bytes, size_t end) {  // bytes[end - 1] has just been coded
    if (at_ > 0 && bytes[at_] == bytes[end - 1]) {
      ++at_;
      length_ = std::min<uint64_t>(length_ + 1, 65535);
    } else {
      at_ = length_ = 0;
    }
    if (end < kShortest) return;
    uint64_t key = 0;
    for (size_t k = 1; k <= kShortest; ++k) key = hash(key, bytes[end - k]);
    uint32_t& seen = last_[key >> 46];
    if (at_ == 0 && seen > 0) {
      at_ = seen;
      while (length_ < 32 && length_ < at_ && bytes[at_ - 1 - length_] == bytes[end - 1 - length_]) ++length_;
      if (length_ < kShortest) at_ = length_ = 0;
    }
    seen = static_cast<uint32_t>(end);
  }

 private:
  static constexpr size_t kShortest = 5;
  std::vector<uint32_t> last_;
  size_t at_ = 0;
  uint64_t length_ = 0;
};

// Version 2: the first kModelled bytes of a skeleton, orders 0 to 6, words and the longest match mixed.
template <class C>
void code_skeleton(C& c, std::vector<uint8_t>& bytes, uint64_t size) {
  constexpr int kNames = 12;
  constexpr uint64_t kSure = 20;
  Fields<SlotTable, kNames> fields(SlotTable(), 22000);
  Recent r;
  TextMatch match;
  for (uint64_t i = 0; i < size; ++i) {
    if constexpr (!C::kEncoding) {
      if ((i & 255) == 0 && c.exhausted()) throw FormatError("truncated: the skeleton's stream ends early");
      bytes.push_back(0);
    }
    const uint64_t* last = r.last;
    uint64_t expected = match.expected(bytes), length = std::min<uint64_t>(match.length(), 32);
    bool hit = false;
    if (length >= kSure) {  // one decision for the whole byte: repeats are long, and quick to read
      const std::array<uint64_t, kNames> names = {hash(112, length), hash(113, expected),
                                                  hash(114, expected, last[0], last[1])};
      hit = fields.code(c, bytes[i] + 256u == expected, names, 3, 3);
      if (hit) bytes[i] = static_cast<uint8_t>(expected);
      else expected = length = 0;
    }
    if (!hit) {
      const std::array<uint64_t, kNames> names = {hash(100, 0),
                                                  hash(101, last[0]),
                                                  hash(102, last[0], last[1]),
                                                  hash(103, last[0], last[1], last[2]),
                                                  hash(104, last[0], last[1], last[2], last[3]),
                                                  hash(105, last[0], last[1], last[2], last[3], last[4], last[5]),
                                                  hash(106, r.word),
                                                  hash(107, last[1], last[2]),
                                                  hash(108, expected, length),
                                                  hash(109, r.word, r.words),
                                                  0,
                                                  hash(110, expected, last[0])};
      bytes[i] = code_byte(c, fields, bytes[i], names, length == 0 ? 0 : 1, [&](auto& at, uint64_t node, int b) {
        // Without a byte in it: does the match hold?
        const bool agrees = expected != 0 && expected >> (b + 1) == node;
        at[10] = hash(111, agrees ? 2 + (expected >> b & 1) : 0, length);
      });
    }
    r.push(bytes[i]);
    match.push(bytes, i + 1);
  }
}

}  // namespace secateur::sct
