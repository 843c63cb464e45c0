// Time of attention of every level on a BERT layer, a long sequence and one new token.
#include "base/arena.h"
#include "kernels/attention/attention.h"
#include "kernels/testing.h"

int main() {
  using namespace secateur;
  testing::Random rng(1);
  struct Shape {
    const char* name;
    int64_t heads, rows, keys, dim;
    bool causal;
  };
  for (const Shape& s :
       {Shape{"bert 12x128x64", 12, 128, 128, 64, false}, Shape{"causal 8x512x64", 8, 512, 512, 64, true},
        Shape{"one token 8x1x512x64", 8, 1, 512, 64, false}}) {
    Attention p;
    p.heads = p.kv_heads = s.heads, p.rows = s.rows, p.keys = s.keys, p.dim = p.dim_v = s.dim;
    p.scale = 0.125f, p.causal = s.causal;
    p.q = p.y = {s.heads * s.rows * s.dim, s.rows * s.dim, s.dim};
    p.k = p.v = {s.heads * s.keys * s.dim, s.keys * s.dim, s.dim};
    const int64_t n = s.heads * s.rows * s.dim, n_keys = s.heads * s.keys * s.dim;
    Buffer q(n * 4), k(n_keys * 4), v(n_keys * 4), y(n * 4);
    testing::fill_normal(q.as<float>(), n, rng);
    testing::fill_normal(k.as<float>(), n_keys, rng);
    testing::fill_normal(v.as<float>(), n_keys, rng);
    for (Isa isa : testing::benched_isas()) {
      const AttentionKernel& kernel = attention_kernel(isa);
      Buffer scratch(kernel.scratch_bytes(p, 1));
      AttentionArgs args;
      args.q = q.as<float>(), args.k = k.as<float>(), args.v = v.as<float>(), args.y = y.as<float>();
      args.scratch = scratch.data();
      testing::bench_line(s.name, isa, double(2 * n * s.keys), "MAC", [&] { kernel.run(p, args); });
    }
  }
}
