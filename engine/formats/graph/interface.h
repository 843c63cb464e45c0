// The graph's opsets, inputs and outputs (docs/format.md, 5.2).
#pragma once

#include <unordered_set>

#include "formats/graph/stream.h"
#include "formats/graph/types.h"

namespace secateur::sct {

template <class C>
void code_opsets(GraphStream<C>& s, Graph& g) {
  const uint64_t n = s.count_of(g.opsets.size(), kMaxList, {kOpset});
  auto it = g.opsets.begin();
  for (uint64_t i = 0; i < n; ++i) {
    const std::string domain = s.text(C::kEncoding ? it->first : "", kDomain, 0, "");
    const uint64_t version =
        s.number(C::kEncoding ? static_cast<uint64_t>(it->second) : 0, {hash(kOpset, domain.empty())});
    if constexpr (C::kEncoding) ++it;
    else g.opsets[domain] = static_cast<int64_t>(version);
  }
}

// Inputs and outputs; those coded before help to predict.
template <class C>
class Interface {
 public:
  // `taken` gets every name that a decoder reads.
  Interface(GraphStream<C>& s, std::unordered_set<std::string>& taken) : s_(s), taken_(taken) {}

  void code(std::vector<ValueInfo>& list, Tag tag) {
    const uint64_t n = s_.count_of(list.size(), kMaxList, {hash(kCount, tag)});
    if constexpr (!C::kEncoding) list.reserve(n);
    std::string like;
    for (uint64_t i = 0; i < n; ++i) {
      if constexpr (!C::kEncoding) list.emplace_back();
      ValueInfo& v = list[i];
      v.name = s_.text(v.name, tag, tag, like);
      like = v.name;
      if constexpr (!C::kEncoding) taken_.insert(v.name);
      v.dtype = s_.dtype(v.dtype, tag);
      v.has_shape = s_.symbol(v.has_shape, 1, {hash(kHasShape, tag)});
      if (v.has_shape) shape(v.shape, tag);
    }
  }

 private:
  void shape(std::vector<Dim>& shape, Tag tag) {
    const uint64_t rank = s_.count_of(shape.size(), kMaxStoredRank, {hash(kRank, tag)});
    shape.resize(rank);
    for (uint64_t a = 0; a < rank; ++a) {
      Dim& d = shape[a];
      if (s_.symbol(d.size < 0, 1, {hash(kFree, tag, a), hash(kFree, tag, a, rank)})) {
        d.size = -1;
        d.symbol = s_.text(d.symbol, kSymbol, a, symbol_);
        symbol_ = d.symbol;
      } else {
        d.size = static_cast<int64_t>(
            s_.number(static_cast<uint64_t>(d.size), {hash(kSize, tag, a), hash(kSize, tag, a, size_)}));
        size_ = static_cast<uint64_t>(d.size);
      }
    }
  }

  GraphStream<C>& s_;
  std::unordered_set<std::string>& taken_;
  std::string symbol_;  // of the last free axis
  uint64_t size_ = 0;   // of the last fixed one
};

}  // namespace secateur::sct
