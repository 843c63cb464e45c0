// The handlers named in operators.inc.
#pragma once

#include "kernels/epilogue.h"
#include "plan/lowering.h"

namespace secateur {

#define SECATEUR_OP(name, fn) void fn(Lowering& L, const Node& n);
#include "plan/lower/operators.inc"
#include "plan/lower/operators_microsoft.inc"
#undef SECATEUR_OP

void lower_quad_add(Lowering& L, const Node& n);
void lower_quad_average(Lowering& L, const Node& n);
void lower_quad_concat(Lowering& L, const Node& n);
void lower_quad_conv(Lowering& L, const Node& n);
void lower_quad_linear(Lowering& L, const Node& n);
void lower_quad_max_pool(Lowering& L, const Node& n);
void lower_quad_reshape(Lowering& L, const Node& n);
void lower_quad_table(Lowering& L, const Node& n);

// What passes fused into a node.
Activation fused_activation(const Node& n);
std::string epilogue_key(const Epilogue& e);  // part of a pack cache key
bool has_activation(const Activation& act);
// y = act(a + b), broadcasting; y already declared. x = y in place is fine for the activation.
int lower_add(Lowering& L, const Node& n, int a, int b, int y, const Activation& act);
void lower_activation(Lowering& L, const Node& n, int x, int y, const Activation& act);
Dims broadcast_dims(Lowering& L, const Node& n, int a, int b);

// Axis in [-rank, rank) -> [0, rank); anything else is a FormatError.
int64_t normal_axis(const Lowering& L, const Node& n, int64_t axis, int rank);

}  // namespace secateur
