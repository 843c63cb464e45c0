// Dtype and dims of the graph's tensors, in the order of their streams (docs/format.md, 5.2).
#pragma once

#include <memory>
#include <unordered_set>

#include "formats/graph/stream.h"
#include "graph/graph.h"

namespace secateur::sct {

inline constexpr uint64_t kMaxStoredRank = 16;
inline constexpr uint64_t kMaxSize = uint64_t{1} << 40;  // one axis

template <class C>
class Types {
 public:
  // `taken` gets every name that a decoder reads.
  Types(GraphStream<C>& s, std::unordered_set<std::string>& taken) : s_(s), taken_(taken) {
    s_.models.last_name.clear();
  }

  // An initializer that input `slot` of operator `op` is the first to read.
  void initializer(Tensor& t, uint64_t op, uint64_t slot) {
    std::string& last = s_.models.last_name;
    t.name = s_.text(t.name, kInit, hash(op, slot), last);
    last = t.name;
    if constexpr (!C::kEncoding) taken_.insert(t.name);
    type(t, op, slot);
    order_.push_back(nullptr);
  }
  // Decoder: the same, of a tensor that it makes.
  Tensor& new_initializer(uint64_t op, uint64_t slot) {
    fresh_.push_back(std::make_unique<Tensor>());
    initializer(*fresh_.back(), op, slot);
    return *fresh_.back();
  }
  const std::vector<std::unique_ptr<Tensor>>& fresh() const { return fresh_; }

  void attribute(Tensor& t) {
    t.name.clear();
    type(t, 0, 1);
    order_.push_back(&t);
  }

  // Gives the graph what a decoder made, and lists all tensors in the order of their streams.
  void finish(Graph& g, std::vector<Tensor*>& tensors) {
    if constexpr (!C::kEncoding) {
      g.initializers.reserve(fresh_.size());
      for (auto& t : fresh_) g.initializers.push_back(std::move(*t));
    }
    size_t k = 0;
    for (Tensor* attribute : order_) tensors.push_back(attribute ? attribute : &g.initializers[k++]);
  }

 private:
  void type(Tensor& t, uint64_t op, uint64_t slot) {
    const uint64_t where = hash(kInit, op, slot);
    t.dtype = s_.dtype(t.dtype, where);
    const uint64_t rank = s_.count_of(t.dims.size(), kMaxStoredRank, {kRank, hash(kRank, where)});
    if constexpr (!C::kEncoding) t.dims.assign(rank, 0);
    uint64_t total = dtype_size(t.dtype);
    for (uint64_t a = 0; a < rank; ++a) {
      axis(t.dims, a, where);
      const auto size = static_cast<uint64_t>(t.dims[a]);
      if (size > kMaxSize) s_.damaged("an axis is too long");
      if (size != 0 && total > kMaxSize / size) s_.damaged("a tensor is too large");
      total *= size;
    }
    if (rank >= 2) last_rows_ = t.dims[0];
    last_dims_ = t.dims;
  }

  void axis(std::vector<int64_t>& dims, uint64_t a, uint64_t where) {
    const uint64_t rank = dims.size();
    // Sizes known from before: the last tensor's axis 0 and 1, the last matrix's axis 0, this tensor's previous axis.
    const int64_t known[4] = {last_dims_.empty() ? -1 : last_dims_[0], last_dims_.size() < 2 ? -1 : last_dims_[1],
                              last_rows_, a == 0 ? -1 : dims[a - 1]};
    uint64_t same = 0;
    if constexpr (C::kEncoding) {
      for (uint64_t j = 0; j < 4 && same == 0; ++j)
        if (known[j] == dims[a]) same = j + 1;
    }
    same = s_.symbol(same, 3, {hash(kSame, a, rank), hash(kSame, a, rank, where)});
    if (same > 4) s_.damaged("bad axis");
    if (same > 0) {
      dims[a] = known[same - 1];
      if (dims[a] < 0) s_.damaged("bad axis");
    } else {
      dims[a] = static_cast<int64_t>(
          s_.number(static_cast<uint64_t>(dims[a]), {hash(kDim, a, rank), hash(kDim, a, rank, where)}));
    }
  }

  GraphStream<C>& s_;
  std::unordered_set<std::string>& taken_;
  std::vector<std::unique_ptr<Tensor>> fresh_;  // decoded initializers (stable addresses)
  std::vector<Tensor*> order_;                  // of each tensor: the attribute's, nullptr for the next initializer
  std::vector<int64_t> last_dims_;
  int64_t last_rows_ = -1;
};

}  // namespace secateur::sct
