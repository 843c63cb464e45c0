// The exceptions the engine throws on purpose. The Python module turns them into the classes of secateur.errors.
// Everything else that escapes (std::bad_alloc apart) is a bug of ours.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace secateur {

// A file is damaged, truncated or not of the format. `offset` is the byte where reading stopped, -1 when unknown.
class FormatError : public std::runtime_error {
 public:
  explicit FormatError(const std::string& message, int64_t offset = -1) : std::runtime_error(message), offset(offset) {}
  int64_t offset;
};

// A valid request that is not covered. The message names the node, what came and what is supported.
class UnsupportedError : public std::runtime_error {
 public:
  explicit UnsupportedError(const std::string& message, std::string node = {})
      : std::runtime_error(message), node(std::move(node)) {}
  std::string node;  // name of the graph node, may be empty
};

// A constant so large that no file of this size means it. Not one node's matter: who goes on without it meets the next.
class TooLargeError : public UnsupportedError {
 public:
  using UnsupportedError::UnsupportedError;
};

// The caller passed something wrong (input name, shape, dtype, thread count).
class UsageError : public std::runtime_error {
 public:
  explicit UsageError(const std::string& message) : std::runtime_error(message) {}
};

// The machine has not enough memory for what was asked.
class MemoryError : public std::runtime_error {
 public:
  explicit MemoryError(const std::string& message) : std::runtime_error(message) {}
};

}  // namespace secateur
