// Every row of the table this machine can run, against double: sizes around the tiles, both layouts, masks, grouped
// heads.
#include "kernels/attention/attention.h"

#include "base/arena.h"
#include "kernels/testing.h"

int main() {
  using namespace secateur;
  using testing::Guarded;
  const uint32_t seed = 20240618;
  std::printf("seed %u\n", seed);
  testing::Random rng(seed);
  int64_t n_checks = 0;
  for (Isa isa : available_isas())
    for (int round = 0; round < 300; ++round) {
      const int sizes[] = {1, 2, 5, 11, 12, 13, 16, 17, 31, 64, 65, 100};
      Attention p;
      p.batch = 1 + rng.below(2), p.kv_heads = 1 + rng.below(2), p.heads = p.kv_heads * (1 + rng.below(2));
      p.rows = sizes[rng.below(12)], p.keys = sizes[rng.below(12)], p.dim = sizes[rng.below(10)],
      p.dim_v = sizes[rng.below(11)];
      p.scale = 0.3f;
      p.past = p.keys > p.rows ? p.keys - p.rows : 0;
      p.causal = rng.below(3) == 0;
      const bool heads_first = rng.below(2) != 0;
      const auto strides = [&](int64_t heads, int64_t rows, int64_t dim) {
        return heads_first ? Attention::Strides{heads * rows * dim, rows * dim, dim}
                           : Attention::Strides{heads * rows * dim, dim, heads * dim};
      };
      p.q = strides(p.heads, p.rows, p.dim), p.k = strides(p.kv_heads, p.keys, p.dim);
      p.v = strides(p.kv_heads, p.keys, p.dim_v), p.y = strides(p.heads, p.rows, p.dim_v);
      const int kind = rng.below(4);  // 0, 1: no mask; 2: added; 3: bool
      int64_t n_mask = 1;
      if (rng.below(4)) p.mask_col = 1, n_mask = p.keys;
      if (rng.below(2)) p.mask.row = n_mask, n_mask *= p.rows;
      if (rng.below(2)) p.mask.head = n_mask, n_mask *= p.heads;
      if (rng.below(2)) p.mask.batch = n_mask, n_mask *= p.batch;
      p.mask_is_bool = kind == 3;
      Guarded q(p.batch * p.heads * p.rows * p.dim, 1), k(p.batch * p.kv_heads * p.keys * p.dim, 2),
          v(p.batch * p.kv_heads * p.keys * p.dim_v), y(p.batch * p.heads * p.rows * p.dim_v, 3, 7.0f), added(n_mask);
      std::vector<uint8_t> seen(static_cast<size_t>(n_mask));
      for (Guarded* g : {&q, &k, &v})
        for (int64_t i = 0; i < g->size(); ++i) (*g)[i] = rng.normal();
      for (int64_t i = 0; i < n_mask; ++i)
        added[i] = rng.below(3) ? rng.normal() : -1e4f, seen[static_cast<size_t>(i)] = rng.below(3) != 0;
      const AttentionKernel& kernel = attention_kernel(isa);
      Threads pool(2);
      Buffer scratch(kernel.scratch_bytes(p, 2));
      AttentionArgs args;
      args.q = q.data(), args.k = k.data(), args.v = v.data(), args.y = y.data(), args.scratch = scratch.data(),
      args.threads = &pool;
      args.mask = kind < 2 ? nullptr : kind == 2 ? static_cast<const void*>(added.data()) : seen.data();
      kernel.run(p, args);
      ++n_checks;
      bool ok = y.intact();
      for (int64_t b = 0; b < p.batch; ++b)
        for (int64_t h = 0; h < p.heads; ++h)
          for (int64_t i = 0; i < p.rows; ++i) {
            const int64_t kv = h * p.kv_heads / p.heads;
            std::vector<double> score(static_cast<size_t>(p.keys));
            double top = -1e300, sum = 0, size = 0;
            bool any = false;
            for (int64_t j = 0; j < p.keys; ++j) {
              double s = 0, terms = 0;
              for (int64_t d = 0; d < p.dim; ++d) {
                const double t = double(q[b * p.q.batch + h * p.q.head + i * p.q.row + d]) *
                                 k[b * p.k.batch + kv * p.k.head + j * p.k.row + d];
                s += t, terms += std::fabs(t);
              }
              size = std::max(size, terms * p.scale);
              s *= p.scale;
              const int64_t at = b * p.mask.batch + h * p.mask.head + i * p.mask.row + j * p.mask_col;
              if (kind == 2) s += added[at], size = std::max(size, std::fabs(double(added[at])));
              const bool visible = (kind != 3 || seen[static_cast<size_t>(at)]) && (!p.causal || j <= i + p.past);
              score[j] = visible ? s : -INFINITY;
              any = any || visible;
              top = std::max(top, score[j]);
            }
            for (double& s : score) sum += s = any ? std::exp(s - top) : 0;
            for (int64_t d = 0; d < p.dim_v; ++d) {
              double want = 0, terms = 0;
              for (int64_t j = 0; j < p.keys; ++j) {
                const double t = !any ? 0 : score[j] / sum * v[b * p.v.batch + kv * p.v.head + j * p.v.row + d];
                want += t, terms += std::fabs(t);
              }
              // A score that is wrong by e makes its term wrong by a factor 1 + 2 e; sums add one rounding a term.
              const double tolerance = terms * (2 * size * double(p.dim + 4) + double(p.keys) + 16) * 0x1p-24 + 1e-30;
              ok &= std::fabs(y[b * p.y.batch + h * p.y.head + i * p.y.row + d] - want) <= tolerance;
            }
          }
      char name[160];
      std::snprintf(name, sizeof name, "%s heads %d/%d rows %d keys %d dim %d dim_v %d mask %d causal %d", kernel.name,
                    int(p.heads), int(p.kv_heads), int(p.rows), int(p.keys), int(p.dim), int(p.dim_v), kind, p.causal);
      testing::check(ok, name);
    }
  return testing::finish("attention", n_checks);
}
