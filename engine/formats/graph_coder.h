// The graph's stream, written once for both directions (docs/format.md, "Graph stream").
//
// Every field is a few binary decisions; each decision is predicted from several contexts at once, and all models have
// read a few well-known networks before (prime.inc), so that a usual network costs a few dozen bytes.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "formats/fields.h"
#include "formats/values.h"
#include "graph/graph.h"

namespace secateur::sct {

inline constexpr uint64_t kMaxDecisions = uint64_t{1} << 26;  // binary decisions of one graph stream
inline constexpr size_t kMaxString = 1 << 16;
inline constexpr uint64_t kMaxRank = 16;
inline constexpr uint64_t kMaxList = 1 << 16;            // nodes' inputs, outputs, attribute lists
inline constexpr uint64_t kMaxSize = uint64_t{1} << 40;  // one axis

// What the models remember between graphs: the priming networks pass through one of these.
struct GraphModels {
  FieldModel fields;
  std::vector<std::string> ops, attrs;  // dictionaries, in order of first use
  std::string last_name;                // of an initializer
};

template <class C>
class GraphCoder {
 public:
  GraphCoder(C& c, GraphModels& models) : c_(c), m_(models) { m_.last_name.clear(); }

  // Encoding reads `g` (canonical: see canonical.h), decoding fills it. Tensors get name, dtype and dims, not data;
  // `tensors` lists them in the order of their streams.
  void run(Graph& g, std::vector<Tensor*>& tensors) {
    g.ir_version = static_cast<int64_t>(number(static_cast<uint64_t>(g.ir_version), {kIr}));
    opsets(g);
    values(g.inputs, kInput);
    values(g.outputs, kOutput);
    nodes(g);
    if constexpr (!kEnc) {
      g.initializers.reserve(fresh_.size());
      for (auto& t : fresh_) g.initializers.push_back(std::move(*t));
      name_values(g);
    }
    size_t k = 0;
    for (const Slot& s : order_) tensors.push_back(s.attribute ? s.attribute : &g.initializers[k++]);
  }

 private:
  static constexpr bool kEnc = C::kEncoding;
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
  struct Slot {
    Tensor* attribute;
  };

  [[noreturn]] static void damaged(const char* what) { throw FormatError(std::string("damaged graph: ") + what); }

  // ---- binary decisions
  // ----------------------------------------------------------------------------------------------
  int flag(int bit, const std::array<uint64_t, kMaxContexts>& names, int count, int group) {
    if (++decisions_ > kMaxDecisions) damaged("too long");
    return m_.fields.code(c_, bit, names, count, group);
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
    if constexpr (!kEnc) {
      if (c_.exhausted()) throw FormatError("truncated: the graph's stream ends early");
    }
    return x - 1;
  }
  uint64_t count_of(uint64_t value, uint64_t most, Names names) {
    value = number(value, names);
    if (value > most) damaged("a count is too large");
    return value;
  }
  int64_t whole(int64_t value, Names names) { return unzigzag(number(zigzag(value), names)); }

  // Text ends with a zero byte. `tag` says where the text stands, `like` is a text it may resemble.
  std::string text(const std::string& value, uint64_t kind, uint64_t tag, const std::string& like) {
    std::string out;
    std::array<uint64_t, kMaxContexts> at;
    uint64_t last[5] = {256, 256, 256, 256, 256};
    uint64_t whole = kind;
    size_t pointer = 0;
    uint64_t matched = 1;
    for (;;) {
      const uint64_t guess = pointer < like.size() ? static_cast<uint8_t>(like[pointer]) : 0;
      const std::array<uint64_t, kMaxContexts> names = {hash(kText, kind),
                                                        hash(kText, 1, last[0]),
                                                        hash(kText, 2, last[0], last[1]),
                                                        hash(kText, 3, last[0], last[1], last[2]),
                                                        hash(kText, 4, last[0], last[1], last[2], last[3], last[4]),
                                                        hash(kText, 5, tag, last[0], last[1]),
                                                        hash(kText, 6, guess, matched, tag),
                                                        hash(kText, 7, whole)};
      const unsigned want = kEnc && out.size() < value.size() ? static_cast<uint8_t>(value[out.size()]) : 0;
      uint64_t node = 1;
      for (int i = 7; i >= 0; --i) {
        for (int j = 0; j < kMaxContexts; ++j) at[j] = hash(names[j], node);
        node = 2 * node + static_cast<uint64_t>(flag(static_cast<int>(want >> i & 1), at, kMaxContexts, 2));
      }
      const uint64_t byte = node - 256;
      if (byte == 0) return out;
      out.push_back(static_cast<char>(byte));
      if (out.size() > kMaxString) damaged("a text is too long");
      if constexpr (!kEnc) {
        if (c_.exhausted()) throw FormatError("truncated: the graph's stream ends early");
      }
      if (byte == guess) {
        ++pointer;
      } else if (matched = 0; byte == '.' || byte == '_') {
        while (pointer < like.size() && like[pointer] != '.' && like[pointer] != '_') ++pointer;
        if (pointer < like.size()) ++pointer;
      } else if (guess != 0) {
        ++pointer;
      }
      for (int i = 4; i > 0; --i) last[i] = last[i - 1];
      last[0] = byte;
      whole = hash(whole, byte);
    }
  }

