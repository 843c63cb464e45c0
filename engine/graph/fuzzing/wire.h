// Mutations of ONNX's wire format by field, with lengths that agree again: fields go, come twice, change their number,
// kind or value; tensors keep their values in typed fields, as other writers do. For the reader itself.
#pragma once

#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace secateur::fuzzing {

class WireMutator {
 public:
  explicit WireMutator(std::mt19937& rng) : rng_(rng) {}

  std::string mutate(std::string_view file) {
    Message root = parse(Kind::kModel, file);
    for (uint32_t k = below(3) + 1; k > 0; --k) {
      std::vector<Message*> all;
      collect(root, all);
      change(*all[below(all.size())]);
    }
    return text(root);
  }

 private:
  enum class Kind { kModel, kGraph, kNode, kAttribute, kTensor, kValue, kType, kTensorType, kShape, kLeaf };
  struct Message;
  struct Field {
    uint64_t number = 0;
    int type = 0;  // 0 varint, 1 and 5 fixed, 2 bytes
    uint64_t varint = 0;
    std::string bytes;             // types 1, 2, 5
    std::vector<Message> message;  // one, where the field holds one
  };
  struct Message {
    Kind kind = Kind::kLeaf;
    std::vector<Field> fields;
  };

  uint32_t below(size_t n) { return static_cast<uint32_t>(rng_() % n); }

  // The kind of the message in that field, kModel where there is none.
  static Kind inside(Kind kind, uint64_t field) {
    switch (kind) {
      case Kind::kModel:
        return field == 7 ? Kind::kGraph : field == 8 ? Kind::kLeaf : Kind::kModel;
      case Kind::kGraph:
        return field == 1                   ? Kind::kNode
               : field == 5                 ? Kind::kTensor
               : field == 11 || field == 12 ? Kind::kValue
                                            : Kind::kModel;
      case Kind::kNode:
        return field == 5 ? Kind::kAttribute : Kind::kModel;
      case Kind::kAttribute:
        return field == 5 ? Kind::kTensor : Kind::kModel;
      case Kind::kValue:
        return field == 2 ? Kind::kType : Kind::kModel;
      case Kind::kType:
        return field == 1 ? Kind::kTensorType : Kind::kModel;
      case Kind::kTensorType:
        return field == 2 ? Kind::kShape : Kind::kModel;
      case Kind::kShape:
        return field == 1 ? Kind::kLeaf : Kind::kModel;
      default:
        return Kind::kModel;
    }
  }
  static uint64_t varint(std::string_view& s) {
    uint64_t v = 0;
    for (int shift = 0; !s.empty() && shift < 64; shift += 7) {
      const auto b = static_cast<unsigned char>(s[0]);
      s.remove_prefix(1);
      v |= static_cast<uint64_t>(b & 127) << shift;
      if (b < 128) break;
    }
    return v;
  }
  static void add_varint(std::string& s, uint64_t v) {
    for (; v >= 128; v >>= 7) s.push_back(static_cast<char>(v | 128));
    s.push_back(static_cast<char>(v));
  }
  static Message parse(Kind kind, std::string_view s) {
    Message m{kind, {}};
    while (!s.empty()) {
      Field f;
      const uint64_t tag = varint(s);
      f.number = tag >> 3, f.type = static_cast<int>(tag & 7);
      if (f.type == 0) {
        f.varint = varint(s);
      } else {
        const size_t n = f.type == 2 ? varint(s) : f.type == 1 ? 8 : 4;
        f.bytes = s.substr(0, n);
        s.remove_prefix(std::min(n, s.size()));
        if (const Kind k = inside(kind, f.number); f.type == 2 && k != Kind::kModel)
          f.message.push_back(parse(k, f.bytes));
      }
      m.fields.push_back(std::move(f));
    }
    return m;
  }
  static std::string text(const Message& m) {
    std::string s;
    for (const Field& f : m.fields) {
      add_varint(s, f.number << 3 | static_cast<uint64_t>(f.type));
      if (f.type == 0) {
        add_varint(s, f.varint);
        continue;
      }
      const std::string bytes = f.message.empty() || f.type != 2 ? f.bytes : text(f.message[0]);
      if (f.type == 2) add_varint(s, bytes.size());
      s += bytes;
    }
    return s;
  }
  static void collect(Message& m, std::vector<Message*>& all) {
    all.push_back(&m);
    for (Field& f : m.fields)
      for (Message& inner : f.message) collect(inner, all);
  }

