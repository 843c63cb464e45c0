// What the graph's stream is written with: decisions, numbers, words and texts, each predicted from several contexts at
// once (docs/format.md, 5.1). Every function that gets a value and returns one codes it; a decoder ignores what came.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/fields.h"
#include "formats/values.h"

namespace secateur::sct {

inline constexpr uint64_t kMaxDecisions = uint64_t{1} << 26;  // binary decisions of one graph stream
inline constexpr size_t kMaxString = 1 << 16;
inline constexpr uint64_t kMaxList = 1 << 16;  // nodes' inputs, outputs, attribute lists

// What a name of a context begins with; the numbers are part of the format.
enum Tag : uint64_t {
  kIr = 1,
  kOpset,
  kDomain,
  kInput,
  kOutput,
  kDtype,
  kHasShape,
  kRank,
  kFree,
  kSize,
  kSymbol,
  kMore,
  kOp,
  kNewOp,
  kInputs,
  kRef,
  kOutputs,
  kOut,
  kAttr,
  kNewAttr,
  kKind,
  kInt,
  kFloat,
  kText,
  kList,
  kInit,
  kSame,
  kDim,
  kExtra,
  kCount
};
using Names = std::initializer_list<uint64_t>;

// What the models remember between graphs: the priming networks pass through one of these.
struct GraphModels {
  FieldModel fields;
  std::vector<std::string> ops, attrs;  // dictionaries, in order of first use
  std::string last_name;                // of an initializer
};

template <class C>
class GraphStream {
 public:
  static constexpr bool kEnc = C::kEncoding;

  GraphStream(C& c, GraphModels& models) : models(models), c_(c) {}

  GraphModels& models;

  [[noreturn]] static void damaged(const char* what) { throw FormatError(std::string("damaged graph: ") + what); }
  void watch() {
    if constexpr (!kEnc) {
      if (c_.exhausted()) throw FormatError("truncated: the graph's stream ends early");
    }
  }

  // `bits` binary digits, most significant first.
  uint64_t symbol(uint64_t value, int bits, Names names, int group = 0) {
    std::array<uint64_t, kMaxContexts> at;
    uint64_t node = 1;
    for (int i = bits - 1; i >= 0; --i) {
      int count = 0;
      for (uint64_t name : names) at[count++] = hash(name, node);
      node = 2 * node + static_cast<uint64_t>(flag(static_cast<int>(value >> i & 1), at, count, group));
    }
    return node - (uint64_t{1} << bits);
  }
  // Elias gamma of value + 1; digits after the tenth are equally likely.
  uint64_t number(uint64_t value, Names names) {
    std::array<uint64_t, kMaxContexts> at;
    const int target = kEnc ? std::bit_width(value + 1) - 1 : 0;
    int e = 0;
    for (; e < 62; ++e) {
      int count = 0;
      for (uint64_t name : names) at[count++] = hash(name, 1000 + e);
      if (!flag(e < target, at, count, 1)) break;
    }
    uint64_t x = 1;
    int left = e;
    for (int i = 0; i < 10 && left > 0; ++i) {
      --left;
      int count = 0;
      for (uint64_t name : names) at[count++] = hash(name, 2000 + e, x);
      x = 2 * x + static_cast<uint64_t>(flag(static_cast<int>((value + 1) >> left & 1), at, count, 1));
    }
    if (left > 0) x = x << left | code_raw(c_, (value + 1) & ((uint64_t{1} << left) - 1), left);
    watch();
    return x - 1;
  }
  uint64_t count_of(uint64_t value, uint64_t most, Names names) {
    value = number(value, names);
    if (value > most) damaged("a count is too large");
    return value;
  }
  int64_t whole(int64_t value, Names names) { return unzigzag(number(zigzag(value), names)); }

  // The four bytes of a pattern, from the top.
  float real(float value, uint64_t where) {
    const uint32_t x = std::bit_cast<uint32_t>(value);
    uint32_t out = 0;
    for (uint64_t i = 0; i < 4; ++i) {
      out = out << 8 | static_cast<uint32_t>(
                           symbol(x >> (24 - 8 * i) & 255, 8, {hash(kFloat, i, out), hash(kFloat, where, i, out)}));
    }
    return std::bit_cast<float>(out);
  }