  // ---- parts of the graph
  // --------------------------------------------------------------------------------------------
  void opsets(Graph& g) {
    const uint64_t n = count_of(g.opsets.size(), kMaxList, {kOpset});
    auto it = g.opsets.begin();
    for (uint64_t i = 0; i < n; ++i) {
      const std::string domain = text(kEnc ? it->first : "", kDomain, 0, "");
      const auto version =
          static_cast<int64_t>(number(kEnc ? static_cast<uint64_t>(it->second) : 0, {hash(kOpset, domain.empty())}));
      if constexpr (kEnc) ++it;
      else g.opsets[domain] = version;
    }
  }

  DType dtype(DType t, uint64_t where) {
    const auto x = static_cast<DType>(symbol(static_cast<uint64_t>(t), 5, {kDtype, hash(kDtype, where)}));
    if (dtype_size(x) == 0) damaged("unknown data type");
    return x;
  }

  void values(std::vector<ValueInfo>& list, Tag tag) {
    const uint64_t n = count_of(list.size(), kMaxList, {hash(kCount, tag)});
    if constexpr (!kEnc) list.reserve(n);
    std::string like;
    for (uint64_t i = 0; i < n; ++i) {
      if constexpr (!kEnc) list.emplace_back();
      ValueInfo& v = list[i];
      v.name = text(v.name, tag, tag, like);
      like = v.name;
      if constexpr (!kEnc) remember_name(v.name);
      v.dtype = dtype(v.dtype, tag);
      v.has_shape = symbol(v.has_shape, 1, {hash(kHasShape, tag)});
      if (!v.has_shape) continue;
      const uint64_t rank = count_of(v.shape.size(), kMaxRank, {hash(kRank, tag)});
      v.shape.resize(rank);
      for (uint64_t a = 0; a < rank; ++a) {
        Dim& d = v.shape[a];
        if (symbol(d.size < 0, 1, {hash(kFree, tag, a), hash(kFree, tag, a, rank)})) {
          d.size = -1;
          d.symbol = text(d.symbol, kSymbol, a, symbol_);
          symbol_ = d.symbol;
        } else {
          d.size = static_cast<int64_t>(
              number(static_cast<uint64_t>(d.size), {hash(kSize, tag, a), hash(kSize, tag, a, last_size_)}));
          last_size_ = static_cast<uint64_t>(d.size);
        }
      }
    }
  }

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

  // The dims and type of a tensor at input `slot` of op `op`.
  void tensor_type(Tensor& t, uint64_t op, uint64_t slot) {
    const uint64_t where = hash(kInit, op, slot);
    t.dtype = dtype(t.dtype, where);
    const uint64_t rank = count_of(t.dims.size(), kMaxRank, {kRank, hash(kRank, where)});
    if constexpr (!kEnc) t.dims.assign(rank, 0);
    uint64_t total = dtype_size(t.dtype);
    for (uint64_t a = 0; a < rank; ++a) {
      // Sizes known from before: the last tensor's axis 0 and 1, the last matrix's axis 0, this tensor's previous axis.
      const int64_t known[4] = {last_dims_.empty() ? -1 : last_dims_[0], last_dims_.size() < 2 ? -1 : last_dims_[1],
                                last_rows_, a == 0 ? -1 : t.dims[a - 1]};
      uint64_t same = 0;
      if constexpr (kEnc) {
        for (uint64_t j = 0; j < 4 && same == 0; ++j)
          if (known[j] == t.dims[a]) same = j + 1;
      }
      same = symbol(same, 3, {hash(kSame, a, rank), hash(kSame, a, rank, where)});
      if (same > 4) damaged("bad axis");
      if (same > 0) {
        t.dims[a] = known[same - 1];
        if (t.dims[a] < 0) damaged("bad axis");
      } else {
        t.dims[a] = static_cast<int64_t>(
            number(static_cast<uint64_t>(t.dims[a]), {hash(kDim, a, rank), hash(kDim, a, rank, where)}));
      }
      if (static_cast<uint64_t>(t.dims[a]) > kMaxSize) damaged("an axis is too long");
      if (t.dims[a] != 0 && total > kMaxSize / static_cast<uint64_t>(t.dims[a])) damaged("a tensor is too large");
      total *= static_cast<uint64_t>(t.dims[a]);
    }
    if (rank >= 2) last_rows_ = t.dims[0];
    last_dims_ = t.dims;
  }

