#include "simd/portable.h"
#include "kernels/norm/generic.h"

namespace secateur {

void layer_norm_portable(const LayerNormArgs& args) { layer_norm(args); }
void group_norm_portable(const GroupNormArgs& args) { group_norm(args); }

}  // namespace secateur
