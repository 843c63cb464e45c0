#include "kernels/reduce/reduce.h"

#include <algorithm>
#include <cmath>
#include <compare>
#include <limits>
#include <type_traits>

namespace secateur {
namespace {

// An int64 whose sums and products wrap, as they do elsewhere.
struct Wrapping {
  int64_t v = 0;
  Wrapping() = default;
  explicit Wrapping(int64_t x) : v(x) {}
  explicit operator int64_t() const { return v; }
  friend Wrapping operator-(Wrapping a, Wrapping b) {
    return Wrapping(static_cast<int64_t>(static_cast<uint64_t>(a.v) - static_cast<uint64_t>(b.v)));
  }
  friend Wrapping operator*(Wrapping a, Wrapping b) {
    a *= b;
    return a;
  }
  void operator+=(Wrapping o) { v = static_cast<int64_t>(static_cast<uint64_t>(v) + static_cast<uint64_t>(o.v)); }
  void operator*=(Wrapping o) { v = static_cast<int64_t>(static_cast<uint64_t>(v) * static_cast<uint64_t>(o.v)); }
  void operator/=(Wrapping o) { v = o.v == -1 ? static_cast<int64_t>(0 - static_cast<uint64_t>(v)) : v / o.v; }
  auto operator<=>(const Wrapping&) const = default;
};

// log(sum exp(v)) in one pass: the sum is kept relative to the largest value so far, so that nothing overflows.
struct SumOfExps {
  double largest = -std::numeric_limits<double>::infinity(), sum = 0;
  void add(double v) {
    if (v == -std::numeric_limits<double>::infinity()) return;
    if (v > largest) {
      sum = sum * std::exp(largest - v) + 1;
      largest = v;
    } else {
      sum += std::exp(v - largest);  // NaN for NaN and for a second infinity, as in inf - inf
    }
  }
  void add(Wrapping) {}
  double log() const { return largest == std::numeric_limits<double>::infinity() ? largest : largest + std::log(sum); }
};

// Walks the kept axes; for each of their positions walks the reduced ones. Acc is the type sums are carried in.
template <class T, class Acc>
void reduce(const Reduce& p, const T* x, T* y) {
  int64_t kept[kMaxRank], kept_stride[kMaxRank], red[kMaxRank], red_stride[kMaxRank];
  int n_kept = 0, n_red = 0;
  int64_t stride = 1, count = 1, outputs = 1;
  for (int i = p.rank - 1; i >= 0; --i) {
    if (p.reduce[i]) {
      red[n_red] = p.dims[i], red_stride[n_red++] = stride;
      count *= p.dims[i];
    } else {
      kept[n_kept] = p.dims[i], kept_stride[n_kept++] = stride;
      outputs *= p.dims[i];
    }
    stride *= p.dims[i];
  }
  // Axes are stored innermost first.
  for (int64_t o = 0; o < outputs; ++o) {
    int64_t rest = o, base = 0;
    for (int i = 0; i < n_kept; ++i) {
      base += rest % kept[i] * kept_stride[i];
      rest /= kept[i];
    }
    Acc acc = p.op == ReduceOp::kProd ? Acc(1) : Acc(0);
    if (p.op == ReduceOp::kMax)
      acc = std::is_floating_point_v<T> ? static_cast<Acc>(-std::numeric_limits<T>::infinity())
                                        : static_cast<Acc>(std::numeric_limits<T>::lowest());
    if (p.op == ReduceOp::kMin)
      acc = std::is_floating_point_v<T> ? static_cast<Acc>(std::numeric_limits<T>::infinity())
                                        : static_cast<Acc>(std::numeric_limits<T>::max());
    SumOfExps exps;
    const int64_t inner = n_red ? red[0] : 1, inner_stride = n_red ? red_stride[0] : 0;
    const int64_t outer = inner ? count / inner : 0;
    for (int64_t r = 0; r < outer; ++r) {
      int64_t q = r, at = base;
      for (int i = 1; i < n_red; ++i) {
        at += q % red[i] * red_stride[i];
        q /= red[i];
      }
      for (int64_t k = 0; k < inner; ++k) {
        const auto v = static_cast<Acc>(x[at + k * inner_stride]);
        switch (p.op) {
          case ReduceOp::kMean:
          case ReduceOp::kSum:
            acc += v;
            break;
          case ReduceOp::kMax:
            acc = v > acc || v != v ? v : acc;
            break;
          case ReduceOp::kMin:
            acc = v < acc || v != v ? v : acc;
            break;
          case ReduceOp::kProd:
            acc *= v;
            break;
          case ReduceOp::kL1:
            acc += v < Acc(0) ? Acc(0) - v : v;
            break;
          case ReduceOp::kL2:
          case ReduceOp::kSumSquare:
            acc += v * v;
            break;
          case ReduceOp::kLogSum:
            acc += v;
            break;
          case ReduceOp::kLogSumExp:
            exps.add(v);
            break;
        }
      }
    }
    if constexpr (std::is_floating_point_v<T>) {
      if (p.op == ReduceOp::kL2) acc = std::sqrt(acc);
      if (p.op == ReduceOp::kLogSum) acc = std::log(acc);
      if (p.op == ReduceOp::kLogSumExp) acc = exps.log();
    }
    if (p.op == ReduceOp::kMean && count != 0) acc /= static_cast<Acc>(count);  // of none: 0, as ONNX Runtime has it
    y[o] = static_cast<T>(acc);
  }
}

}  // namespace

void reduce_f32_ref(const Reduce& p, const float* x, float* y) noexcept { reduce<float, double>(p, x, y); }
void reduce_i64_ref(const Reduce& p, const int64_t* x, int64_t* y) noexcept { reduce<int64_t, Wrapping>(p, x, y); }

}  // namespace secateur
