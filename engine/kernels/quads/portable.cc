#include "simd/int8_portable.h"
#include "kernels/quads/generic.h"

namespace secateur {

void quads_quantize_portable(const QuantizeArgs& a) { quantize_quads(a); }
void quads_dequantize_portable(const DequantizeArgs& a) { dequantize_quads(a); }
void quads_add_portable(const QAddArgs& a) { add_quads(a); }
void quads_max_pool_portable(const QPoolArgs& a) { max_pool_quads(a); }
void quads_quantize_run_portable(const RunArgs& a) { quantize_run(a); }
void quads_dequantize_run_portable(const RunArgs& a) { dequantize_run(a); }
void quads_range_portable(int64_t n, const float* x, float* lo, float* hi) { range_run(n, x, lo, hi); }
void quads_turn_portable(int64_t rows, int64_t words, const uint8_t* x, uint8_t* y) { turn_words(rows, words, x, y); }

}  // namespace secateur
