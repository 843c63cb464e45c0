// A file's bytes that are read once: their pages go back to the system as soon as what they hold was copied out, so
// that a large model is not in memory twice while it loads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace secateur {

// While it lives, on this thread, ReadOnce::taken() may drop the pages of `bytes`: anonymous memory that nobody reads
// again.
class ReadOnce {
 public:
  explicit ReadOnce(std::span<const uint8_t> bytes);
  ~ReadOnce();
  ReadOnce(const ReadOnce&) = delete;
  ReadOnce& operator=(const ReadOnce&) = delete;

  // `n` bytes at `p` were copied; nothing happens when they are not of such memory.
  static void taken(const uint8_t* p, size_t n);
  // All of it was.
  static void done();

 private:
  std::span<const uint8_t> before_;
};

}  // namespace secateur
