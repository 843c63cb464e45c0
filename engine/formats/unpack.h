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

// Throws FormatError with the byte offset. `sections`, when given, says where the bytes are.
Graph unpack(std::span<const uint8_t> bytes, uint64_t limit = kUnpackLimit, std::vector<SectionInfo>* sections = nullptr);

// The model as an ONNX file: of an exact file the very bytes it was packed from.
std::string unpack_onnx(std::span<const uint8_t> bytes, uint64_t limit = kUnpackLimit);

}  // namespace secateur
