// Memory with 64-byte alignment: what every buffer a kernel touches is made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

namespace secateur {

inline constexpr size_t kAlign = 64;

inline size_t align_up(size_t n, size_t a = kAlign) { return (n + a - 1) / a * a; }

// Owns `size` bytes at a 64-byte boundary, followed by `kSlack` more that a vector load may read (never write).
class Buffer {
 public:
  static constexpr size_t kSlack = 64;

  Buffer() = default;
  explicit Buffer(size_t size) : size_(size) {
    if (size == 0) return;
    data_ = static_cast<uint8_t*>(::operator new(align_up(size) + kSlack, std::align_val_t(kAlign)));
    // Slack and padding are defined, so that an over-read never feeds NaN into a lane. Large buffers come as fresh zero
    // pages from the system; touching them here would take the memory of a batch that is never run.
    const size_t clear = size <= (size_t{1} << 20) ? 0 : align_up(size) - kAlign;
    std::memset(data_ + clear, 0, align_up(size) + kSlack - clear);
  }
  Buffer(const Buffer& other) : Buffer(other.size_) {
    if (size_) std::memcpy(data_, other.data_, size_);
  }
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer() {
    if (data_) ::operator delete(data_, std::align_val_t(kAlign));
  }

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data_);
  }
  template <class T>
  const T* as() const {
    return reinterpret_cast<const T*>(data_);
  }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace secateur
