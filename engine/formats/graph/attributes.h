// The attributes of a node (docs/format.md, 5.2).
#pragma once

#include "formats/graph/types.h"

namespace secateur::sct {

template <class C>
class Attributes {
 public:
  Attributes(GraphStream<C>& s, Types<C>& types) : s_(s), types_(types) {}

  // Those of a node of operator `op`, sorted by name.
  void code(Node& node, uint64_t op) {
    std::vector<std::string>& words = s_.models.attrs;
    auto it = node.attrs.begin();
    uint64_t previous = 0;
    for (;;) {
      std::string name;
      uint64_t id = 0;
      if constexpr (C::kEncoding) {
        if (it != node.attrs.end()) {
          name = it->first;
          id = s_.find(words, name);
        }
      }
      id = s_.word(id, words, name, kNewAttr, {hash(kAttr, previous), hash(kAttr, op, previous)});
      if (id == 0) return;
      if (id == 1) id = s_.find(words, name);
      Attribute fresh;
      Attribute& a = C::kEncoding ? it->second : fresh;
      attribute(a, hash(op, id), id);
      if constexpr (C::kEncoding) {
        ++it;
      } else {
        if (!node.attrs.empty() && node.attrs.rbegin()->first >= name) s_.damaged("attributes out of order");
        node.attrs.emplace(name, std::move(a));
      }
      previous = id;
    }
  }

 private:
  // The kinds are the alternatives of Attribute::value.
  void attribute(Attribute& a, uint64_t where, uint64_t id) {
    constexpr bool kEnc = C::kEncoding;
    const uint64_t kind = s_.symbol(a.value.index(), 3, {hash(kKind, id)});
    switch (kind) {
      case 0:
        a.value = std::monostate{};
        return;
      case 1:
        a.value = s_.real(kEnc ? std::get<1>(a.value) : 0, where);
        return;
      case 2:
        a.value = s_.whole(kEnc ? std::get<2>(a.value) : 0, {hash(kInt, id), hash(kInt, where)});
        return;
      case 3:
        a.value = s_.text(kEnc ? std::get<3>(a.value) : "", kText, where, "");
        return;
      case 4:
        if constexpr (!kEnc) a.value = std::make_shared<Tensor>();
        return types_.attribute(*std::get<4>(a.value));
      case 5:
        return list<5, float>(a, where, [&](float v, uint64_t, float) { return s_.real(v, where); });
      case 6:
        return list<6, int64_t>(a, where, [&](int64_t v, uint64_t i, int64_t last) {
          return s_.whole(v, {hash(kInt, id, zigzag(last)), hash(kInt, where, i), hash(kInt, where, i, zigzag(last))});
        });
      case 7:
        return list<7, std::string>(a, where, [&](const std::string& v, uint64_t, const std::string& last) {
          return s_.text(v, kText, where, last);
        });
      default:
        s_.damaged("unknown attribute kind");
    }
  }

  template <size_t kIndex, class T, class F>
  void list(Attribute& a, uint64_t where, F&& element) {
    if constexpr (!C::kEncoding) a.value.template emplace<kIndex>();
    auto& values = std::get<kIndex>(a.value);
    const uint64_t n = s_.count_of(values.size(), kMaxList, {hash(kList, where)});
    T last{};
    for (uint64_t i = 0; i < n; ++i) {
      T v = element(C::kEncoding ? values[i] : T{}, i, last);
      if constexpr (!C::kEncoding) values.push_back(v);
      last = std::move(v);
    }
  }

  GraphStream<C>& s_;
  Types<C>& types_;
};

}  // namespace secateur::sct
