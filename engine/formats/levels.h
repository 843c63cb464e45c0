// Levels of one net: each told from the one before, of whose kept values it has some (docs/format.md, 8).
#pragma once

#include <array>
#include <bit>
#include <cstring>
#include <span>
#include <vector>

#include "base/error.h"
#include "formats/fields.h"
#include "formats/values.h"
#include "graph/graph.h"

namespace secateur::sct {

inline constexpr int kMostLevels = 16;
inline constexpr int kLevelsVersion = 4;

// How a tensor of a level differs from the same one of the level before.
enum class Change { kSame, kPart, kOther };

// One level's stream, for both directions; what is `kOther` follows behind it, as tensor streams.
template <class C>
class LevelStream {
 public:
  explicit LevelStream(C& c) : c_(c), fields_(HashedTable(kTableBits)) {}

  // The next tensor, with the values of the level before in `t`. The encoder tells what becomes of them, in `now`; the
  // decoder changes `t` to what it is at this level, but for an `other`.
  Change code(Tensor& t, std::span<const uint8_t> now) {
    Change change = Change::kSame;
    if constexpr (kEnc) change = compare(t, now);
    const uint64_t rank = t.dims.size();
    const bool same = decide(change == Change::kSame, {hash(1, previous_), hash(2, previous_, rank)}, 2);
    const bool part = !same && decide(change == Change::kPart, {hash(3, previous_), hash(4, previous_, rank)}, 2);
    change = same ? Change::kSame : part ? Change::kPart : Change::kOther;
    previous_ = static_cast<uint64_t>(change);
    ++tensor_;
    if (change != Change::kPart) return change;
    if (Pattern::of(t.dtype).exponent == 0) throw FormatError("damaged level: only floating values can be a part");
    supports(t, now);
    return change;
  }

 private:
  static constexpr bool kEnc = C::kEncoding;
  static constexpr int kTableBits = 18;
  static constexpr int64_t kFew = int64_t{1} << 20;  // kept values: of more only two contexts are asked

  bool decide(bool bit, std::array<uint64_t, kMaxContexts> names, int count) {
    return fields_.code(c_, bit, names, count, 1) != 0;
  }

  static Change compare(const Tensor& t, std::span<const uint8_t> now) {
    if (std::equal(now.begin(), now.end(), t.data.begin(), t.data.end())) return Change::kSame;
    if (Pattern::of(t.dtype).exponent == 0) return Change::kOther;
    const auto size = static_cast<int64_t>(dtype_size(t.dtype));
    for (int64_t i = 0; i < t.numel(); ++i) {
      const uint64_t x = pattern(now.data(), i, size);
      if (x != 0 && x != pattern(t.data.data(), i, size)) return Change::kOther;
    }
    return Change::kPart;
  }

  static uint64_t pattern(const uint8_t* data, int64_t i, int64_t size) {
    uint64_t x = 0;
    std::memcpy(&x, data + i * size, static_cast<size_t>(size));
    return x;
  }

  // Which of the kept values stay: 0 was not kept before, 1 goes, 2 stays.
  void supports(Tensor& t, std::span<const uint8_t> now) {
    const auto size = static_cast<int64_t>(dtype_size(t.dtype));
    const int64_t n = t.numel(), rows = t.dims.size() > 1 ? t.dims[0] : 1, stride = n / rows;
    int64_t taps = 1;
    for (size_t a = 2; a < t.dims.size(); ++a) taps *= t.dims[a];
    const Pattern type = Pattern::of(t.dtype);
    const int cut = type.width - 1 - type.exponent - 4;  // of a magnitude the exponent and four bits count
    const uint64_t unsigned_bits = (uint64_t{1} << (type.width - 1)) - 1;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; ++i) kept += pattern(t.data.data(), i, size) != 0;
    const int count = kept <= kFew ? kMaxContexts : 2;
    std::vector<uint8_t> state(static_cast<size_t>(n), 0);
    const auto at = [&](int64_t i) -> uint64_t { return i >= 0 ? state[static_cast<size_t>(i)] : 0; };
    uint64_t last = 0;
    [[maybe_unused]] uint64_t decided = 0;
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t x = pattern(t.data.data(), i, size);
      if (x == 0) continue;
      const uint64_t fine = (x & unsigned_bits) >> cut, rough = fine >> 2, up = at(i - stride), back = at(i - taps);
      const auto row = static_cast<uint64_t>(i / stride), col = static_cast<uint64_t>(i % stride);
      const uint64_t near = at(i - 1) | at(i - 2) << 2 | at(i - 3) << 4;
      const std::array<uint64_t, kMaxContexts> names = {
          hash(10, tensor_, fine), hash(11, rough, up),        hash(12, tensor_, row, last & 1),
          hash(13, tensor_, col),  hash(14, up, back, near),   hash(15, tensor_, rough, up, back),
          hash(16, tensor_, last), hash(17, tensor_, up, near)};
      const bool stays = fields_.code(c_, kEnc && pattern(now.data(), i, size) != 0, names, count, 0) != 0;
      last = (last << 1 | stays) & 15;
      state[static_cast<size_t>(i)] = stays ? 2 : 1;
      if constexpr (!kEnc) {
        if (!stays) std::memset(t.data.data() + i * size, 0, static_cast<size_t>(size));
        if ((++decided & 1023) == 0 && c_.exhausted()) throw FormatError("truncated: a level's stream ends early");
      }
    }
  }

  C& c_;
  Fields<HashedTable> fields_;
  uint64_t previous_ = 0, tensor_ = 0;
};

}  // namespace secateur::sct
