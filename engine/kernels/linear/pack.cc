// Turns an ONNX weight into what view.h describes, and runs it: tasks over groups or panels of output features.
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <vector>

#include "base/arena.h"
#include "kernels/linear/rows.h"
#include "kernels/linear/view.h"

namespace secateur {
namespace {

// From this many rows on, transposing pays (measured: one vector of rows costs what 5-6 single rows cost).
constexpr int64_t kManyRows = 6;

struct PackedRows : PackedLinear {
  LinearView view{};
  std::vector<float> bias;
  Buffer weights;
};

struct PackedSparse final : PackedRows {
  std::vector<int32_t> order;
  std::vector<LinearGroup> groups;
  Buffer columns, row_columns, row_weights;
  std::vector<int64_t> row_begin;
  std::vector<float> row_bias;

  size_t worker_bytes(int64_t rows) const {
    if (rows < kManyRows) return 0;
    const size_t tile = size_t{kLinearTileVectors} * kernel->vector_lanes;
    return align_up((static_cast<size_t>(shape.in) + kLinearTurn) * tile * sizeof(float));
  }
  size_t scratch_bytes(int64_t rows, int threads) const override { return worker_bytes(rows) * std::max(1, threads); }
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

}  // namespace

std::unique_ptr<PackedLinear> linear_sparse_pack(const LinearKernel& kernel, const LinearShape& s, const Epilogue& e,
                                                 const float* weights, const float* bias) {
  auto p = std::make_unique<PackedSparse>();
  start(p.get(), kernel, s, e, weights);
  std::vector<int32_t> count(s.out, 0);
  for (int o = 0; o < s.out; ++o) {
    const float* w = weights + int64_t{o} * s.in;
    count[o] = static_cast<int32_t>(s.in - std::count(w, w + s.in, 0.0f));
  }
  p->order.resize(s.out);
  std::iota(p->order.begin(), p->order.end(), 0);
  std::stable_sort(p->order.begin(), p->order.end(), [&](int a, int b) { return count[a] > count[b]; });

  // Feature by feature.
  p->row_columns = Buffer(static_cast<size_t>(p->nnz) * sizeof(uint32_t));
  p->row_weights = Buffer(static_cast<size_t>(p->nnz) * sizeof(float));
  uint32_t* row_columns = p->row_columns.as<uint32_t>();
  float* row_weights = p->row_weights.as<float>();
  p->row_begin.assign(1, 0);
  int64_t at = 0;
  for (int o = 0; o < s.out; ++o) {
    const float* w = weights + int64_t{o} * s.in;
    for (int i = 0; i < s.in; ++i)
      if (w[i] != 0) {
        row_columns[at] = static_cast<uint32_t>(i);
        row_weights[at++] = w[i];
      }
    p->row_begin.push_back(at);
  }

  // The same in groups of 8.
  const int n_groups = (s.out + kLinearGroup - 1) / kLinearGroup;
  const bool narrow = s.in <= 65536;
  p->weights = Buffer(static_cast<size_t>(p->nnz) * sizeof(float));
  p->columns = Buffer(static_cast<size_t>(p->nnz) * (narrow ? 2 : 4));
  p->bias.assign(static_cast<size_t>(n_groups) * kLinearGroup, 0.0f);
  float* w = p->weights.as<float>();
  at = 0;
  const auto put = [&](int64_t j) {
    w[at] = row_weights[j];
    if (narrow) {
      p->columns.as<uint16_t>()[at] = static_cast<uint16_t>(row_columns[j]);
    } else {
      p->columns.as<uint32_t>()[at] = row_columns[j];
    }
    ++at;
  };
  for (int g = 0; g < n_groups; ++g) {
    const int first = g * kLinearGroup, n = std::min(kLinearGroup, s.out - first);
    LinearGroup group{};
    group.begin = at;
    // A group that is not full has no common part: its members, the shortest of all, follow one another.
    group.common = n == kLinearGroup ? count[p->order[first + n - 1]] : 0;
    for (int k = 0; k < n; ++k) {
      group.tail[k] = count[p->order[first + k]] - group.common;
      group.has_tail |= group.tail[k] > 0;
    }
    for (int32_t j = 0; j < group.common; ++j)
      for (int k = 0; k < n; ++k) put(p->row_begin[p->order[first + k]] + j);
    for (int k = 0; k < n; ++k)
      for (int32_t j = group.common; j < group.common + group.tail[k]; ++j) put(p->row_begin[p->order[first + k]] + j);
    if (bias)
      for (int k = 0; k < n; ++k) p->bias[first + k] = bias[p->order[first + k]];
    p->groups.push_back(group);
  }

  LinearView& v = p->view;
  v.bias = p->bias.data();
  v.order = p->order.data();
  v.groups = p->groups.data();
  v.n_groups = n_groups;
  v.columns16 = narrow ? p->columns.as<uint16_t>() : nullptr;
  v.columns32 = narrow ? nullptr : p->columns.as<uint32_t>();
  v.weights = w;
  p->row_bias.assign(static_cast<size_t>(s.out), 0.0f);
  if (bias) std::copy_n(bias, s.out, p->row_bias.begin());
  v.row_bias = p->row_bias.data();
  v.row_begin = p->row_begin.data();
  v.row_columns = row_columns;
  v.row_weights = row_weights;
  p->packed_bytes = p->weights.size() + p->columns.size() + p->row_columns.size() + p->row_weights.size() +
                    p->groups.size() * sizeof(LinearGroup) + p->order.size() * 4 + p->bias.size() * 4;
  p->note = narrow ? "groups of 8, 16-bit columns" : "groups of 8, 32-bit columns";
  return p;
}

void linear_sparse_run(const PackedLinear& packed, const LinearArgs& args) {
  const auto& p = static_cast<const PackedSparse&>(packed);
  const bool many = args.rows >= kManyRows;
  run_units(p, args, p.view.n_groups, many ? p.kernel->many_task : p.kernel->task, p.worker_bytes(args.rows));
}

std::unique_ptr<PackedLinear> linear_block_pack(const LinearKernel& kernel, const LinearShape& s, const Epilogue& e,
                                                const float* weights, const float* bias) {
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
  std::snprintf(text, sizeof text, "%.3g %% of 16x1 blocks", at ? 100.0 * double(at) / (double(s.in) * p->n_blocks) : 0.0);
  p->note = text;
  return p;
}

void linear_block_run(const PackedLinear& packed, const LinearArgs& args) {
  const auto& p = static_cast<const PackedBlocks&>(packed);
  run_units(p, args, p.n_blocks, p.kernel->task, 0);
}

std::unique_ptr<PackedLinear> linear_dense_pack(const LinearKernel& kernel, const LinearShape& s, const Epilogue& e,
                                                const float* weights, const float* bias) {
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
