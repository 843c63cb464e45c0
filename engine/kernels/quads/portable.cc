#include "simd/int8_portable.h"
#include "kernels/quads/generic.h"

namespace secateur {

void quads_quantize_portable(const QuantizeArgs& a) { quantize_quads(a); }
void quads_dequantize_portable(const DequantizeArgs& a) { dequantize_quads(a); }
void quads_add_portable(const QAddArgs& a) { add_quads(a); }
void quads_max_pool_portable(const QPoolArgs& a) { max_pool_quads(a); }

}  // namespace secateur
