// Binary decisions predicted from several named contexts at once (docs/format.md, "Field models").
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "formats/models.h"

namespace secateur::sct {

inline constexpr int kMaxContexts = 8;

inline uint64_t hash(uint64_t a, uint64_t b) {
  const uint64_t x = (a ^ b) * 0x9E3779B97F4A7C15ull;
  return x ^ x >> 29;
}
template <class... T>
uint64_t hash(uint64_t a, uint64_t b, T... rest) {
  return hash(hash(a, b), static_cast<uint64_t>(rest)...);
}

// Bits by 64-bit name: open addressing, cheap to copy (every graph starts from a copy of the primed models).
class SlotTable {
 public:
  SlotTable() : slots_(1 << 10) {}
  void reserve(size_t more) {
    if (2 * (used_ + more) <= slots_.size()) return;
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& s : old)
      if (s.name != 0) at(s.name) = s;
  }
  // Valid until reserve() is called again.
  Bit* find(uint64_t name) {
    if (name == 0) name = 1;
    Slot& s = at(name);
    if (s.name == 0) s.name = name, ++used_;
    return &s.bit;
  }

 private:
  struct Slot {
    uint64_t name = 0;
    Bit bit;
  };
  Slot& at(uint64_t name) {
    size_t h = static_cast<size_t>(name) & (slots_.size() - 1);
    while (slots_[h].name != 0 && slots_[h].name != name) h = (h + 1) & (slots_.size() - 1);
    return slots_[h];
  }
  std::vector<Slot> slots_;
  size_t used_ = 0;
};

// Bits by name in a table of fixed size: names that fall together share a counter, and no input makes it grow.
class HashedTable {
 public:
  explicit HashedTable(int bits = 10) : slots_(size_t{1} << bits), shift_(64 - bits) {}
  void reserve(size_t) {}
  Bit* find(uint64_t name) { return &slots_[static_cast<size_t>(name >> shift_)]; }

 private:
  std::vector<Bit> slots_;
  int shift_;
};

// A bit predictor over named contexts.
template <class Table, int kContexts = kMaxContexts>
class Fields {
 public:
  explicit Fields(Table table = Table(), int64_t start = 22000) : slots_(std::move(table)) { weights_.fill(start); }

  template <class C>
  int code(C& c, int bit, const std::array<uint64_t, kContexts>& names, int count, int group) {
    std::array<Bit*, kContexts> slot;
    std::array<int, kContexts> vote;
    std::array<int64_t*, kContexts> weight;
    int64_t dot = 0;
    slots_.reserve(kContexts);
    for (int j = 0; j < count; ++j) {
      slot[j] = slots_.find(hash(names[j], static_cast<uint64_t>(j + 1)));
      vote[j] = slot[j]->n == 0 ? 0 : stretch(slot[j]->probability());
      weight[j] = &weights_[static_cast<size_t>((group * kContexts + j) * 8 + std::min<int>(slot[j]->n, 7))];
      dot += vote[j] * *weight[j];
    }
    const uint32_t p = squash(dot >> 16);
    bit = c.bit(bit, p);
    const int64_t error = (int64_t{bit} << 16) - p;
    for (int j = 0; j < count; ++j) {
      *weight[j] = std::clamp<int64_t>(*weight[j] + ((vote[j] * error * kRate) >> 14), -kMost, kMost);
      slot[j]->update(bit);
    }
    return bit;
  }

 private:
  static constexpr int kGroups = 4;
  static constexpr int64_t kMost = 4 << 16, kRate = 6;
  Table slots_;
  std::array<int64_t, kGroups * kContexts * 8> weights_;
};

using FieldModel = Fields<SlotTable>;

}  // namespace secateur::sct
