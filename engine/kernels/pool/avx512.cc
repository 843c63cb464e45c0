#include "simd/avx512.h"
#include "kernels/pool/generic.h"

namespace secateur {

void max_pool_avx512(const PoolArgs& a) {
  if (!pool<true>(a)) max_pool_ref(a);
}
void average_pool_avx512(const PoolArgs& a) {
  if (!pool<false>(a)) average_pool_ref(a);
}
void global_average_pool_avx512(const PoolArgs& a) { global_average(a); }

}  // namespace secateur
