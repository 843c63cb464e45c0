// Scaled dot-product attention in one step, fp32: for every batch entry b and head h
//
//   y[b][h] = softmax(scale * q[b][h] k[b][h']^T + mask[b][h]) v[b][h']        h' = h * kv_heads / heads
//
// q [rows][dim], k [keys][dim], v [keys][dim_v], y [rows][dim_v]: rows are contiguous, everything else goes by strides
// in elements, so that [batch, heads, rows, dim] and [batch, rows, heads, dim] are both read in place. The mask is
// added (float), or says which keys may be seen (bool); stride 0 repeats. causal: row i sees keys j <= i + past. A row
// that may see no key is 0.
//
// One task is one head: keys and values are copied once into scratch panels, then a few rows of scores at a time stay
// in L1 from the product over the softmax to the second product. Same bits for any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu.h"
#include "base/threads.h"

namespace secateur {

struct Attention {
  int64_t batch = 1, heads = 1, kv_heads = 1, rows = 1, keys = 1, dim = 1, dim_v = 1;
  struct Strides {
    int64_t batch = 0, head = 0, row = 0;
  } q, k, v, y, mask;
  int64_t mask_col = 0;
  bool mask_is_bool = false, causal = false;
  int64_t past = 0;
  float scale = 1.0f;
};

struct AttentionArgs {
  const float* q = nullptr;
  const float* k = nullptr;
  const float* v = nullptr;
  const void* mask = nullptr;  // null: none
  float* y = nullptr;
  void* scratch = nullptr;  // 64-byte aligned
  Threads* threads = nullptr;
};

struct AttentionKernel {
  Isa isa;
  const char* name;
  size_t (*scratch_bytes)(const Attention&, int threads);
  void (*run)(const Attention&, const AttentionArgs&);
};

const AttentionKernel& attention_kernel(Isa isa);  // the best row not above isa

}  // namespace secateur
