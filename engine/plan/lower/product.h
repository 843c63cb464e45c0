// Products of two values that are computed while running.
#pragma once

#include "kernels/matmul/matmul.h"
#include "plan/lowering.h"

namespace secateur {

// y = a * b; y is declared, [dims..., m, n].
void emit_matmul(Lowering& L, const Node& n, MatMul p, int a, int b, int y);

}  // namespace secateur
