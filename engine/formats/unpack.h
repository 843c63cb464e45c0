// Reading .sct (docs/format.md): trusts no byte, allocates by no unchecked length, runs nothing.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/pack.h"
#include "graph/graph.h"

namespace secateur {

inline constexpr uint64_t kUnpackLimit = uint64_t{1} << 31;  // bytes a file may decode to, unless told otherwise

// Does the file start like a .sct?
bool is_sct(std::span<const uint8_t> bytes);

// Levels of the net in a file, as the first bytes say, which are all that is looked at; 1 where it has none.
int levels(std::span<const uint8_t> bytes);

// Throws FormatError with the byte offset; of an exact file also what read_onnx() throws. UsageError: no such `level`,
// 0 (the loosest) to levels() - 1; tighter ones than that are not decoded.
Graph unpack(std::span<const uint8_t> bytes, uint64_t limit = kUnpackLimit, int level = 0);

// Where the bytes of a file are, whether or not its graph can be read; all levels are read. Throws FormatError.
std::vector<SectionInfo> sections(std::span<const uint8_t> bytes, uint64_t limit = kUnpackLimit);

// The model as an ONNX file: of an exact file the very bytes it was packed from.
std::string unpack_onnx(std::span<const uint8_t> bytes, uint64_t limit = kUnpackLimit, int level = 0);

}  // namespace secateur
