#include "simd/avx2.h"
#include "kernels/attention/generic.h"

namespace secateur {

size_t attention_scratch_avx2(const Attention& p, int threads) { return attention_scratch(p, threads); }
void attention_avx2(const Attention& p, const AttentionArgs& args) { attention(p, args); }

}  // namespace secateur