  void initializer(Tensor& t, uint64_t op, uint64_t slot) {
    t.name = text(t.name, kInit, hash(op, slot), m_.last_name);
    m_.last_name = t.name;
    if constexpr (!kEnc) remember_name(t.name);
    tensor_type(t, op, slot);
    order_.push_back({nullptr});
  }

  // What nodes may read, as they are walked.
  struct Known {
    std::unordered_map<std::string, uint64_t> activation;  // encoder: name -> number
    std::unordered_map<std::string, size_t> constant;      // encoder: name -> initializer
    std::unordered_map<std::string, uint64_t> result;      // encoder: graph outputs
    std::vector<std::string> activations;
    size_t used = 0;  // encoder: canonical order means initializers appear in order of first use
  };

  void nodes(Graph& g) {
    Known known;
    for (auto& v : g.inputs) known.activations.push_back(v.name);
    if constexpr (kEnc) {
      for (size_t i = 0; i < g.initializers.size(); ++i) known.constant[g.initializers[i].name] = i;
      for (size_t i = 0; i < known.activations.size(); ++i) known.activation[known.activations[i]] = i;
      for (size_t i = 0; i < g.outputs.size(); ++i) known.result.emplace(g.outputs[i].name, i);
    }
    uint64_t previous = 0, before = 0;
    for (size_t k = 0;; ++k) {
      const uint64_t op = operator_of(g, k, previous, before);
      if (op == 0) break;
      inputs_of(g, g.nodes[k], op, previous, known);
      outputs_of(g, k, op, previous, known);
      attributes(g.nodes[k], op);
      before = previous;
      previous = op;
    }
    // Initializers no node reads.
    const uint64_t extra = count_of(kEnc ? g.initializers.size() - known.used : 0, kMaxDecisions, {kExtra});
    for (uint64_t i = 0; i < extra; ++i) {
      if constexpr (kEnc) {
        initializer(g.initializers[known.used++], 0, 0);
      } else {
        fresh_.push_back(std::make_unique<Tensor>());
        initializer(*fresh_.back(), 0, 0);
      }
    }
  }

  // The operator of node k by its number, 0 behind the last node; a decoder adds the node.
  uint64_t operator_of(Graph& g, size_t k, uint64_t previous, uint64_t before) {
    std::string key;
    uint64_t op = 0;
    if constexpr (kEnc) {
      if (k < g.nodes.size()) {
        key = g.nodes[k].domain.empty() ? g.nodes[k].op : g.nodes[k].domain + ":" + g.nodes[k].op;
        op = find(m_.ops, key);
      }
    }
    op = word(op, m_.ops, key, kNewOp, {kOp, hash(kOp, previous), hash(kOp, previous, before)});
    if (op == 0) return 0;
    if (op == 1) op = find(m_.ops, key);
    if constexpr (!kEnc) {
      g.nodes.emplace_back();
      const size_t colon = key.rfind(':');
      g.nodes[k].op = colon == std::string::npos ? key : key.substr(colon + 1);
      g.nodes[k].domain = colon == std::string::npos ? "" : key.substr(0, colon);
      if (c_.exhausted()) throw FormatError("truncated: the graph's stream ends early");
    }
    return op;
  }

