// Arrays that own what a run wrote: large outputs are computed where NumPy will hold them. A copy of 8 MB takes a
// millisecond, and memory fresh from the system twice that, a fault per page; so what an array lets go of is kept for
// the next run, one piece per output.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "formats/graph/types.h"
#include "plan/session.h"

namespace secateur {

// Smaller ones are copied: that is cheaper than an array with an owner.
inline constexpr size_t kOwnOutput = size_t{1} << 16;

class OutputPool {
 public:
  explicit OutputPool(size_t n_outputs) : spare_(n_outputs) {}

  Buffer take(size_t output, size_t nbytes) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      Buffer kept = std::move(spare_[output]);
      if (kept.size() == nbytes) return kept;
    }
    return Buffer(nbytes);
  }
  void give(size_t output, Buffer buffer) {
    const std::lock_guard<std::mutex> lock(mutex_);
    spare_[output] = std::move(buffer);
  }

 private:
  std::mutex mutex_;
  std::vector<Buffer> spare_;
};

// Memory on its way from the pool to an array's owner and back, whatever happens in between.
struct OwnedOutput {
  std::shared_ptr<OutputPool> pool;
  size_t output;
  Buffer buffer;
  ~OwnedOutput() { pool->give(output, std::move(buffer)); }
};

inline nanobind::dlpack::dtype dlpack_type(DType t) {
  using nanobind::dlpack::dtype_code;
  const auto bits = static_cast<uint8_t>(8 * dtype_size(t));
  const auto of = [&](dtype_code c) { return nanobind::dlpack::dtype{static_cast<uint8_t>(c), bits, 1}; };
  switch (t) {
    case DType::kFloat16:
    case DType::kFloat:
    case DType::kDouble:
      return of(dtype_code::Float);
    case DType::kBool:
      return of(dtype_code::Bool);
    case DType::kUInt8:
    case DType::kUInt16:
    case DType::kUInt32:
    case DType::kUInt64:
      return of(dtype_code::UInt);
    default:
      return of(dtype_code::Int);
  }
}

inline nanobind::object array_of(std::unique_ptr<OwnedOutput> owned, const Value& value) {
  void* data = owned->buffer.data();
  nanobind::capsule owner(owned.get(), [](void* p) noexcept { delete static_cast<OwnedOutput*>(p); });
  owned.release();
  const std::vector<size_t> shape(value.dims.begin(), value.dims.end());
  return nanobind::cast(
      nanobind::ndarray<nanobind::numpy>(data, shape.size(), shape.data(), owner, nullptr, dlpack_type(value.dtype)));
}

}  // namespace secateur
