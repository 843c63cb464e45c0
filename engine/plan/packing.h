// Weights packed for kernels, and which constants a run still needs beside them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace secateur {

// Kept over the plans of a model for different input shapes. Key: the bytes' addresses and a kernel's own text.
using PackCache = std::unordered_map<std::string, std::shared_ptr<const void>>;

class Packing {
 public:
  explicit Packing(PackCache& cache) : cache_(cache) {}

  // make() packed for these constants. `shared`: their addresses say the same in the next plan, which is false of
  // constants that the plan itself computed; those are packed anew.
  template <class T, class F>
  std::shared_ptr<const T> get(std::string key, std::span<const uint8_t* const> constants, bool shared, F&& make) {
    for (const uint8_t* c : constants) {
      packed_.insert(c);
      key += "/" + std::to_string(reinterpret_cast<uintptr_t>(c));
    }
    if (shared)
      if (const auto it = cache_.find(key); it != cache_.end()) return std::static_pointer_cast<const T>(it->second);
    std::shared_ptr<const T> made = make();
    if (shared) cache_.emplace(std::move(key), made);
    return made;
  }
  void read_by_step(const uint8_t* constant) { read_.insert(constant); }
  // Whether a constant at this address was packed, and no step reads it: then a run does not need it.
  bool only_packed(const uint8_t* constant) const { return packed_.count(constant) && !read_.count(constant); }

 private:
  PackCache& cache_;
  std::unordered_set<const uint8_t*> packed_, read_;
};

}  // namespace secateur