  DType dtype(DType t, uint64_t where) {
    const auto x = static_cast<DType>(symbol(static_cast<uint64_t>(t), 5, {kDtype, hash(kDtype, where)}));
    if (dtype_size(x) == 0) damaged("unknown data type");
    return x;
  }

  // Text ends with a zero byte. `tag` says where the text stands, `like` is a text it may resemble.
  std::string text(const std::string& value, uint64_t kind, uint64_t tag, const std::string& like);

  // Entry of a growing dictionary: 0 = the list ends, 1 = a new word follows, 2 + i = word i.
  uint64_t word(uint64_t value, std::vector<std::string>& words, std::string& text_value, Tag fresh, Names names) {
    value = symbol(value, 8, names, 3);
    if (value == 1) {
      text_value = text(text_value, fresh, fresh, "");
      if (words.size() < 254) words.push_back(text_value);
    } else if (value >= 2) {
      if (value - 2 >= words.size()) damaged("unknown word");
      text_value = words[value - 2];
    }
    return value;
  }
  static uint64_t find(const std::vector<std::string>& words, const std::string& w) {
    for (size_t i = 0; i < words.size(); ++i)
      if (words[i] == w) return i + 2;
    return 1;
  }

 private:
  int flag(int bit, const std::array<uint64_t, kMaxContexts>& names, int count, int group) {
    if (++decisions_ > kMaxDecisions) damaged("too long");
    return models.fields.code(c_, bit, names, count, group);
  }
  uint64_t byte(uint64_t value, const std::array<uint64_t, kMaxContexts>& names) {
    std::array<uint64_t, kMaxContexts> at;
    uint64_t node = 1;
    for (int i = 7; i >= 0; --i) {
      for (int j = 0; j < kMaxContexts; ++j) at[j] = hash(names[j], node);
      node = 2 * node + static_cast<uint64_t>(flag(static_cast<int>(value >> i & 1), at, kMaxContexts, 2));
    }
    return node - 256;
  }

  C& c_;
  uint64_t decisions_ = 0;
};

// Reads along a text that another may resemble, part by part.
class Likeness {
 public:
  explicit Likeness(const std::string& like) : like_(like) {}
  uint64_t guess() const { return at_ < like_.size() ? static_cast<uint8_t>(like_[at_]) : 0; }
  uint64_t held() const { return held_; }  // 1 while every guess was right
  void push(uint64_t byte) {
    const uint64_t expected = guess();
    if (byte == expected) {
      ++at_;
    } else if (held_ = 0; byte == '.' || byte == '_') {
      while (at_ < like_.size() && like_[at_] != '.' && like_[at_] != '_') ++at_;
      if (at_ < like_.size()) ++at_;
    } else if (expected != 0) {
      ++at_;
    }
  }

 private:
  const std::string& like_;
  size_t at_ = 0;
  uint64_t held_ = 1;
};

template <class C>
std::string GraphStream<C>::text(const std::string& value, uint64_t kind, uint64_t tag, const std::string& like) {
  std::string out;
  uint64_t last[5] = {256, 256, 256, 256, 256};
  uint64_t whole = kind;
  Likeness other(like);
  for (;;) {
    const std::array<uint64_t, kMaxContexts> names = {hash(kText, kind),
                                                      hash(kText, 1, last[0]),
                                                      hash(kText, 2, last[0], last[1]),
                                                      hash(kText, 3, last[0], last[1], last[2]),
                                                      hash(kText, 4, last[0], last[1], last[2], last[3], last[4]),
                                                      hash(kText, 5, tag, last[0], last[1]),
                                                      hash(kText, 6, other.guess(), other.held(), tag),
                                                      hash(kText, 7, whole)};
    const uint64_t x = byte(kEnc && out.size() < value.size() ? static_cast<uint8_t>(value[out.size()]) : 0, names);
    if (x == 0) return out;
    out.push_back(static_cast<char>(x));
    if (out.size() > kMaxString) damaged("a text is too long");
    watch();
    other.push(x);
    for (int i = 4; i > 0; --i) last[i] = last[i - 1];
    last[0] = x;
    whole = hash(whole, x);
  }
}

}  // namespace secateur::sct
