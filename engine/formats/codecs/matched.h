// Codec `matched`: each element predicted by what came before, in this tensor or an earlier one
// (formats/matched_coder.h).
#pragma once

#include "formats/matched_coder.h"
#include "formats/stream.h"

namespace secateur::sct::codecs {

struct Matched {
  static constexpr uint32_t kNumber = 6;
  static constexpr const char* kName = "matched";
  static constexpr bool kWhole = true;

  uint64_t back = 0;    // the tensor this many before, 0: none
  bool turned = false;  // it is read transposed
  MatchedPlan plan;

  template <class C>
  void code(TensorStream<C>& s) {
    const int64_t n = s.numel();
    const std::span<const uint8_t> before = header(s);
    const auto size = static_cast<size_t>(s.type.width / 8);
    const auto known = static_cast<int64_t>(before.size() / size);
    std::vector<uint64_t> x(static_cast<size_t>(known + n));
    const int64_t rows = turned ? n / plan.stride : 0;
    for (int64_t i = 0; i < known; ++i) {
      const int64_t from = turned ? i % plan.stride * rows + i / plan.stride : i;
      std::memcpy(&x[static_cast<size_t>(i)], before.data() + static_cast<size_t>(from) * size, size);
    }
    for (int64_t i = 0; i < n; ++i) x[static_cast<size_t>(known + i)] = s.get(i);
    MatchedCoder<C>(s.coder(), s.type, x, known, plan).run();
    for (int64_t i = 0; i < n; ++i) s.set(i, x[static_cast<size_t>(known + i)]);
  }

 private:
  // Returns the bytes of the earlier tensor.
  template <class C>
  std::span<const uint8_t> header(TensorStream<C>& s) {
    C& c = s.coder();
    back = s.small(back);
    plan.stride = static_cast<int64_t>(s.small(static_cast<uint64_t>(plan.stride)));
    plan.shift = s.trailing(plan.shift, s.type.is_float() ? s.type.mantissa() : 0);
    plan.smooth = c.bit(plan.smooth, 16384);
    const auto before = back == 0 ? std::span<const uint8_t>() : s.earlier(back);
    const auto size = static_cast<size_t>(s.type.width / 8);
    const auto known = static_cast<int64_t>(before.size() / size);
    if (before.size() % size != 0) s.damaged("it refers to a tensor of another width");
    if (plan.stride >= s.numel() || plan.stride > kStrideMax) s.damaged("its rows are too long");
    if (s.numel() > kMatchedMax - known) s.damaged("matched values on a tensor this large");
    turned = known == s.numel() && plan.stride > 0 && s.numel() % plan.stride == 0 && c.bit(turned, 16384);
    return before;
  }
};

}  // namespace secateur::sct::codecs
