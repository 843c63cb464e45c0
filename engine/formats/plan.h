// How one tensor is written: where its values sit and how one is written. The two lists are the table of what a stream
// may hold (docs/format.md, 4.1); a name in a list is a row, and its file says the rest:
//   a layout   kNumber in the file, kName, kVersion (of the oldest format that has it), and
//              behind()                      may values lie behind the arithmetic stream (formats/behind.h)?
//              header(stream) -> Kept        codes its own numbers; throws FormatError
//              body(stream, kept, values)    codes where the kept elements are, values.code(i) each
//              find(seen) -> optional Found  where the writer tries it on tensors with zeros by itself: does it fit?
//   a codec    kNumber, kName, and where kWhole: code(stream) codes all elements, of the dense layout; else
//              refuses(dtype, behind)        nullptr, or why not
//              header(stream, kept), values(stream, kept, f)    calls f with what codes element i by code(i)
//              read_tail(stream, kept, bytes)                   where values lie behind; returns how many bytes
// All but find, refuses and read_tail go both ways (formats/stream.h).
#pragma once

#include <variant>

#include "formats/codecs/codebook.h"
#include "formats/codecs/fields.h"
#include "formats/codecs/grid.h"
#include "formats/codecs/ints.h"
#include "formats/codecs/matched.h"
#include "formats/codecs/raw.h"
#include "formats/codecs/same.h"
#include "formats/codecs/split.h"
#include "formats/layouts/blocks.h"
#include "formats/layouts/dense.h"
#include "formats/layouts/gaps.h"
#include "formats/layouts/nm.h"
#include "formats/layouts/sparse.h"

namespace secateur::sct {

// In the order in which the writer tries them: of equal ones the first is taken.
using Layout = std::variant<layouts::Dense, layouts::Sparse, layouts::Gaps, layouts::Blocks, layouts::Nm>;
using Codec = std::variant<codecs::Raw, codecs::Codebook, codecs::Grid, codecs::Fields, codecs::Ints, codecs::Split,
                           codecs::Matched, codecs::Same>;

struct Plan {
  Layout layout;
  Codec codec;
};

// ---- what a row says ----
template <class... Row>
uint32_t number_of(const std::variant<Row...>& v) {
  return std::visit([]<class R>(const R&) { return R::kNumber; }, v);
}
template <class... Row>
const char* name_of(const std::variant<Row...>& v) {
  return std::visit([]<class R>(const R&) { return R::kName; }, v);
}
inline int version_of(const Layout& layout) {
  return std::visit([]<class R>(const R&) { return R::kVersion; }, layout);
}
inline bool is_whole(const Codec& codec) {
  return std::visit([]<class R>(const R&) { return R::kWhole; }, codec);
}
inline bool may_lie_behind(const Layout& layout) {
  return std::visit([](const auto& row) { return row.behind(); }, layout);
}

// Sets `v` to the row of this number; false where there is none.
template <class... Row>
bool choose(std::variant<Row...>& v, uint32_t number) {
  return ((Row::kNumber == number && (v.template emplace<Row>(), true)) || ...);
}

}  // namespace secateur::sct
