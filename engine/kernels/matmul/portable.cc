#include "simd/portable.h"
#include "kernels/matmul/generic.h"

namespace secateur {

size_t matmul_scratch_portable(const MatMul& p, int threads) { return matmul_scratch(p, threads); }
void matmul_portable(const MatMul& p, const MatMulArgs& args) { matmul(p, args); }

}  // namespace secateur
