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

// Throws FormatError with the byte offset; of an exact file also what read_onnx() throws.
Graph unpack(std::span<const uint8_t> bytes, uint64_t limit = kUnpackLimit);

// Where the bytes of a file are, whether or not its graph can be read. Throws FormatError.
std::vector<SectionInfo> sections(std::span<const uint8_t> bytes, uint64_t limit = kUnpackLimit);

// The model as an ONNX file: of an exact file the very bytes it was packed from.
std::string unpack_onnx(std::span<const uint8_t> bytes, uint64_t limit = kUnpackLimit);

}  // namespace secateur
