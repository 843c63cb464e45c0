// ConvTranspose as an ordinary convolution, so that it has every kernel a convolution has, the sparse ones too. Cells
// of the result that lie a stride apart, its phases, are convolutions by every stride-th tap of the turned kernel: all
// of them are one convolution with as many times the channels, whose planes are then woven into the image. Where that
// does not fit (dilation, results beyond the windows) the input gets zeros between its cells, at stride^2 times the
// arithmetic.
#include <algorithm>
#include <climits>
#include <cstring>

#include "kernels/move/move.h"
#include "kernels/weave/weave.h"
#include "plan/lower/handlers.h"
#include "plan/lower/window.h"

namespace secateur {
namespace {

struct SpreadStep {
  Copy c;
  int64_t n;
  int x, y;
  void run(const Exec& e) const noexcept {
    const float zero = 0.0f;
    fill_ref(e.ptr[y], n, &zero, 4);
    copy_ref(c, e.ptr[x], e.ptr[y]);
  }
};

StepInfo named(const char* kernel) {
  StepInfo info;
  info.kernel = kernel;
  return info;
}

struct WeaveStep {
  void (*fn)(const Weave&, const float*, float*);
  Weave w;
  int x, y;
  void run(const Exec& e) const noexcept { fn(w, e.f32(x), e.f32_out(y)); }
};

// What the phases need to know; an axis of one cell where the image is 1-D.
struct Phases {
  int64_t stride[2] = {1, 1}, kernel[2] = {1, 1}, in[2] = {1, 1}, out[2] = {1, 1}, skip[2] = {0, 0};
  int64_t taps(int axis) const { return (kernel[axis] + stride[axis] - 1) / stride[axis]; }
  int64_t cells(int axis) const { return in[axis] + taps(axis) - 1; }  // of a phase
  int64_t count() const { return stride[0] * stride[1]; }
  bool fit() const {
    for (int a : {0, 1})
      if (skip[a] + out[a] > cells(a) * stride[a] || out[a] < 1) return false;
    return count() > 1 && count() <= 16;
  }
};

// weight [C, M/g, ...], bias [M] or -1, both constant.
void by_phases(Lowering& L, const Node& n, const Phases& p, int x, int w, int bias, int64_t groups) {
  const Dims xd = L.dims(x), wd = L.dims(w);
  const size_t rank = xd.size();
  const int64_t in_c = wd[0] / groups, out_c = wd[1], rows = p.taps(0), columns = p.taps(1), count = p.count();
  std::vector<float> parts(static_cast<size_t>(groups * out_c * count * in_c * rows * columns), 0.0f);
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t c = 0; c < in_c; ++c)
      for (int64_t o = 0; o < out_c; ++o)
        for (int64_t u = 0; u < p.kernel[0]; ++u)
          for (int64_t v = 0; v < p.kernel[1]; ++v) {
            const int64_t from = (((g * in_c + c) * out_c + o) * p.kernel[0] + u) * p.kernel[1] + v;
            const int64_t phase = u % p.stride[0] * p.stride[1] + v % p.stride[1];
            const int64_t row = rows - 1 - u / p.stride[0], column = columns - 1 - v / p.stride[1];
            const int64_t to = ((((g * out_c + o) * count + phase) * in_c + c) * rows + row) * columns + column;
            std::memcpy(&parts[static_cast<size_t>(to)], L.value(w).constant + from * 4, 4);
          }
  const Node anonymous;
  Dims part_dims{groups * out_c * count, in_c};
  if (rank == 4) part_dims.push_back(rows);
  part_dims.push_back(columns);
  const int kernel = L.constant(anonymous, 0, DType::kFloat, part_dims, parts.data());
  int biases = -1;
  if (bias >= 0) {
    std::vector<float> repeated(static_cast<size_t>(groups * out_c * count));
    for (size_t i = 0; i < repeated.size(); ++i)
      std::memcpy(&repeated[i], L.value(bias).constant + i / static_cast<size_t>(count) * 4, 4);
    biases = L.constant(anonymous, 0, DType::kFloat, {part_dims[0]}, repeated.data());
  }
  Node forward = n;
  forward.attrs.clear();
  forward.attrs["group"].value = groups;
  forward.attrs["pads"].value = rank == 4 ? std::vector<int64_t>{rows - 1, columns - 1, rows - 1, columns - 1}
                                          : std::vector<int64_t>{columns - 1, columns - 1};
  forward.post = from_layer(n.post);
  forward.outputs = {n.outputs[0] + "\nphases"};  // a name that no file's value has
  conv(L, forward, x, kernel, biases, -1);
  const int phases = L.find(forward.outputs[0]);
  Dims out{xd[0], groups * out_c};
  if (rank == 4) out.push_back(p.out[0]);
  out.push_back(p.out[1]);
  const int y = L.out(n, 0, DType::kFloat, out);
  Weave weave;
  weave.planes = xd[0] * groups * out_c;
  weave.in_h = static_cast<int>(p.cells(0)), weave.in_w = static_cast<int>(p.cells(1));
  weave.out_h = static_cast<int>(p.out[0]), weave.out_w = static_cast<int>(p.out[1]);
  weave.stride_h = static_cast<int>(p.stride[0]), weave.stride_w = static_cast<int>(p.stride[1]);
  weave.top = static_cast<int>(p.skip[0]), weave.left = static_cast<int>(p.skip[1]);
  L.emit(n, WeaveStep{weave_kernels(L.isa()).run, weave, phases, y}, {phases}, {y}, named("weave_f32"));
}

}  // namespace

