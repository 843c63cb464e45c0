#include "plan/lower/window.h"

namespace secateur {

Window read_window(Lowering& L, const Node& n, const Dims& in, const Dims& kernel, bool ceil_mode) {
  Window w;
  const size_t d = in.size();
  constexpr int64_t kMax = 1 << 28;
  const auto list = [&](const char* name, size_t count, int64_t fallback, int64_t least) {
    const auto v = attr_is(n, name, std::vector<int64_t>(count, fallback));
    if (v.size() != count) L.invalid(n, std::string("attribute '") + name + "' has " + std::to_string(v.size()) + " values, expected " + std::to_string(count));
    for (int64_t x : v)
      if (x < least || x > kMax) L.invalid(n, std::string("attribute '") + name + "' has value " + std::to_string(x));
    return v;
  };
  if (kernel.size() != d) L.invalid(n, "kernel_shape has " + std::to_string(kernel.size()) + " values, expected " + std::to_string(d));
  for (int64_t k : kernel)
    if (k < 1 || k > kMax) L.invalid(n, "kernel size " + std::to_string(k));
  const auto strides = list("strides", d, 1, 1), dilations = list("dilations", d, 1, 1), pads = list("pads", 2 * d, 0, 0);
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
      L.invalid(n, "a window of " + std::to_string(reach) + " does not fit an input of " + std::to_string(in[i]) + " with padding " +
                       std::to_string(w.begin[j] + w.end[j]));
    w.out[j] = room / strides[i] + 1;
    if (ceil_mode && room % strides[i]) {
      ++w.out[j];
      // The last window must start inside the image or its leading padding.
      if ((w.out[j] - 1) * strides[i] >= in[i] + w.begin[j]) --w.out[j];
    }
  }
  return w;
}

}  // namespace secateur
