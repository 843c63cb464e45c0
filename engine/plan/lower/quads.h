// What the handlers of integer layers share.
#pragma once

#include "kernels/conv/conv.h"
#include "kernels/quads/quads.h"
#include "plan/lowering.h"

namespace secateur {

// A tensor as the kernels of quads.h see it in a layout.
QuadsShape quads_shape(const Dims& dims, ValueLayout layout);
// 128 for s8, whose bytes are held as u8.
inline uint8_t flip_of(DType t) { return t == DType::kInt8 ? 128 : 0; }
// Input i of n, whose zero point is s8 or u8; the pass that made n did not see the value's type.
int quantized_in(Lowering& L, const Node& n, size_t i, bool s8);
// The value in that layout: itself, or a copy made by a step.
int in_layout(Lowering& L, const Node& n, int id, ValueLayout layout);
// The layout the pass asked for the result of n (kPlain: none).
ValueLayout wanted_layout(const Lowering& L, const Node& n, const Dims& dims);
// A place for the result of n in `made`, and finish_quads() which copies it to a plain output where that was asked for.
int quads_out(Lowering& L, const Node& n, const Dims& dims, ValueLayout made);
void finish_quads(Lowering& L, const Node& n, int made);
// float32 copies of bytes, and back.
int dequantized(Lowering& L, const Node& n, int id, float scale, int64_t zero);
void quantized(Lowering& L, const Node& n, int f, int y, float scale, int64_t zero);

}  // namespace secateur