void lower_conv_transpose(Lowering& L, const Node& n) {
  const int x = L.in_f32(n, 0), w = L.in_f32(n, 1);
  const int bias = L.has(n, 2) ? L.in_f32(n, 2) : -1;
  const Dims xd = L.dims(x), wd = L.dims(w);
  const size_t rank = xd.size(), spatial = rank - std::min<size_t>(rank, 2);
  if (spatial != 1 && spatial != 2)
    L.unsupported(n, "input " + dims_text(xd) + ", supported: rank 3 (1-D) and 4 (2-D)");
  const int64_t groups = attr_i(n, "group", 1);
  if (wd.size() != rank || groups < 1 || xd[1] == 0 || wd[0] != xd[1] || wd[0] % groups || wd[1] < 1 ||
      wd[1] > INT_MAX / groups)
    L.invalid(n, "weight " + dims_text(wd) + " with group " + std::to_string(groups) + " does not fit input " +
                     dims_text(xd));
  if (!L.value(w).constant) L.unsupported(n, "weights must be constant");
  if (L.is_empty(Dims(xd.begin() + 2, xd.end())) || L.value(w).numel() == 0)
    L.unsupported(n, "input " + dims_text(xd) + " or weight " + dims_text(wd) + " without elements");
  const auto list = [&](const char* name, size_t count, int64_t fallback, int64_t least) {
    const auto v = attr_is(n, name, std::vector<int64_t>(count, fallback));
    if (v.size() != count)
      L.invalid(n, std::string("attribute '") + name + "' has " + std::to_string(v.size()) + " values, expected " +
                       std::to_string(count));
    for (int64_t k : v)
      if (k < least || k > (1 << 24))
        L.invalid(n, std::string("attribute '") + name + "' has value " + std::to_string(k));
    return v;
  };
  const auto strides = list("strides", spatial, 1, 1), dilations = list("dilations", spatial, 1, 1),
             extra = list("output_padding", spatial, 0, 0),
             wanted = has_attr(n, "output_shape") ? list("output_shape", spatial, 0, 1) : Dims{};
  auto pads = list("pads", 2 * spatial, 0, 0);
  const std::string mode = attr_s(n, "auto_pad", "NOTSET");
  if (mode != "NOTSET" && mode != "VALID" && mode != "SAME_UPPER" && mode != "SAME_LOWER")
    L.invalid(n, "auto_pad '" + mode + "' is not known");
  const bool same = mode == "SAME_UPPER" || mode == "SAME_LOWER";
  Dims spread = xd;
  std::vector<int64_t> outer(2 * spatial), longer(spatial, 0);
  Dims widest{xd[0], xd[1]};
  for (size_t i = 0; i < spatial; ++i)
    widest.push_back(product({xd[i + 2], strides[i]}) + product({dilations[i], wd[i + 2]}) + extra[i] +
                     (wanted.empty() ? 0 : wanted[i]));
  L.check_size(n, widest);
  for (size_t i = 0; i < spatial; ++i) {
    const int64_t in = xd[i + 2], reach = dilations[i] * (wd[i + 2] - 1) + 1;
    if (in > (1 << 24) || wd[i + 2] > (1 << 24) || reach > (1 << 28) || in * strides[i] > (1 << 28))
      L.unsupported(n, "a size out of range");
    spread[i + 2] = (in - 1) * strides[i] + 1;
    const int64_t full = (in - 1) * strides[i] + reach + extra[i];
    if (!wanted.empty() || same) {
      const int64_t out = !wanted.empty() ? wanted[i] : in * strides[i];
      const int64_t total = std::max<int64_t>(0, full - out);
      longer[i] = std::max<int64_t>(0, out - full);  // asked for more than the windows cover: bias only
      pads[i] = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
      pads[i + spatial] = total - pads[i];
    } else if (mode == "VALID") {
      pads[i] = pads[i + spatial] = 0;
    }
    outer[i] = reach - 1 - pads[i];
    outer[i + spatial] = reach - 1 - pads[i + spatial] + extra[i] + longer[i];
    if (outer[i] < 0 || outer[i + spatial] < 0) L.unsupported(n, "more padding than the kernel reaches");
  }
  Phases phases;
  bool by_stride =
      (bias < 0 || (L.value(bias).constant && L.dims(bias) == Dims{product({groups, wd[1]})})) && !L.is_empty(xd);
  for (size_t i = 0; i < spatial; ++i) {
    const size_t a = i + 2 - spatial;
    phases.stride[a] = strides[i], phases.kernel[a] = wd[i + 2], phases.in[a] = xd[i + 2], phases.skip[a] = pads[i];
    phases.out[a] = spread[i + 2] + outer[i] + outer[i + spatial] - (wd[i + 2] - 1);
    by_stride = by_stride && dilations[i] == 1;
  }
  if (by_stride && phases.fit()) return by_phases(L, n, phases, x, w, bias, groups);
  // [C, M/g, ...] turned round in every spatial axis -> [M, C/g, ...]
  const int64_t in_c = wd[0] / groups, out_c = wd[1];
  int64_t cells = 1;
  for (size_t i = 2; i < rank; ++i) cells *= wd[i];
  std::vector<float> turned(static_cast<size_t>(L.value(w).numel()));
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t c = 0; c < in_c; ++c)
      for (int64_t o = 0; o < out_c; ++o)
        for (int64_t k = 0; k < cells; ++k) {
          const size_t from = static_cast<size_t>(((g * in_c + c) * out_c + o) * cells + cells - 1 - k);
          std::memcpy(&turned[static_cast<size_t>(((g * out_c + o) * in_c + c) * cells + k)],
                      L.value(w).constant + from * 4, 4);
        }
  Dims turned_dims = wd;
  turned_dims[0] = groups * out_c;
  turned_dims[1] = in_c;
  const Node anonymous;
  const int kernel = L.constant(anonymous, 0, DType::kFloat, turned_dims, turned.data());
  int source = x;
  if (spread != xd) {
    source = L.temp(DType::kFloat, spread);
    SpreadStep s{{}, L.value(source).numel(), x, source};
    s.c.rank = static_cast<int>(rank);
    int64_t run_x = 1, run_y = 1;
    for (size_t i = rank; i-- > 0; run_x *= xd[i], run_y *= spread[i]) {
      s.c.dims[i] = xd[i];
      s.c.stride_src[i] = run_x;
      s.c.stride_dst[i] = run_y * (i < 2 ? 1 : strides[i - 2]);
    }
    simplify(s.c);
    L.emit(n, s, {x}, {source}, named("spread"));
  }
  Node forward = n;
  forward.attrs.clear();
  forward.attrs["group"].value = groups;
  forward.attrs["pads"].value = outer;
  forward.attrs["dilations"].value = dilations;
  forward.post = from_layer(n.post);
  conv(L, forward, source, kernel, bias, -1);
}

}  // namespace secateur
