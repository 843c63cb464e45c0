// Memory of large outputs: an array of NumPy owns it, and when that goes the next run gets it, whose pages the system
// need not clear again.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "plan/session.h"

namespace secateur {

class Results {
 public:
  // An array that `lease` computes output k into. Float32 only.
  nb::object lend(Session::Lease& lease, size_t k) {
    const Value& v = lease.output_value(k);
    auto held = std::make_unique<Held>(Held{shelf_, shelf_->take(v.nbytes())});
    void* bytes = held->buffer.data();
    // All of this happens under the GIL, and so does the end of an array.
    nb::capsule owner(held.get(), [](void* p) noexcept {
      const std::unique_ptr<Held> held(static_cast<Held*>(p));
      held->shelf->put(std::move(held->buffer));
    });
    held.release();
    const std::vector<size_t> shape(v.dims.begin(), v.dims.end());
    nb::object array = nb::cast(nb::ndarray<nb::numpy, float>(bytes, shape.size(), shape.data(), owner));
    lease.lend_output(k, bytes);
    return array;
  }

 private:
  struct Shelf {
    static constexpr size_t kMost = 4;
    std::vector<Buffer> buffers;  // the oldest first

    Buffer take(size_t nbytes) {
      for (size_t i = buffers.size(); i-- > 0;) {
        if (buffers[i].size() != nbytes) continue;
        Buffer found = std::move(buffers[i]);
        buffers.erase(buffers.begin() + static_cast<std::ptrdiff_t>(i));
        return found;
      }
      return Buffer(nbytes);
    }
    void put(Buffer buffer) noexcept {
      if (buffers.size() == kMost) buffers.erase(buffers.begin());
      buffers.push_back(std::move(buffer));
    }
    Shelf() { buffers.reserve(kMost); }
  };
  struct Held {
    std::shared_ptr<Shelf> shelf;
    Buffer buffer;
  };

  std::shared_ptr<Shelf> shelf_ = std::make_shared<Shelf>();
};

}  // namespace secateur
