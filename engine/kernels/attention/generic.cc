// Attention, once for all ISAs: compiled for every level of kernels/table.h.
#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/matmul/block.h"
#include "kernels/table.h"

namespace secateur {
namespace {

constexpr int kLanes = Vec::kLanes;
constexpr int64_t kTileRows = 2 * kBlockRows;
constexpr float kHidden = -std::numeric_limits<float>::infinity();

SECATEUR_INLINE int64_t panels(int64_t n) { return (n + kPanel - 1) / kPanel; }

// Floats: panels of k^T | panels of v | scores [kTileRows][keys rounded up] | one vector, see `soften`.
struct Layout {
  int64_t values, scores, pitch, behind, total;
};
SECATEUR_INLINE Layout layout(const Attention& p) {
  Layout l;
  l.values = panels(p.keys) * p.dim * kPanel;
  l.scores = l.values + panels(p.dim_v) * p.keys * kPanel;
  l.pitch = panels(p.keys) * kPanel;
  l.behind = l.scores + kTileRows * l.pitch;
  l.total = l.behind + kLanes;
  return l;
}

SECATEUR_INLINE size_t attention_scratch(const Attention& p, int threads) {
  return static_cast<size_t>(threads) * static_cast<size_t>(layout(p).total) * sizeof(float);
}

// score[0..keys) -> exp(score + mask - top); returns 1 / their sum, 0 when every key is hidden. `behind` is added to
// the last vector if keys end inside it: 0 before the end, -inf behind. Scores are whole vectors and never written one
// by one (as long as no mask of booleans asks for it): a load of a vector would wait for such stores.
SECATEUR_INLINE float soften(const Attention& p, const float* mask, const uint8_t* seen, int64_t visible,
                             const float* behind, float* score) {
  if (mask) {
    if (p.mask_col == 1) {
      for (int64_t j = 0; j < p.keys; j += kLanes) {
        const int left = p.keys - j < kLanes ? static_cast<int>(p.keys - j) : kLanes;
        (Vec::load(score + j) + Vec::load_range(mask + j, 0, left)).store(score + j);
      }
    } else {
      for (int64_t j = 0; j < p.keys; ++j) score[j] += *mask;
    }
  }
  if (seen)
    for (int64_t j = 0; j < p.keys; ++j)
      if (!seen[j * p.mask_col]) score[j] = kHidden;
  for (int64_t j = visible < 0 ? 0 : visible; j < p.keys; ++j) score[j] = kHidden;
  const int64_t last = (p.keys - 1) / kLanes * kLanes;
  const int left = static_cast<int>(p.keys - last);
  Vec top = Vec::load(score + last) + Vec::load(behind);
  for (int64_t j = 0; j < last; j += kLanes) top = max(top, Vec::load(score + j));
  const float highest = maximum(top);
  if (highest == kHidden) {
    for (int64_t j = 0; j <= last; j += kLanes) Vec::zero().store(score + j);
    return 0.0f;
  }
  const Vec shift = Vec::set1(highest);
  Vec total = Vec::zero();
  for (int64_t j = 0; j <= last; j += kLanes) {
    const Vec e = exp(Vec::load(score + j) - shift);
    e.store(score + j);
    total = total + (j < last ? e : Vec::load_range(score + j, 0, left));
  }
  return 1.0f / sum(total);
}

SECATEUR_INLINE void head(const Attention& p, const AttentionArgs& args, int64_t t, float* scratch) {
  const int64_t b = t / p.heads, h = t % p.heads, kv = h * p.kv_heads / p.heads;
  const Layout l = layout(p);
  const float* k = args.k + b * p.k.batch + kv * p.k.head;
  const float* v = args.v + b * p.v.batch + kv * p.v.head;
  for (int64_t i = 0; i < panels(p.keys); ++i) {
    const int n = static_cast<int>(p.keys - i * kPanel < kPanel ? p.keys - i * kPanel : kPanel);
    pack_panel(k + i * kPanel * p.k.row, 1, p.k.row, p.dim, n, scratch + i * p.dim * kPanel);
  }
  for (int64_t i = 0; i < panels(p.dim_v); ++i) {
    const int n = static_cast<int>(p.dim_v - i * kPanel < kPanel ? p.dim_v - i * kPanel : kPanel);
    pack_panel(v + i * kPanel, p.v.row, 1, p.keys, n, scratch + l.values + i * p.keys * kPanel);
  }
  float* score = scratch + l.scores;
  float* behind = scratch + l.behind;
  const int64_t left = (p.keys - 1) % kLanes + 1;
  for (int64_t j = 0; j < kLanes; ++j) behind[j] = j < left ? 0.0f : kHidden;
  for (int64_t row = 0; row < p.rows; row += kTileRows) {
    const int64_t m = p.rows - row < kTileRows ? p.rows - row : kTileRows;
    const float* q = args.q + b * p.q.batch + h * p.q.head + row * p.q.row;
    for (int64_t i = 0; i < panels(p.keys); ++i) {
      const int64_t n = p.keys - i * kPanel < kPanel ? p.keys - i * kPanel : kPanel;
      const int whole = static_cast<int>((n + kLanes - 1) / kLanes * kLanes);
      multiply_panel(q, p.q.row, 1, scratch + i * p.dim * kPanel, m, p.dim, p.scale, score + i * kPanel, l.pitch,
                     whole);
    }
    float inverse[kTileRows];
    for (int64_t i = 0; i < m; ++i) {
      const int64_t at = b * p.mask.batch + h * p.mask.head + (row + i) * p.mask.row;
      const float* mask = args.mask && !p.mask_is_bool ? static_cast<const float*>(args.mask) + at : nullptr;
      const uint8_t* seen = args.mask && p.mask_is_bool ? static_cast<const uint8_t*>(args.mask) + at : nullptr;
      inverse[i] = soften(p, mask, seen, p.causal ? row + i + p.past + 1 : p.keys, behind, score + i * l.pitch);
    }
    float* y = args.y + b * p.y.batch + h * p.y.head + row * p.y.row;
    for (int64_t i = 0; i < panels(p.dim_v); ++i) {
      const int n = static_cast<int>(p.dim_v - i * kPanel < kPanel ? p.dim_v - i * kPanel : kPanel);
      multiply_panel(score, l.pitch, 1, scratch + l.values + i * p.keys * kPanel, m, p.keys, 1.0f, y + i * kPanel,
                     p.y.row, n);
    }
    for (int64_t i = 0; i < m; ++i) {
      float* line = y + i * p.y.row;
      for (int64_t j = 0; j < p.dim_v; j += kLanes) {
        const int left = p.dim_v - j < kLanes ? static_cast<int>(p.dim_v - j) : kLanes;
        (Vec::load_range(line + j, 0, left) * Vec::set1(inverse[i])).store_first(line + j, left);
      }
    }
  }
}

SECATEUR_INLINE void attention(const Attention& p, const AttentionArgs& args) {
  const int64_t floats = layout(p).total;
  const auto task = [&](int64_t t, int worker) {
    head(p, args, t, static_cast<float*>(args.scratch) + worker * floats);
  };
  const double us = static_cast<double>(p.batch * p.heads) * static_cast<double>(p.rows * p.keys) *
                    static_cast<double>(p.dim + p.dim_v) / 50e3;
  if (args.threads && us > kSerialMicroseconds) {
    args.threads->parallel(p.batch * p.heads, task);
  } else {
    for (int64_t t = 0; t < p.batch * p.heads; ++t) task(t, 0);
  }
}

}  // namespace

namespace SECATEUR_LEVEL {
extern const AttentionKernel attention_row = {kIsa, "attention_f32_" SECATEUR_LEVEL_NAME, attention_scratch, attention};
}
}  // namespace secateur
