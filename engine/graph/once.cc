#include "graph/once.h"

#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace secateur {
namespace {

thread_local std::span<const uint8_t> current;

}  // namespace

ReadOnce::ReadOnce(std::span<const uint8_t> bytes) : before_(std::exchange(current, bytes)) {}
ReadOnce::~ReadOnce() { current = before_; }

void ReadOnce::taken(const uint8_t* p, size_t n) {
#if defined(__linux__)
  if (p < current.data() || p + n > current.data() + current.size()) return;
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  // Whole pages only: what lies beside them is still to be read.
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(p) + page - 1) / page * page,
                  end = reinterpret_cast<uintptr_t>(p + n) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
#else
  (void)p, (void)n;
#endif
}

void ReadOnce::done() { taken(current.data(), current.size()); }

}  // namespace secateur
