#include "simd/avx512.h"
#include "kernels/matmul/generic.h"

namespace secateur {

size_t matmul_scratch_avx512(const MatMul& p, int threads) { return matmul_scratch(p, threads); }
void matmul_avx512(const MatMul& p, const MatMulArgs& args) { matmul(p, args); }

}  // namespace secateur
