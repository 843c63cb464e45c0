// Mod, in the shape arithmetic of exporters and elsewhere: the sign of the divisor, or with fmod = 1 of the dividend.
#include <cmath>
#include <type_traits>

#include "graph/attrs.h"
#include "kernels/eltwise/typed.h"
#include "plan/lower/handlers.h"

namespace secateur {
namespace {

// x mod 0 = 0 for integers, as x / 0 = 0 elsewhere.
template <class T>
T modulo(T x, T y, bool fmod) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmod(x, y);
  } else {
    if (y == 0 || y == -1) return 0;
    const T r = x % y;
    return !fmod && r != 0 && (r < 0) != (y < 0) ? r + y : r;
  }
}

template <class T>
struct ModuloStep {
  Broadcast p;
  bool fmod;
  int a, b, y;
  void run(const Exec& e) const noexcept {
    const auto* from_a = static_cast<const T*>(e.ptr[a]);
    const auto* from_b = static_cast<const T*>(e.ptr[b]);
    auto* to = static_cast<T*>(e.ptr[y]);
    int64_t n = 1;
    for (int i = 0; i < p.rank; ++i) n *= p.dims[i];
    for (int64_t k = 0; k < n; ++k) {
      int64_t rest = k, at_a = 0, at_b = 0;
      for (int i = p.rank - 1; i >= 0; --i) {
        const int64_t index = rest % p.dims[i];
        rest /= p.dims[i];
        at_a += index * p.stride_a[i];
        at_b += index * p.stride_b[i];
      }
      to[k] = modulo(from_a[at_a], from_b[at_b], fmod);
    }
  }
};

template <class T>
void emit(Lowering& L, const Node& n, int a, int b, bool fmod) {
  ModuloStep<T> s{{}, fmod, a, b, -1};
  int64_t dims[kMaxRank];
  const Dims out = broadcast_dims(L, n, a, b);
  s.y = L.out(n, 0, L.value(a).dtype, out);
  make_broadcast(L.dims(a).data(), L.rank(a), L.dims(b).data(), L.rank(b), s.p, dims);
  StepInfo info;
  info.kernel = "mod_ref";
  L.emit(n, s, {a, b}, {s.y}, info);
}

}  // namespace

void lower_modulo(Lowering& L, const Node& n) {
  const int a = L.in(n, 0), b = L.in(n, 1);
  const DType t = L.value(a).dtype;
  if (t != L.value(b).dtype)
    L.unsupported(n, std::string("operands have dtypes ") + dtype_name(t) + " and " + dtype_name(L.value(b).dtype));
  const bool fmod = attr_i(n, "fmod", 0) != 0;
  if (t == DType::kInt64) return emit<int64_t>(L, n, a, b, fmod);
  if (t == DType::kInt32) return emit<int32_t>(L, n, a, b, fmod);
  if (t == DType::kFloat && fmod) return emit<float>(L, n, a, b, fmod);
  if (t == DType::kDouble && fmod) return emit<double>(L, n, a, b, fmod);
  L.unsupported(n, std::string("dtype ") + dtype_name(t) + (fmod ? "" : " without fmod") +
                       ", supported: float32 and float64 with fmod, int32, int64");
}

}  // namespace secateur
