// Turns an ONNX weight into what view.h describes, and runs it: tasks over groups or panels of output features.
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "base/arena.h"
#include "kernels/linear/rows.h"
#include "kernels/linear/view.h"

namespace secateur {
namespace {

struct PackedRows : PackedLinear {
  LinearView view{};
  std::vector<float> bias;
  Buffer weights;
};

struct PackedSparse final : PackedRows {
  std::vector<int32_t> order;
  std::vector<LinearGroup> groups;
  Buffer columns;
  std::vector<uint8_t> member;
  std::vector<int32_t> count;
  std::vector<int64_t> unit_begin;
  bool many = false;  // packed for many rows

  size_t worker_bytes() const {
    if (!many) return 0;
    const size_t tile = static_cast<size_t>(linear_tile_vectors(kernel->vector_registers) * kernel->vector_lanes);
    return align_up((static_cast<size_t>(shape.in) + kLinearUnits * kLinearUnit) * tile * sizeof(float));
  }
  size_t scratch_bytes(int64_t, int threads) const override { return worker_bytes() * std::max(1, threads); }
};

struct PackedBlocks final : PackedRows {
  Buffer columns;
  std::vector<int64_t> begin;
  int n_blocks = 0;
  size_t scratch_bytes(int64_t, int) const override { return 0; }
};

struct PackedDense final : PackedRows {
  int panels = 0, panel = 0;
  size_t scratch_bytes(int64_t, int) const override { return 0; }
};

void start(PackedRows* p, const LinearKernel& kernel, const LinearShape& s, const Epilogue& e, const float* weights) {
  p->kernel = &kernel;
  p->shape = s;
  p->epilogue = e;
  p->density = measure_density(s, weights);
  p->nnz = p->density.nnz;
  p->view.in = s.in;
  p->view.out = s.out;
  p->view.lo = e.act.lo;
  p->view.hi = e.act.hi;
  p->view.slope = e.act.slope;
}

// Splits `units` of work over the threads, with every row of x in each task.
void run_units(const PackedRows& p, const LinearArgs& args, int units, void (*fn)(const LinearView&, const LinearTask&),
               size_t worker_bytes) {
  const int threads = args.threads ? args.threads->size() : 1;
  const double us = predict_linear_us(*p.kernel, p.shape, args.rows, p.density);
  const int64_t tasks = threads > 1 && us > kSerialMicroseconds ? std::min<int64_t>(units, threads) : 1;
  const auto task = [&](int64_t index, int worker) {
    LinearTask t;
    t.x = args.x;
    t.y = args.y;
    t.residual = p.epilogue.residual ? args.residual : nullptr;
    t.rows = args.rows;
    t.begin = static_cast<int32_t>(units * index / tasks);
    t.end = static_cast<int32_t>(units * (index + 1) / tasks);
    t.scratch = reinterpret_cast<float*>(static_cast<uint8_t*>(args.scratch) + worker * worker_bytes);
    fn(p.view, t);
  };
  if (tasks > 1) {
    args.threads->parallel(tasks, task);
  } else {
    task(0, 0);
  }
}

// For many rows: chunk by chunk of the inputs, unit by unit of the features.
void pack_features(PackedSparse& p, const float* weights, const float* bias, int64_t rows) {
  const LinearShape& s = p.shape;
  LinearView& v = p.view;
  v.chunk = linear_chunk(*p.kernel, s, rows, p.nnz);
  v.n_chunks = (s.in + v.chunk - 1) / v.chunk;
  v.n_units = (s.out + kLinearUnit - 1) / kLinearUnit;
  p.weights = Buffer(static_cast<size_t>(p.nnz) * sizeof(float));
  p.columns = Buffer(static_cast<size_t>(p.nnz) * sizeof(uint16_t));
  p.bias.assign(static_cast<size_t>(v.n_units) * kLinearUnit, 0.0f);
  if (bias) std::copy_n(bias, s.out, p.bias.begin());
  int64_t at = 0;
  for (int c = 0; c < v.n_chunks; ++c)
    for (int u = 0; u < v.n_units; ++u) {
      const int first = c * v.chunk, last = std::min(s.in, first + v.chunk);
      p.unit_begin.push_back(at);
      int32_t count[kLinearUnit] = {};
      for (int k = 0; k < kLinearUnit && u * kLinearUnit + k < s.out; ++k) {
        const float* w = weights + (int64_t{u} * kLinearUnit + k) * s.in;
        count[k] = static_cast<int32_t>(last - first - std::count(w + first, w + last, 0.0f));
      }
      uint8_t order[kLinearUnit];
      std::iota(order, order + kLinearUnit, uint8_t{0});
      std::stable_sort(order, order + kLinearUnit, [&](int a, int b) { return count[a] > count[b]; });
      for (const uint8_t k : order) {
        p.member.push_back(k);
        p.count.push_back(count[k]);
        if (count[k] == 0) continue;
        const float* w = weights + (int64_t{u} * kLinearUnit + k) * s.in;
        for (int i = first; i < last; ++i)
          if (w[i] != 0) {
            p.columns.as<uint16_t>()[at] = static_cast<uint16_t>(i - first);
            p.weights.as<float>()[at++] = w[i];
          }
      }
    }
  v.member = p.member.data();
  v.count = p.count.data();
  v.unit_begin = p.unit_begin.data();
}

// For few rows: in groups of 8 features of about as many nonzeros.
void pack_groups(PackedSparse& p, const std::vector<int32_t>& count, bool narrow, const float* weights,
                 const float* bias) {
  const LinearShape& s = p.shape;
  const int n_groups = (s.out + kLinearGroup - 1) / kLinearGroup;
  p.weights = Buffer(static_cast<size_t>(p.nnz) * sizeof(float));
  p.columns = Buffer(static_cast<size_t>(p.nnz) * (narrow ? sizeof(uint16_t) : sizeof(uint32_t)));
  p.bias.assign(static_cast<size_t>(n_groups) * kLinearGroup, 0.0f);
  int64_t at = 0;
  std::vector<int> columns[kLinearGroup];  // of the group's members
  for (int g = 0; g < n_groups; ++g) {
    const int32_t* member = p.order.data() + int64_t{g} * kLinearGroup;
    const int n = std::min(kLinearGroup, s.out - g * kLinearGroup);
    LinearGroup group{};
    group.begin = at;
    // A group that is not full has no common part: its members, the shortest of all, follow one another.
    group.common = n == kLinearGroup ? count[member[n - 1]] : 0;
    for (int k = 0; k < n; ++k) {
      group.tail[k] = count[member[k]] - group.common;
      group.has_tail |= group.tail[k] > 0;
      columns[k].clear();
      for (int i = 0; i < s.in; ++i)
        if (weights[int64_t{member[k]} * s.in + i] != 0) columns[k].push_back(i);
    }
    const auto put = [&](int k, int32_t j) {
      const int i = columns[k][static_cast<size_t>(j)];
      p.weights.as<float>()[at] = weights[int64_t{member[k]} * s.in + i];
      if (narrow) {
        p.columns.as<uint16_t>()[at] = static_cast<uint16_t>(i);
      } else {
        p.columns.as<uint32_t>()[at] = static_cast<uint32_t>(i);
      }
      ++at;
    };
    for (int32_t j = 0; j < group.common; ++j)
      for (int k = 0; k < n; ++k) put(k, j);
    for (int k = 0; k < n; ++k)
      for (int32_t j = group.common; j < count[member[k]]; ++j) put(k, j);
    if (bias)
      for (int k = 0; k < n; ++k) p.bias[static_cast<size_t>(g * kLinearGroup + k)] = bias[member[k]];
    p.groups.push_back(group);
  }
}

}  // namespace

std::unique_ptr<PackedLinear> linear_sparse_pack(const LinearKernel& kernel, const LinearShape& s, const Epilogue& e,
                                                 const float* weights, const float* bias, int64_t rows) {
  auto p = std::make_unique<PackedSparse>();
  start(p.get(), kernel, s, e, weights);
  p->many = rows >= kLinearManyRows;
  std::vector<int32_t> count(s.out, 0);
  for (int o = 0; o < s.out; ++o) {
    const float* w = weights + int64_t{o} * s.in;
    count[o] = static_cast<int32_t>(s.in - std::count(w, w + s.in, 0.0f));
  }
  p->order.resize(s.out);
  std::iota(p->order.begin(), p->order.end(), 0);
  std::stable_sort(p->order.begin(), p->order.end(), [&](int a, int b) { return count[a] > count[b]; });

  const bool narrow = p->many || s.in <= 65536;
  if (p->many) {
    pack_features(*p, weights, bias, rows);
  } else {
    pack_groups(*p, count, narrow, weights, bias);
  }
  LinearView& v = p->view;
  v.bias = p->bias.data();
  v.order = p->order.data();
  v.groups = p->groups.data();
  v.n_groups = (s.out + kLinearGroup - 1) / kLinearGroup;
  v.columns16 = narrow ? p->columns.as<uint16_t>() : nullptr;
  v.columns32 = narrow ? nullptr : p->columns.as<uint32_t>();
  v.weights = p->weights.as<float>();
  p->packed_bytes = p->weights.size() + p->columns.size() + p->groups.size() * sizeof(LinearGroup) +
                    p->order.size() * 4 + p->unit_begin.size() * 8 + p->count.size() * 5 + p->bias.size() * 4;
  p->note = p->many  ? std::to_string(v.n_chunks) + (v.n_chunks == 1 ? " chunk" : " chunks") + " of inputs"
            : narrow ? "groups of 8, 16-bit columns"
                     : "groups of 8, 32-bit columns";
  return p;
}

void linear_sparse_run(const PackedLinear& packed, const LinearArgs& args) {
  const auto& p = static_cast<const PackedSparse&>(packed);
  run_units(p, args, p.many ? p.view.n_units : p.view.n_groups, p.many ? p.kernel->many_task : p.kernel->task,
            p.worker_bytes());
}

std::unique_ptr<PackedLinear> linear_block_pack(const LinearKernel& kernel, const LinearShape& s, const Epilogue& e,
                                                const float* weights, const float* bias, int64_t) {
  auto p = std::make_unique<PackedBlocks>();
  start(p.get(), kernel, s, e, weights);
  p->n_blocks = (s.out + kLinearBlock - 1) / kLinearBlock;
  p->bias.assign(static_cast<size_t>(p->n_blocks) * kLinearBlock, 0.0f);
  if (bias) std::copy_n(bias, s.out, p->bias.begin());
  const bool narrow = s.in <= 65536;
  p->weights = Buffer(static_cast<size_t>(p->density.blocks) * kLinearBlock * sizeof(float));
  p->columns = Buffer(static_cast<size_t>(p->density.blocks) * (narrow ? sizeof(uint16_t) : sizeof(uint32_t)));
  float* to = p->weights.as<float>();
  int64_t at = 0;
  p->begin.push_back(0);
  for (int first = 0; first < s.out; first += kLinearBlock) {
    const int n = std::min(kLinearBlock, s.out - first);
    for (int i = 0; i < s.in; ++i) {
      float column[kLinearBlock] = {};
      bool any = false;
      for (int k = 0; k < n; ++k) {
        column[k] = weights[int64_t{first + k} * s.in + i];
        any |= column[k] != 0;
      }
      if (!any) continue;
      to = std::copy_n(column, kLinearBlock, to);
      if (narrow) {
        p->columns.as<uint16_t>()[at++] = static_cast<uint16_t>(i);
      } else {
        p->columns.as<uint32_t>()[at++] = static_cast<uint32_t>(i);
      }
    }
    p->begin.push_back(at);
  }
  LinearView& v = p->view;
  v.bias = p->bias.data();
  v.row_begin = p->begin.data();
  v.columns16 = narrow ? p->columns.as<uint16_t>() : nullptr;
  v.columns32 = narrow ? nullptr : p->columns.as<uint32_t>();
  v.weights = p->weights.as<float>();
  p->packed_bytes = p->weights.size() + p->columns.size() + p->begin.size() * 8 + p->bias.size() * 4;
  char text[64];
  std::snprintf(text, sizeof text, "%.3g %% of 16x1 blocks",
                at ? 100.0 * double(at) / (double(s.in) * p->n_blocks) : 0.0);
  p->note = text;
  return p;
}

void linear_block_run(const PackedLinear& packed, const LinearArgs& args) {
  const auto& p = static_cast<const PackedBlocks&>(packed);
  run_units(p, args, p.n_blocks, p.kernel->task, 0);
}

std::unique_ptr<PackedLinear> linear_dense_pack(const LinearKernel& kernel, const LinearShape& s, const Epilogue& e,
                                                const float* weights, const float* bias, int64_t) {
  auto p = std::make_unique<PackedDense>();
  start(p.get(), kernel, s, e, weights);
  const int lanes = kernel.vector_lanes;
  p->panel = lanes * (kernel.vector_registers == 32 ? kLinearVectors : kLinearVectorsSmall);
  p->panels = (s.out + p->panel - 1) / p->panel;
  p->bias.assign(static_cast<size_t>(p->panels) * p->panel, 0.0f);
  if (bias) std::copy_n(bias, s.out, p->bias.begin());
  const int last = (p->panels - 1) * p->panel, last_width = (s.out - last + lanes - 1) / lanes * lanes;
  p->weights = Buffer(static_cast<size_t>(last + last_width) * s.in * sizeof(float));
  float* to = p->weights.as<float>();
  for (int first = 0; first < s.out; first += p->panel) {
    const int width = first == last ? last_width : p->panel;
    for (int i = 0; i < s.in; ++i)
      for (int k = 0; k < width; ++k) *to++ = first + k < s.out ? weights[int64_t{first + k} * s.in + i] : 0.0f;
  }
  p->view.bias = p->bias.data();
  p->view.panels = p->weights.as<float>();
  p->packed_bytes = p->weights.size() + p->bias.size() * sizeof(float);
  char text[64];
  std::snprintf(text, sizeof text, "%d panels of %d", p->panels, p->panel);
  p->note = text;
  return p;
}

void linear_dense_run(const PackedLinear& packed, const LinearArgs& args) {
  const auto& p = static_cast<const PackedDense&>(packed);
  run_units(p, args, p.panels, p.kernel->task, 0);
}

}  // namespace secateur
