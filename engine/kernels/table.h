// Tables of kernels. An operator's generic.cc is compiled once for every level of the processor
// (engine/CMakeLists.txt): there SECATEUR_LEVEL is the level's name, which is the namespace of the symbols that leave
// the file. All else in it stays in an unnamed namespace, so that wide instructions cannot leak out.
//
// An operator with one row a level defines that row in generic.cc and in ref.cc,
//
//   namespace SECATEUR_LEVEL { extern const SoftmaxKernels softmax_row = {kIsa, softmax}; }
//
// and its choice in ref.cc: SECATEUR_TABLE(SECATEUR_WITH_REF, SoftmaxKernels, softmax_row, softmax_kernels). One with
// several rows a level lists them in its kernels.inc.
#pragma once

#include <cstddef>

#include "base/cpu.h"

namespace secateur {

namespace ref {
inline constexpr Isa kIsa = Isa::kRef;
}
namespace portable {
inline constexpr Isa kIsa = Isa::kPortable;
}
namespace avx2 {
inline constexpr Isa kIsa = Isa::kAvx2;
}
namespace avxvnni {
inline constexpr Isa kIsa = Isa::kAvxVnni;
}
namespace avx512 {
inline constexpr Isa kIsa = Isa::kAvx512;
}
namespace vnni {
inline constexpr Isa kIsa = Isa::kVnni;
}

// The last row not above `isa` of a table that ascends; the first where all are above.
template <class Row, size_t n>
constexpr const Row& best_row(const Row* const (&table)[n], Isa isa) {
  const Row* best = table[0];
  for (const Row* row : table)
    if (row->isa <= isa) best = row;
  return *best;
}

}  // namespace secateur

// X(level, ...) for every level of generic.cc, ascending; SECATEUR_WITH_REF: the plain loops before them.
#if defined(SECATEUR_X86)
#define SECATEUR_LEVELS(X, ...) X(portable, __VA_ARGS__) X(avx2, __VA_ARGS__) X(avx512, __VA_ARGS__)
#else
#define SECATEUR_LEVELS(X, ...) X(portable, __VA_ARGS__)
#endif
#define SECATEUR_WITH_REF(X, ...) X(ref, __VA_ARGS__) SECATEUR_LEVELS(X, __VA_ARGS__)

#define SECATEUR_DECLARE_ROW(level, Row, row) \
  namespace level {                           \
  extern const Row row;                       \
  }
#define SECATEUR_ADDRESS_OF_ROW(level, Row, row) &level::row,

// Defines `const Row& choose(Isa)`, the best row not above a level.
#define SECATEUR_TABLE(EACH, Row, row, choose)                                        \
  EACH(SECATEUR_DECLARE_ROW, Row, row)                                                \
  const Row& choose(Isa isa) {                                                        \
    static constexpr const Row* kTable[] = {EACH(SECATEUR_ADDRESS_OF_ROW, Row, row)}; \
    return best_row(kTable, isa);                                                     \
  }
