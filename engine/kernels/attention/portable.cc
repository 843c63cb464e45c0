#include "simd/portable.h"
#include "kernels/attention/generic.h"

namespace secateur {

size_t attention_scratch_portable(const Attention& p, int threads) { return attention_scratch(p, threads); }
void attention_portable(const Attention& p, const AttentionArgs& args) { attention(p, args); }

}  // namespace secateur
