// Resize, DepthToSpace, SpaceToDepth.
#include <algorithm>
#include <cmath>

#include "kernels/move/move.h"
#include "kernels/resize/resize.h"
#include "plan/lower/handlers.h"

namespace secateur {
namespace {

struct ResampleStep {
  Resample r;
  std::shared_ptr<const std::vector<int64_t>> index;
  std::shared_ptr<const std::vector<float>> weight;
  int x, y;
  void run(const Exec& e) const noexcept { resample_ref(r, e.f32(x), e.f32_out(y)); }
};

struct ResizeStep {
  void (*fn)(const ResizePlanes&, const float*, float*);
  ResizePlanes r;
  std::shared_ptr<const std::vector<int32_t>> rows;
  std::shared_ptr<const std::vector<uint32_t>> columns;
  std::shared_ptr<const std::vector<float>> row_weights, column_weights;
  int x, y;
  void run(const Exec& e) const noexcept { fn(r, e.f32(x), e.f32_out(y)); }
};

// What every place of an axis of the result is made of: [out][taps].
struct Taps {
  std::vector<int64_t> index;
  std::vector<float> weight;
};

struct CopyStep {
  Copy c;
  int x, y;
  void run(const Exec& e) const noexcept { copy_ref(c, e.ptr[x], e.ptr[y]); }
};

StepInfo named(const char* kernel) {
  StepInfo info;
  info.kernel = kernel;
  info.anywhere = true;
  return info;
}

// Where output j of an axis lies on the input's axis (ONNX Resize, coordinate_transformation_mode).
double coordinate(const std::string& mode, double j, double scale, int64_t in, int64_t out) {
  if (mode == "asymmetric") return j / scale;
  if (mode == "tf_half_pixel_for_nn") return (j + 0.5) / scale;
  if (mode == "align_corners") {  // of the size before it was rounded down
    const double last = scale * static_cast<double>(in) - 1;
    return last == 0 ? 0.0 : j * static_cast<double>(in - 1) / last;
  }
  if (mode == "pytorch_half_pixel") return out == 1 ? 0.0 : (j + 0.5) / scale - 0.5;
  if (mode == "half_pixel_symmetric") {
    // The grid is centred where the rounded size and the exact one differ.
    const double exact = scale * static_cast<double>(in),
                 offset = static_cast<double>(in) / 2 * (1 - static_cast<double>(out) / exact);
    return offset + (j + 0.5) / scale - 0.5;
  }
  return (j + 0.5) / scale - 0.5;  // half_pixel
}

int64_t nearest(const std::string& mode, double x) {
  if (mode == "floor") return static_cast<int64_t>(std::floor(x));
  if (mode == "ceil") return static_cast<int64_t>(std::ceil(x));
  if (mode == "round_prefer_ceil") return static_cast<int64_t>(std::floor(x + 0.5));
  return static_cast<int64_t>(std::ceil(x - 0.5));  // round_prefer_floor
}

// The last two axes of x, whose rank is 2 or more.
void resize_planes(Lowering& L, const Node& n, int x, const Dims& out, int taps, const Taps& rows,
                   const Taps& columns) {
  const Dims& xd = L.dims(x);
  const size_t rank = xd.size();
  ResizePlanes r;
  for (size_t i = 0; i + 2 < rank; ++i) r.planes *= xd[i];
  r.in_h = static_cast<int>(xd[rank - 2]), r.in_w = static_cast<int>(xd[rank - 1]);
  r.out_h = static_cast<int>(out[rank - 2]), r.out_w = static_cast<int>(out[rank - 1]);
  r.taps = taps;
  r.twice = taps == 1 && r.out_w == 2 * r.in_w;
  auto row_index = std::make_shared<std::vector<int32_t>>(rows.index.begin(), rows.index.end());
  auto column_index = std::make_shared<std::vector<uint32_t>>(columns.index.size());
  auto column_weights = std::make_shared<std::vector<float>>(columns.weight.size());
  const auto width = static_cast<size_t>(r.out_w), depth = static_cast<size_t>(taps);
  for (size_t j = 0; j < width; ++j)
    for (size_t t = 0; t < depth; ++t) {
      (*column_index)[t * width + j] = static_cast<uint32_t>(columns.index[j * depth + t]);
      (*column_weights)[t * width + j] = columns.weight[j * depth + t];
      r.twice = r.twice && columns.index[j * depth + t] == static_cast<int64_t>(j / 2);
    }
  auto row_weights = std::make_shared<std::vector<float>>(rows.weight);
  r.rows = row_index->data(), r.row_weights = row_weights->data();
  r.columns = column_index->data(), r.column_weights = column_weights->data();
  const int y = L.out(n, 0, DType::kFloat, out);
  StepInfo info = named(taps == 1 ? "resize_nearest_f32" : "resize_linear_f32");
  info.work = static_cast<double>(product({L.value(y).numel(), 2 * taps}));
  L.emit(n, ResizeStep{resize_kernels(L.isa()).planes, r, row_index, column_index, row_weights, column_weights, x, y},
         {x}, {y}, info);
}

}  // namespace

void lower_resize(Lowering& L, const Node& n) {
  const int x0 = L.in_f32(n, 0);
  const Dims xd = L.dims(x0);
  const auto rank = xd.size();
  const std::string mode = attr_s(n, "mode", "nearest"),
                    grid = attr_s(n, "coordinate_transformation_mode", "half_pixel"),
                    rounding = attr_s(n, "nearest_mode", "round_prefer_floor");
  if (mode != "nearest" && mode != "linear" && mode != "cubic") L.invalid(n, "mode '" + mode + "' is not known");
  if (attr_i(n, "antialias", 0) != 0) L.unsupported(n, "antialias");
  static const char* grids[] = {"half_pixel",         "asymmetric",           "align_corners",
                                "pytorch_half_pixel", "half_pixel_symmetric", "tf_half_pixel_for_nn"};
  if (std::find(std::begin(grids), std::end(grids), grid) == std::end(grids))
    L.unsupported(n, "coordinate_transformation_mode '" + grid + "'");
  static const char* roundings[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};
  if (std::find(std::begin(roundings), std::end(roundings), rounding) == std::end(roundings))
    L.invalid(n, "nearest_mode '" + rounding + "' is not known");
  std::vector<int64_t> axes = attr_is(n, "axes");
  if (axes.empty())
    for (size_t i = 0; i < rank; ++i) axes.push_back(static_cast<int64_t>(i));
  Dims out = xd;
  std::vector<double> scale(rank, 1.0);
  const auto scales = L.has(n, 2) ? L.numbers(L.in(n, 2)) : std::vector<double>{};
  if (!scales) L.unsupported(n, "input 2 ('" + n.inputs[2] + "') must be constant");
  if (!scales->empty()) {
    if (scales->size() != axes.size())
      L.invalid(n, std::to_string(scales->size()) + " scales for " + std::to_string(axes.size()) + " axes");
    for (size_t i = 0; i < axes.size(); ++i) {
      const auto a = static_cast<size_t>(normal_axis(L, n, axes[i], static_cast<int>(rank)));
      const double size = std::floor(static_cast<double>(xd[a]) * (*scales)[i]);
      if (!((*scales)[i] > 0) || !(size < 1e9)) L.invalid(n, "scale " + std::to_string((*scales)[i]));
      scale[a] = (*scales)[i];
      out[a] = static_cast<int64_t>(size);
    }
  } else {
    if (!L.has(n, 3)) L.invalid(n, "neither scales nor sizes");
    const auto sizes = L.need_ints(n, 3);
    if (sizes.size() != axes.size())
      L.invalid(n, std::to_string(sizes.size()) + " sizes for " + std::to_string(axes.size()) + " axes");
    const std::string policy = attr_s(n, "keep_aspect_ratio_policy", "stretch");
    if (policy != "stretch") L.unsupported(n, "keep_aspect_ratio_policy '" + policy + "'");
    for (size_t i = 0; i < axes.size(); ++i) {
      const auto a = static_cast<size_t>(normal_axis(L, n, axes[i], static_cast<int>(rank)));
      out[a] = sizes[i];
      if (sizes[i] == 0 && xd[a] == 0) continue;
      if (sizes[i] < 1 || sizes[i] > 1000000000 || xd[a] == 0) L.invalid(n, "size " + std::to_string(sizes[i]));
      scale[a] = static_cast<double>(sizes[i]) / static_cast<double>(xd[a]);
    }
  }
  if (L.is_empty(out)) {
    L.out(n, 0, DType::kFloat, out);
    return;
  }
  L.check_size(n, out);
  std::vector<size_t> todo;
  for (size_t a = 0; a < rank; ++a)
    if (out[a] != xd[a] || scale[a] != 1.0) todo.push_back(a);
  if (todo.empty()) return L.alias(n, 0, x0, xd);
  // Small axes first would do less work; last axis first keeps the long contiguous runs for the later, larger passes.
  std::reverse(todo.begin(), todo.end());
  const double cubic = attr_f(n, "cubic_coeff_a", -0.75f);
  const bool exclude = attr_i(n, "exclude_outside", 0) != 0, ceil_to_shrink = n.post.ceil_to_shrink;
  const int taps = mode == "nearest" ? 1 : mode == "linear" ? 2 : 4;
  const auto taps_of = [&](size_t a) {
    Taps found;
    for (int64_t j = 0; j < out[a]; ++j) {
      // Far outside (or not a number, of absurd scales) is the border.
      const double c = std::fmax(-16.0, std::fmin(coordinate(grid, static_cast<double>(j), scale[a], xd[a], out[a]),
                                                  static_cast<double>(xd[a]) + 16.0));
      double w[4] = {1, 0, 0, 0}, total = 0;
      int64_t first;
      if (taps == 1) {
        first = nearest(ceil_to_shrink && scale[a] < 1 ? "ceil" : rounding, c);
      } else {
        const double low = std::floor(c), f = c - low;
        first = static_cast<int64_t>(low) - (taps == 4);
        if (taps == 2) {
          w[0] = 1 - f, w[1] = f;
        } else {  // Keys' kernel
          const double d[4] = {f + 1, f, 1 - f, 2 - f};
          for (int t = 0; t < 4; ++t)
            w[t] = t == 1 || t == 2 ? ((cubic + 2) * d[t] - (cubic + 3)) * d[t] * d[t] + 1
                                    : ((d[t] - 5) * d[t] + 8) * d[t] * cubic - 4 * cubic;
        }
      }
      for (int t = 0; t < taps; ++t) {
        if (exclude && (first + t < 0 || first + t >= xd[a])) w[t] = 0;
        total += w[t];
      }
      for (int t = 0; t < taps; ++t) {
        found.index.push_back(std::clamp<int64_t>(first + t, 0, xd[a] - 1));
        found.weight.push_back(static_cast<float>(exclude && total != 0 ? w[t] / total : w[t]));
      }
    }
    return found;
  };
  for (size_t a : todo)
    if (out[a] > (int64_t{1} << 24)) L.unsupported(n, "an axis of " + std::to_string(out[a]));
  // Weights of a linear axis that stays would be 1 and 0, and 0 times infinity is not 0.
  if (rank >= 2 && todo.back() + 2 >= rank && (taps == 1 || (taps == 2 && todo.size() == 2))) {
    const auto last_two = [&](size_t a) {
      if (std::find(todo.begin(), todo.end(), a) != todo.end()) return taps_of(a);
      Taps same;
      for (int64_t j = 0; j < out[a]; ++j)
        for (int t = 0; t < taps; ++t) same.index.push_back(j), same.weight.push_back(t == 0 ? 1.0f : 0.0f);
      return same;
    };
    return resize_planes(L, n, x0, out, taps, last_two(rank - 2), last_two(rank - 1));
  }
  int x = x0;
  Dims now = xd;
  for (size_t a : todo) {
    Taps found = taps_of(a);
    auto index = std::make_shared<std::vector<int64_t>>(std::move(found.index));
    auto weight = std::make_shared<std::vector<float>>(std::move(found.weight));
    now[a] = out[a];
    const int y = a == todo.back() ? L.out(n, 0, DType::kFloat, now) : L.temp(DType::kFloat, now);
    ResampleStep s{{1, xd[a], out[a], 1, taps, index->data(), weight->data()}, index, weight, x, y};
    for (size_t i = 0; i < rank; ++i)
      if (i != a) (i < a ? s.r.outer : s.r.inner) *= now[i];
    StepInfo info = named("resample_f32_ref");
    info.work = static_cast<double>(product({L.value(y).numel(), taps}));
    L.emit(n, s, {x}, {y}, info);
    x = y;
  }
}

// DepthToSpace: [N, b, b, C, H, W] (DCR) or [N, C, b, b, H, W] (CRD) -> [N, C, H, b, W, b]; SpaceToDepth the other way.
void lower_depth_space(Lowering& L, const Node& n) {
  const int x = L.in(n, 0);
  const Dims d = L.dims(x);
  const int64_t b = attr_i(n, "blocksize", 0);
  const std::string mode = attr_s(n, "mode", "DCR");
  if (d.size() != 4) L.invalid(n, "input " + dims_text(d) + " is not of rank 4");
  if (b < 1 || b > 4096) L.invalid(n, "blocksize " + std::to_string(b));
  if (mode != "DCR" && mode != "CRD") L.invalid(n, "mode '" + mode + "' is not known");
  const bool to_space = n.op == "DepthToSpace";
  if (to_space ? d[1] % (b * b) != 0 : d[2] % b != 0 || d[3] % b != 0)
    L.invalid(n, "input " + dims_text(d) + " does not divide by blocks of " + std::to_string(b));
  // The small side: C channels of H x W cells; the large one C * b * b.
  const int64_t C = to_space ? d[1] / (b * b) : d[1], H = to_space ? d[2] : d[2] / b, W = to_space ? d[3] : d[3] / b;
  const bool blocks_first = mode == "DCR";
  Copy c;
  c.element = static_cast<int>(dtype_size(L.value(x).dtype));
  if (c.element == 0) L.unsupported(n, std::string("dtype ") + dtype_name(L.value(x).dtype));
  c.rank = 6;
  // Axes: n, c, h, i, w, j; pixel (h b + i, w b + j) of channel c.
  const int64_t dims[6] = {d[0], C, H, b, W, b};
  const int64_t plane = H * W;
  const int64_t deep[6] = {C * b * b * plane,
                           blocks_first ? plane : b * b * plane,
                           W,
                           (blocks_first ? b * C : b) * plane,
                           1,
                           (blocks_first ? C : 1) * plane};
  const int64_t wide[6] = {C * b * b * plane, b * b * plane, b * b * W, b * W, b, 1};
  for (int i = 0; i < 6; ++i) {
    c.dims[i] = dims[i];
    c.stride_src[i] = to_space ? deep[i] : wide[i];
    c.stride_dst[i] = to_space ? wide[i] : deep[i];
  }
  simplify(c);
  const Dims out = to_space ? Dims{d[0], C, H * b, W * b} : Dims{d[0], C * b * b, H, W};
  const int y = L.out(n, 0, L.value(x).dtype, out);
  L.emit(n, CopyStep{c, x, y}, {x}, {y}, named("copy"));
}

}  // namespace secateur
