// Protobuf's wire format, read with every length checked. No protobuf library, nothing executed, no length trusted.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/error.h"

namespace secateur {

// A position inside one message. `end` never passes the end of the enclosing message, so a length that lies is caught
// where it is read. Sub-messages are views.
class Wire {
 public:
  enum Type : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  Wire(const uint8_t* base, const uint8_t* begin, const uint8_t* end) : base_(base), p_(begin), end_(end) {}

  [[noreturn]] void fail(const std::string& what) const { throw FormatError("ONNX: " + what, offset()); }
  int64_t offset() const { return p_ - base_; }
  size_t left() const { return static_cast<size_t>(end_ - p_); }
  bool done() const { return p_ == end_; }

  // Next field: number into `field`, wire type into `type`.
  bool next() {
    if (done()) return false;
    const uint64_t key = varint();
    field = static_cast<uint32_t>(key >> 3);
    type = static_cast<uint32_t>(key & 7);
    if (key >> 32 || field == 0) fail("field number out of range");
    return true;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (done()) fail("the file ends inside a number (truncated?)");
      const uint8_t byte = *p_++;
      if (shift == 63 && byte > 1) fail("number longer than 64 bits");
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (!(byte & 0x80)) return value;
    }
    fail("number longer than 64 bits");
  }

  int64_t integer(const char* what) {
    expect(kVarint, what);
    return static_cast<int64_t>(varint());
  }

  Wire message(const char* what) {
    expect(kBytes, what);
    const uint64_t n = varint();
    if (n > left())
      fail(std::string(what) + " says " + std::to_string(n) + " bytes, only " + std::to_string(left()) +
           " are left (truncated?)");
    Wire sub(base_, p_, p_ + n);
    p_ += n;
    return sub;
  }

  std::string_view bytes(const char* what) { return message(what).rest(); }
  // What is left of this message.
  std::string_view rest() const { return {reinterpret_cast<const char*>(p_), left()}; }

  // Names end up as Python str: they must be UTF-8.
  std::string_view name(const char* what) {
    const std::string_view s = bytes(what);
    if (!valid_utf8(s)) fail(std::string(what) + " is not valid UTF-8");
    return s;
  }
  std::string text(const char* what) { return std::string(name(what)); }

  template <class T>
  T fixed(const char* what) {
    expect(sizeof(T) == 4 ? kFixed32 : kFixed64, what);
    return raw<T>(what);
  }

  template <class T>
  T raw(const char* what) {
    if (left() < sizeof(T)) fail(std::string("the file ends inside ") + what + " (truncated?)");
    T v;
    std::memcpy(&v, p_, sizeof(T));
    p_ += sizeof(T);
    return v;
  }

  void skip() {
    switch (type) {
      case kVarint:
        varint();
        return;
      case kFixed64:
        raw<uint64_t>("a number");
        return;
      case kBytes:
        message("an unknown field");
        return;
      case kFixed32:
        raw<uint32_t>("a number");
        return;
      default:
        fail("wire type " + std::to_string(type) + " is not used by ONNX");
    }
  }

  // repeated int64, packed or not
  template <class F>
  void each_varint(const char* what, F&& f) {
    if (type == kVarint) return f(varint());
    Wire sub = message(what);
    while (!sub.done()) f(sub.varint());
  }

  // repeated float / double, packed or not
  template <class T, class F>
  void each_fixed(const char* what, F&& f) {
    if (type != kBytes) return f(fixed<T>(what));
    Wire sub = message(what);
    if (sub.left() % sizeof(T)) sub.fail(std::string(what) + " is not a whole number of values");
    while (!sub.done()) f(sub.template raw<T>(what));
  }

  const uint8_t* position() const { return p_; }

  uint32_t field = 0;
  uint32_t type = 0;

 private:
  void expect(uint32_t want, const char* what) const {
    if (type != want)
      fail(std::string(what) + " has wire type " + std::to_string(type) + ", expected " + std::to_string(want));
  }

  static bool valid_utf8(std::string_view s) {
    size_t i = 0;
    while (i < s.size()) {
      const auto c = static_cast<unsigned char>(s[i]);
      size_t extra;
      uint32_t code;
      if (c < 0x80) {
        ++i;
        continue;
      } else if (c >= 0xc2 && c < 0xe0) {
        extra = 1, code = c & 0x1f;
      } else if (c >= 0xe0 && c < 0xf0) {
        extra = 2, code = c & 0x0f;
      } else if (c >= 0xf0 && c < 0xf5) {
        extra = 3, code = c & 0x07;
      } else {
        return false;
      }
      if (i + extra >= s.size()) return false;
      for (size_t k = 1; k <= extra; ++k) {
        const auto d = static_cast<unsigned char>(s[i + k]);
        if ((d & 0xc0) != 0x80) return false;
        code = code << 6 | (d & 0x3f);
      }
      if ((extra == 2 && code < 0x800) || (extra == 3 && (code < 0x10000 || code > 0x10ffff)) ||
          (code >= 0xd800 && code < 0xe000))
        return false;
      i += extra + 1;
    }
    return true;
  }

  const uint8_t* base_;
  const uint8_t* p_;
  const uint8_t* end_;
};

}  // namespace secateur
