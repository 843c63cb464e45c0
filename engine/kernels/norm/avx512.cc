#include "simd/avx512.h"
#include "kernels/norm/generic.h"

namespace secateur {

void layer_norm_avx512(const LayerNormArgs& args) { layer_norm(args); }
void group_norm_avx512(const GroupNormArgs& args) { group_norm(args); }

}  // namespace secateur
