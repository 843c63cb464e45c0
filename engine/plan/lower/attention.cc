// Attention (opset 23) and com.microsoft MultiHeadAttention: one kernel call each.
#include <cmath>

#include "kernels/attention/attention.h"
#include "plan/lower/handlers.h"

namespace secateur {
namespace {

struct AttentionStep {
  const AttentionKernel* kernel;
  Attention p;
  int q, k, v, mask, y, scratch;
  void run(const Exec& e) const noexcept {
    AttentionArgs args;
    args.q = e.f32(q);
    args.k = e.f32(k);
    args.v = e.f32(v);
    args.mask = mask < 0 ? nullptr : e.ptr[mask];
    args.y = e.f32_out(y);
    args.scratch = e.ptr[scratch];
    args.threads = e.threads;
    kernel->run(p, args);
  }
};

// [batch, heads, rows, dim] of an operand, however it is stored.
struct Operand {
  int64_t batch = 0, heads = 0, rows = 0, dim = 0;
  Attention::Strides strides;
};

// `rows_first`: [batch, rows, heads, dim]; else [batch, heads, rows, dim]. Rank 3 is [batch, rows, heads * dim].
Operand operand(Lowering& L, const Node& n, size_t i, int64_t heads, bool rows_first) {
  const Dims d = L.dims(L.in_f32(n, i));
  Operand o;
  if (d.size() == 3) {
    if (heads < 1 || d[2] % heads)
      L.invalid(n, "input " + dims_text(d) + " does not split into " + std::to_string(heads) + " heads");
    o = {d[0], heads, d[1], d[2] / heads, {}};
    rows_first = true;
  } else if (d.size() == 4) {
    o = rows_first ? Operand{d[0], d[2], d[1], d[3], {}} : Operand{d[0], d[1], d[2], d[3], {}};
  } else {
    L.unsupported(n, "input " + dims_text(d) + ", supported: rank 3 and 4");
  }
  o.strides.batch = o.heads * o.rows * o.dim;
  o.strides.head = rows_first ? o.dim : o.rows * o.dim;
  o.strides.row = rows_first ? o.heads * o.dim : o.dim;
  return o;
}

struct Request {
  int64_t heads = 0, kv_heads = 0;                                                              // for rank 3
  bool q_rows_first = false, k_rows_first = false, v_rows_first = false, y_rows_first = false;  // for rank 4
  int mask = -1;
  bool causal = false;
  float scale = 0.0f;  // 0: 1 / sqrt(dim)
};

void emit_attention(Lowering& L, const Node& n, const Request& r) {
  const Operand q = operand(L, n, 0, r.heads, r.q_rows_first), k = operand(L, n, 1, r.kv_heads, r.k_rows_first),
                v = operand(L, n, 2, r.kv_heads, r.v_rows_first);
  if (q.batch != k.batch || q.batch != v.batch || k.heads != v.heads || k.rows != v.rows || q.dim != k.dim ||
      (k.heads == 0 ? q.heads != 0 : q.heads % k.heads != 0))
    L.invalid(n, "shapes " + dims_text(L.dims(L.in(n, 0))) + ", " + dims_text(L.dims(L.in(n, 1))) + " and " +
                     dims_text(L.dims(L.in(n, 2))) + " do not attend");
  Attention p;
  p.batch = q.batch, p.heads = q.heads, p.kv_heads = k.heads, p.rows = q.rows, p.keys = k.rows, p.dim = q.dim,
  p.dim_v = v.dim;
  p.q = q.strides, p.k = k.strides, p.v = v.strides;
  p.causal = r.causal;
  p.scale = r.scale != 0.0f ? r.scale : 1.0f / std::sqrt(static_cast<float>(q.dim));
  if (r.mask >= 0) {
    const Value& m = L.value(r.mask);
    if (m.dtype != DType::kFloat && m.dtype != DType::kBool)
      L.unsupported(n, std::string("a mask of dtype ") + dtype_name(m.dtype) + ", supported: float32, bool");
    p.mask_is_bool = m.dtype == DType::kBool;
    const int64_t full[4] = {p.batch, p.heads, p.rows, p.keys};
    int64_t stride[4] = {}, run = 1;
    if (m.dims.size() > 4) L.invalid(n, "mask " + dims_text(m.dims));
    for (size_t i = m.dims.size(); i-- > 0;) {
      const size_t at = i + 4 - m.dims.size();
      if (m.dims[i] != 1 && m.dims[i] != full[at])
        L.unsupported(n, "mask " + dims_text(m.dims) + " does not broadcast to the scores");
      stride[at] = m.dims[i] == 1 ? 0 : run;
      run *= m.dims[i];
    }
    p.mask = {stride[0], stride[1], stride[2]};
    p.mask_col = stride[3];
  }
  const bool flat = L.rank(L.in(n, 0)) == 3, rows_first = flat || r.y_rows_first;
  const Dims out = flat         ? Dims{p.batch, p.rows, p.heads * p.dim_v}
                   : rows_first ? Dims{p.batch, p.rows, p.heads, p.dim_v}
                                : Dims{p.batch, p.heads, p.rows, p.dim_v};
  if (L.is_empty(out)) {
    L.out(n, 0, DType::kFloat, out);
    return;
  }
  if (p.keys == 0 || p.dim == 0) L.unsupported(n, "keys " + dims_text(L.dims(L.in(n, 1))) + " without elements");
  p.y.batch = p.heads * p.rows * p.dim_v;
  p.y.head = rows_first ? p.dim_v : p.rows * p.dim_v;
  p.y.row = rows_first ? p.heads * p.dim_v : p.dim_v;
  const AttentionKernel& kernel = attention_kernel(L.isa());
  const int y = L.out(n, 0, DType::kFloat, out);
  const int scratch = L.scratch(kernel.scratch_bytes(p, L.threads()));
  StepInfo info;
  info.kernel = kernel.name;
  info.why = "scores stay in cache";
  info.macs = product({p.batch, p.heads, p.rows, p.keys, p.dim + p.dim_v});
  const int iq = L.in(n, 0), ik = L.in(n, 1), iv = L.in(n, 2);
  L.emit(n, AttentionStep{&kernel, p, iq, ik, iv, r.mask, y, scratch}, {iq, ik, iv, r.mask, scratch}, {y, scratch},
         info);
}

void refuse_outputs(Lowering& L, const Node& n) {
  for (size_t i = 1; i < n.outputs.size(); ++i)
    if (!n.outputs[i].empty())
      L.unsupported(n, "output " + std::to_string(i) + " (keys, values or scores), supported: the first");
}

}  // namespace

// Attention(Q, K, V, mask). The pass that fuses the written-out form says with _rows_first, one letter per operand of
// q, k, v, y, which of them stand as [batch, rows, heads, dim].
void lower_attention(Lowering& L, const Node& n) {
  Request r;
  r.heads = attr_i(n, "q_num_heads", 0);
  r.kv_heads = attr_i(n, "kv_num_heads", 0);
  r.causal = attr_i(n, "is_causal", 0) != 0;
  r.scale = attr_f(n, "scale", 0.0f);
  const RowsFirst& first = n.post.rows_first;
  r.q_rows_first = first.q, r.k_rows_first = first.k, r.v_rows_first = first.v, r.y_rows_first = first.y;
  r.mask = L.in_or(n, 3);
  if (attr_f(n, "softcap", 0.0f) != 0.0f) L.unsupported(n, "softcap");
  if (has_attr(n, "left_window_size") || has_attr(n, "right_window_size")) L.unsupported(n, "a local window");
  if (L.has(n, 4) || L.has(n, 5) || L.has(n, 6)) L.unsupported(n, "past keys and values");
  refuse_outputs(L, n);
  emit_attention(L, n, r);
}

// com.microsoft MultiHeadAttention(query, key, value) on [batch, rows, hidden] without the packed and cached forms.
void lower_multi_head_attention(Lowering& L, const Node& n) {
  Request r;
  r.heads = r.kv_heads = attr_i(n, "num_heads", 0);
  r.scale = attr_f(n, "scale", 0.0f);
  r.causal = attr_i(n, "unidirectional", 0) != 0;
  if (!L.has(n, 1) || !L.has(n, 2) || L.rank(L.in(n, 0)) != 3 || L.rank(L.in(n, 1)) != 3 || L.rank(L.in(n, 2)) != 3)
    L.unsupported(n, "packed or cached keys and values, supported: query, key and value of rank 3");
  if (L.has(n, 3)) L.unsupported(n, "a bias");
  if (L.has(n, 4)) L.unsupported(n, "a key padding mask, supported: an additive one (input 5)");
  for (size_t i = 6; i < n.inputs.size(); ++i)
    if (L.has(n, i)) L.unsupported(n, "past keys and values");
  r.mask = L.in_or(n, 5);
  refuse_outputs(L, n);
  emit_attention(L, n, r);
}

}  // namespace secateur
