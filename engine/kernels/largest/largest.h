// The k largest of n scores, exactly k of them: the selection of projections (top-k, rows, joint sets).
#pragma once

#include <cstdint>

namespace secateur {

// kept[i] = is score i among the k largest? Equal scores: the lower index stays. No NaN; -0 equals 0. 0 <= k <= n.
void keep_largest(int64_t n, const double* scores, int64_t k, bool* kept);

}  // namespace secateur
