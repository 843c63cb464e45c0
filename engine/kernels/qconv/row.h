// A linear layer of one row, written once for all ISAs. Include after exactly one simd/int8_*.h.
//
// Lanes are outputs: a block is the weights of kLanes outputs for four inputs, its operand those four inputs in all
// lanes. Blocks of zeros are left out.
#pragma once

#include "kernels/qconv/panel.h"

namespace secateur {
namespace {

// Sums of one group of outputs.
SECATEUR_INLINE Q row_sums(const int32_t* x, const int32_t* quad, const int32_t* end, const int32_t* weights, Q bias) {
  const auto product = [&](Q sums, int i) {
    return dot_words(sums, expand(Q::set1(x[quad[i]])), Q::load(weights + i * Q::kLanes));
  };
  Q s[4] = {bias, Q::zero(), Q::zero(), Q::zero()};
  for (; end - quad >= 4; quad += 4, weights += 4 * Q::kLanes) {
    SECATEUR_UNROLL
    for (int i = 0; i < 4; ++i) s[i] = product(s[i], i);
  }
  for (; quad < end; ++quad, weights += Q::kLanes) s[0] = product(s[0], 0);
  return add(add(s[0], s[1]), add(s[2], s[3]));
}

inline void row_task(const QConvView& v, const QConvTask& t) {
  constexpr int kQuads = Q::kLanes / 4;
  const auto* x = reinterpret_cast<const int32_t*>(t.x);
  // A group belongs to the task of its first quad.
  for (int group = (t.quad_begin + kQuads - 1) / kQuads; group * kQuads < t.quad_end; ++group) {
    const int first = group * Q::kLanes, n_bytes = 4 * ((v.out_c + 3) / 4) - first, n = v.out_c - first;
    const int64_t begin = v.row_begin[group];
    const Q sums = row_sums(x, v.entries + begin, v.entries + v.row_begin[group + 1], v.weights + begin * Q::kLanes,
                            Q::load(v.bias + first));
    int32_t words[Q::kLanes];
    if (v.output == 0) {
      rescaled(sums, Q::load(v.scale + first)).store(words);
      auto* y = static_cast<uint8_t*>(t.y) + first;
      for (int i = 0; i < Q::kLanes && i < n_bytes; ++i) {
        const int q = words[i] + v.zero;
        y[i] = static_cast<uint8_t>(q < v.lo ? v.lo : q > v.hi ? v.hi : q);
      }
      continue;
    }
    sums.store(words);
    const bool floats = v.output >= kQF32Rows;
    for (int i = 0; i < Q::kLanes && i < n; ++i) {
      if (!floats) {
        static_cast<int32_t*>(t.y)[first + i] = words[i];
      } else {
        const float scaled = static_cast<float>(words[i]) * v.scale[first + i];
        static_cast<float*>(t.y)[first + i] = scaled + v.offset[first + i];
      }
    }
  }
}

}  // namespace
}  // namespace secateur
