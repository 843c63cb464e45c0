#include "plan/lower/window.h"

#include <climits>

namespace secateur {

Window read_window(Lowering& L, const Node& n, const Dims& in, const Dims& kernel, bool ceil_mode) {
  Window w;
  const size_t d = in.size();
  constexpr int64_t kMax = 1 << 28;
  const auto list = [&](const char* name, size_t count, int64_t fallback, int64_t least) {
    const auto v = attr_is(n, name, std::vector<int64_t>(count, fallback));
    if (v.size() != count)
      L.invalid(n, std::string("attribute '") + name + "' has " + std::to_string(v.size()) + " values, expected " +
                       std::to_string(count));
    for (int64_t x : v)
      if (x < least || x > kMax) L.invalid(n, std::string("attribute '") + name + "' has value " + std::to_string(x));
    return v;
  };
  if (kernel.size() != d)
    L.invalid(n, "kernel_shape has " + std::to_string(kernel.size()) + " values, expected " + std::to_string(d));
  for (int64_t k : kernel)
    if (k < 1 || k > kMax) L.invalid(n, "kernel size " + std::to_string(k));
  const auto strides = list("strides", d, 1, 1), dilations = list("dilations", d, 1, 1),
             pads = list("pads", 2 * d, 0, 0);
  const std::string mode = attr_s(n, "auto_pad", "NOTSET");
  if (mode != "NOTSET" && mode != "VALID" && mode != "SAME_UPPER" && mode != "SAME_LOWER")
    L.invalid(n, "auto_pad '" + mode + "' is not known");
  for (size_t i = 0; i < d; ++i) {
    const size_t j = 2 - d + i;
    if (in[i] > kMax) L.invalid(n, "input size " + std::to_string(in[i]));
    w.in[j] = in[i], w.kernel[j] = kernel[i], w.stride[j] = strides[i], w.dilation[j] = dilations[i];
    const int64_t reach = dilations[i] * (kernel[i] - 1) + 1;
    if (reach > kMax) L.invalid(n, "window of " + std::to_string(reach));
    if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
      const int64_t out = (in[i] + strides[i] - 1) / strides[i];
      const int64_t total = std::max<int64_t>(0, (out - 1) * strides[i] + reach - in[i]);
      w.begin[j] = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.end[j] = total - w.begin[j];
      w.out[j] = out;
      continue;
    }
    if (mode == "NOTSET") w.begin[j] = pads[i], w.end[j] = pads[i + d];
    const int64_t room = in[i] + w.begin[j] + w.end[j] - reach;
    if (room < 0)
      L.invalid(n, "a window of " + std::to_string(reach) + " does not fit an input of " + std::to_string(in[i]) +
                       " with padding " + std::to_string(w.begin[j] + w.end[j]));
    w.out[j] = room / strides[i] + 1;
    if (ceil_mode && room % strides[i]) {
      ++w.out[j];
      // The last window must start inside the image or its leading padding.
      if ((w.out[j] - 1) * strides[i] >= in[i] + w.begin[j]) --w.out[j];
    }
  }
  return w;
}

int to_int(Lowering& L, const Node& n, int64_t v) {
  if (v < 0 || v > INT_MAX / 4) L.invalid(n, "a size of " + std::to_string(v) + " is out of range");
  return static_cast<int>(v);
}

ConvShape read_conv_shape(Lowering& L, const Node& n, const Dims& x, const Dims& weight, int64_t padded) {
  if (x.size() != 3 && x.size() != 4)
    L.unsupported(n, "input " + dims_text(x) + ", supported: rank 3 (1-D) and 4 (2-D)");
  if (weight.size() != x.size()) L.invalid(n, "weight " + dims_text(weight) + " does not fit input " + dims_text(x));
  const int64_t groups = attr_i(n, "group", 1);
  if (groups < 1 || weight[0] % groups || weight[1] > INT_MAX / groups || weight[1] * groups != x[1] ||
      weight[0] == 0 || x[1] == 0)
    L.invalid(n, "weight " + dims_text(weight) + " with group " + std::to_string(groups) + " does not fit input " +
                     dims_text(x));
  const Dims kernel(weight.begin() + 2, weight.end());
  if (attr_is(n, "kernel_shape", kernel) != kernel)
    L.invalid(n, "kernel_shape does not agree with the weight " + dims_text(weight));
  const Window win = read_window(L, n, Dims(x.begin() + 2, x.end()), kernel, false);
  const Dims around{win.in[0] + win.begin[0] + win.end[0], win.in[1] + win.begin[1] + win.end[1]};
  int64_t per_cell = x[0];
  for (int64_t d : weight) per_cell = product({per_cell, d});
  L.check_size(n, {x[0], x[1], around[0], around[1]});
  L.check_size(n, {x[0], weight[0], win.out[0], win.out[1]},
               static_cast<double>(product({per_cell, win.out[0], win.out[1]})));
  ConvShape s;
  s.in_c = to_int(L, n, x[1]), s.out_c = to_int(L, n, weight[0]), s.groups = to_int(L, n, groups);
  s.in_h = to_int(L, n, win.in[0]), s.in_w = to_int(L, n, win.in[1]);
  s.kernel_h = to_int(L, n, win.kernel[0]), s.kernel_w = to_int(L, n, win.kernel[1]);
  s.stride_h = to_int(L, n, win.stride[0]), s.stride_w = to_int(L, n, win.stride[1]);
  s.dilation_h = to_int(L, n, win.dilation[0]), s.dilation_w = to_int(L, n, win.dilation[1]);
  s.pad_top = to_int(L, n, win.begin[0]), s.pad_left = to_int(L, n, win.begin[1]);
  s.pad_bottom = to_int(L, n, win.end[0]), s.pad_right = to_int(L, n, win.end[1]);
  const auto cells = [&](int64_t channels, int64_t h, int64_t w) {
    return static_cast<double>(channels + padded - 1) * static_cast<double>(h) * static_cast<double>(w);
  };
  if (cells(x[1], around[0], around[1]) > INT_MAX / 2 || cells(weight[0], win.out[0], win.out[1]) > INT_MAX / 2)
    L.unsupported(n, "an image of more than 2^30 values");
  return s;
}

}  // namespace secateur