  void inputs_of(Graph& g, Node& node, uint64_t op, uint64_t previous, Known& known) {
    const uint64_t n_in = count_of(node.inputs.size(), kMaxList, {hash(kInputs, op)});
    if constexpr (!kEnc) node.inputs.reserve(std::min<uint64_t>(n_in, 64));
    for (uint64_t s = 0; s < n_in; ++s) {
      // 0 left out, 1 a new initializer, even 2 + 2 d: the activation d steps back, odd 3 + 2 d: initializer d back.
      uint64_t ref = 0;
      if constexpr (kEnc) {
        const std::string& name = node.inputs[s];
        if (auto a = known.activation.find(name); a != known.activation.end()) {
          ref = 2 + 2 * (known.activations.size() - 1 - a->second);
        } else if (auto i = known.constant.find(name); i != known.constant.end()) {
          ref = i->second >= known.used ? 1 : 3 + 2 * (known.used - 1 - i->second);
        }
      }
      ref = number(ref, {hash(kRef, s), hash(kRef, op, s), hash(kRef, op, s, previous)});
      if constexpr (kEnc) {
        if (ref == 1) initializer(g.initializers[known.used++], op, s);
      } else {
        node.inputs.push_back(name_of(ref, op, s, known));
      }
    }
  }

  // Decoder: what a reference means.
  std::string name_of(uint64_t ref, uint64_t op, uint64_t s, const Known& known) {
    if (ref == 0) return "";
    if (ref == 1) {
      fresh_.push_back(std::make_unique<Tensor>());
      initializer(*fresh_.back(), op, s);
      return fresh_.back()->name;
    }
    const uint64_t back = (ref - 2) / 2;
    const bool is_constant = ref & 1;
    if (back >= (is_constant ? fresh_.size() : known.activations.size())) damaged("a node reads what does not exist");
    return is_constant ? fresh_[fresh_.size() - 1 - back]->name
                       : known.activations[known.activations.size() - 1 - back];
  }

  void outputs_of(Graph& g, size_t k, uint64_t op, uint64_t previous, Known& known) {
    Node& node = g.nodes[k];
    const uint64_t n_out = count_of(node.outputs.size(), kMaxList, {hash(kOutputs, op)});
    for (uint64_t s = 0; s < n_out; ++s) {
      // 0 left out, 1 an inner value, 2 + j the graph's output j.
      uint64_t out = 0;
      if constexpr (kEnc) {
        if (auto r = known.result.find(node.outputs[s]); r != known.result.end()) out = 2 + r->second;
        else if (!node.outputs[s].empty()) out = 1;
      }
      out = number(out, {hash(kOut, s), hash(kOut, op, s), hash(kOut, op, previous)});
      if constexpr (kEnc) {
        if (out == 0) continue;
        known.activation[node.outputs[s]] = known.activations.size();
        known.activations.push_back(node.outputs[s]);
      } else {
        if (out >= 2 && out - 2 >= g.outputs.size()) damaged("unknown output");
        // Inner values get a provisional name no file can hold; name_values() replaces it.
        std::string name = out == 0   ? ""
                           : out == 1 ? std::string("\0", 1) + std::to_string(k) + (s ? "_" + std::to_string(s) : "")
                                      : g.outputs[out - 2].name;
        if (out > 0) known.activations.push_back(name);
        node.outputs.push_back(std::move(name));
      }
    }
  }

  void attributes(Node& node, uint64_t op) {
    auto it = node.attrs.begin();
    uint64_t previous = 0;
    for (;;) {
      std::string name;
      uint64_t id = 0;
      if constexpr (kEnc) {
        if (it != node.attrs.end()) {
          name = it->first;
          id = find(m_.attrs, name);
        }
      }
      id = word(id, m_.attrs, name, kNewAttr, {hash(kAttr, previous), hash(kAttr, op, previous)});
      if (id == 0) return;
      if (id == 1) id = find(m_.attrs, name);
      Attribute fresh;
      Attribute& a = kEnc ? it->second : fresh;
      attribute(a, hash(op, id), id);
      if constexpr (kEnc) {
        ++it;
      } else {
        if (!node.attrs.empty() && node.attrs.rbegin()->first >= name) damaged("attributes out of order");
        node.attrs.emplace(name, std::move(a));
      }
      previous = id;
    }
  }

  float real(float value, uint64_t where) {
    const uint32_t x = std::bit_cast<uint32_t>(value);
    uint32_t out = 0;
    for (uint64_t i = 0; i < 4; ++i) {
      out = out << 8 | static_cast<uint32_t>(
                           symbol(x >> (24 - 8 * i) & 255, 8, {hash(kFloat, i, out), hash(kFloat, where, i, out)}));
    }
    return std::bit_cast<float>(out);
  }