  void change(Message& m) {
    if (m.kind == Kind::kTensor && below(2)) return spread(m);
    if (m.fields.empty() || below(6) == 0) {
      m.fields.push_back(any_field());
      return;
    }
    const size_t at = below(m.fields.size());
    Field& f = m.fields[at];
    switch (below(6)) {
      case 0:
        m.fields.erase(m.fields.begin() + static_cast<ptrdiff_t>(at));
        break;
      case 1:
        m.fields.push_back(Field(f));
        break;
      case 2:
        f.number = below(28);
        break;
      case 3:
        f.type = static_cast<int>(below(8));
        break;
      case 4: {
        const Field other = any_field();
        f.type = other.type, f.varint = other.varint, f.bytes = other.bytes;
        f.message.clear();
        break;
      }
      default:
        if (f.type == 2) f.bytes = any_text(), f.message.clear();
        else f.varint = any_number();
    }
  }
  uint64_t any_number() {
    static const uint64_t special[] = {
        0, 1, 2, 16, 255, 256, 65536, uint64_t{1} << 32, uint64_t{1} << 47, uint64_t{1} << 63, ~uint64_t{0}};
    return below(2) ? below(24) : special[below(std::size(special))];
  }
  std::string any_text() {
    static const std::string words[] = {"",
                                        "x0",
                                        "ai.onnx",
                                        "Conv",
                                        "\x80",
                                        "\xc3\xa9",
                                        "\xe2\x82\xac",
                                        "\xf0\x9f\x98\x80",
                                        "\xc0\xaf",
                                        "\xed\xa0\x80",
                                        "\xf4\x90\x80\x80",
                                        "\xf8",
                                        "\xe2\x82",
                                        std::string("a\0b", 3),
                                        "\x0a\x03",
                                        "\x08\x01\x12\x02",
                                        std::string(300, '\x08')};
    return words[below(std::size(words))];
  }
  Field any_field() {
    Field f;
    f.number = below(28);
    f.type = static_cast<int>(below(3) == 0 ? below(6) : below(2) * 2);
    f.varint = any_number();
    f.bytes = f.type == 1 ? std::string(8, '\x01') : f.type == 5 ? std::string(4, '\x01') : any_text();
    return f;
  }
  // raw_data into the field of its type, packed or not.
  void spread(Message& m) {
    uint64_t code = 0;
    std::string raw;
    for (const Field& f : m.fields) {
      if (f.number == 2) code = f.varint;
      if (f.number == 9) raw = f.bytes;
    }
    std::erase_if(m.fields, [](const Field& f) { return f.number == 9; });
    const size_t size = code == 1 || code == 6 || code == 12                 ? 4
                        : code == 7 || code == 11 || code == 13              ? 8
                        : code == 4 || code == 5 || code == 10 || code == 16 ? 2
                                                                             : 1;
    const uint64_t number = below(8) == 0              ? 4 + below(8)
                            : code == 1                ? 4
                            : code == 11               ? 10
                            : code == 7                ? 7
                            : code == 12 || code == 13 ? 11
                                                       : 5;
    const bool fixed = code == 1 || code == 11, is_signed = code == 3 || code == 5 || code == 6, packed = below(2) != 0;
    Field all{number, 2, 0, "", {}};
    for (size_t at = 0; at + size <= raw.size(); at += size) {
      uint64_t v = 0;
      std::memcpy(&v, raw.data() + at, size);
      if (is_signed && size < 8 && (v >> (8 * size - 1))) v |= ~uint64_t{0} << (8 * size);
      if (packed && fixed) all.bytes += raw.substr(at, size);
      else if (packed) add_varint(all.bytes, v);
      else if (fixed) m.fields.push_back({number, size == 4 ? 5 : 1, 0, raw.substr(at, size), {}});
      else m.fields.push_back({number, 0, v, "", {}});
    }
    if (packed && !all.bytes.empty()) m.fields.push_back(std::move(all));
  }

  std::mt19937& rng_;
};

}  // namespace secateur::fuzzing