  void attribute(Attribute& a, uint64_t where, uint64_t id) {
    const uint64_t kind = symbol(a.value.index(), 3, {hash(kKind, id)});
    switch (kind) {
      case 0:
        a.value = std::monostate{};
        return;
      case 1:
        a.value = real(kEnc ? std::get<1>(a.value) : 0, where);
        return;
      case 2:
        a.value = whole(kEnc ? std::get<2>(a.value) : 0, {hash(kInt, id), hash(kInt, where)});
        return;
      case 3:
        a.value = text(kEnc ? std::get<3>(a.value) : "", kText, where, "");
        return;
      case 4: {
        if constexpr (!kEnc) a.value = std::make_shared<Tensor>();
        Tensor* t = std::get<4>(a.value).get();
        t->name.clear();
        tensor_type(*t, 0, 1);
        order_.push_back({t});
        return;
      }
      case 5:
        return list<5, float>(a, where, [&](float v, uint64_t, float) { return real(v, where); });
      case 6:
        return list<6, int64_t>(a, where, [&](int64_t v, uint64_t i, int64_t last) {
          return whole(v, {hash(kInt, id, zigzag(last)), hash(kInt, where, i), hash(kInt, where, i, zigzag(last))});
        });
      case 7:
        return list<7, std::string>(a, where, [&](const std::string& v, uint64_t, const std::string& last) {
          return text(v, kText, where, last);
        });
      default:
        damaged("unknown attribute kind");
    }
  }

  template <size_t kIndex, class T, class F>
  void list(Attribute& a, uint64_t where, F&& element) {
    if constexpr (!kEnc) a.value.template emplace<kIndex>();
    auto& values = std::get<kIndex>(a.value);
    const uint64_t n = count_of(values.size(), kMaxList, {hash(kList, where)});
    T last{};
    for (uint64_t i = 0; i < n; ++i) {
      T v = element(kEnc ? values[i] : T{}, i, last);
      if constexpr (!kEnc) values.push_back(v);
      last = std::move(v);
    }
  }

  // Inner values are called t<node>, further outputs t<node>_<i>, with "_" appended while the name is taken.
  void remember_name(const std::string& name) { taken_[name] = true; }
  void name_values(Graph& g) {
    std::unordered_map<std::string, std::string> renamed;
    const auto rename = [&](std::string& name) {
      if (name.empty() || name[0] != '\0') return;
      auto [it, is_new] = renamed.emplace(name, "");
      if (is_new) {
        std::string to = "t" + name.substr(1);
        while (taken_.count(to)) to += "_";
        taken_[to] = true;
        it->second = to;
      }
      name = it->second;
    };
    for (Node& node : g.nodes) {
      for (auto& name : node.inputs) rename(name);
      for (auto& name : node.outputs) rename(name);
    }
    name_nodes(g);
  }

  // A node is called as its first initializer up to the last dot, else <op>_<number>; the second node that would get a
  // name (two read one constant) gets it with _<number>, and "_" appended while that is taken: ONNX Runtime refuses
  // files in which two nodes have one name.
  void name_nodes(Graph& g) {
    std::unordered_set<std::string_view> constants;
    for (const Tensor& t : g.initializers) constants.insert(t.name);
    std::unordered_set<std::string> used;
    for (size_t k = 0; k < g.nodes.size(); ++k) {
      Node& node = g.nodes[k];
      const auto own = std::find_if(node.inputs.begin(), node.inputs.end(),
                                    [&](const auto& name) { return constants.count(name) > 0; });
      if (own != node.inputs.end()) node.name = own->substr(0, own->rfind('.'));
      if (node.name.empty()) node.name = node.op + "_" + std::to_string(k);
      if (used.count(node.name)) node.name += "_" + std::to_string(k);
      while (!used.insert(node.name).second) node.name += "_";
    }
  }

  C& c_;
  GraphModels& m_;
  std::vector<std::unique_ptr<Tensor>> fresh_;  // decoded initializers (stable addresses)
  std::vector<Slot> order_;
  std::unordered_map<std::string, bool> taken_;
  std::vector<int64_t> last_dims_;
  int64_t last_rows_ = -1;
  std::string symbol_;
  uint64_t last_size_ = 0;
  uint64_t decisions_ = 0;
};

}  // namespace secateur::sct
