// QuantizeLinear and DequantizeLinear, ONNX semantics, computed in float32.
#include "kernels/quads/quads.h"
#include "kernels/quantize/quantize.h"
#include "plan/lower/handlers.h"
#include "plan/lower/quads.h"

namespace secateur {
namespace {

struct QuantizeStep {
  Quant p;
  bool quantize;
  int x, scale, zero, y;
  const QuadsKernels* kernels = nullptr;  // bytes in runs of one scale
  void run_bytes(const Exec& e) const noexcept {
    RunArgs a;
    a.n = p.inner;
    a.flip = p.type == QType::kI8 ? 128 : 0;
    const int64_t x_size = quantize ? 4 : 1, y_size = quantize ? 1 : 4;
    const auto* from = static_cast<const uint8_t*>(e.ptr[x]);
    auto* to = static_cast<uint8_t*>(e.ptr[y]);
    for (int64_t i = 0; i < p.outer * p.channels; ++i, from += a.n * x_size, to += a.n * y_size) {
      const int64_t c = i % p.channels;
      a.scale = e.f32(scale)[c];
      a.zero = (zero < 0 ? 0 : static_cast<const uint8_t*>(e.ptr[zero])[c]) ^ a.flip;
      a.x = from, a.y = to;
      (quantize ? kernels->quantize_run : kernels->dequantize_run)(a);
    }
  }
  void run(const Exec& e) const noexcept {
    if (kernels) return run_bytes(e);
    const void* z = zero < 0 ? nullptr : e.ptr[zero];
    if (quantize) quantize_f32_ref(p, e.f32(x), e.f32(scale), z, e.ptr[y]);
    else dequantize_f32_ref(p, e.ptr[x], e.f32(scale), z, e.f32_out(y));
  }
};

QType qtype(Lowering& L, const Node& n, DType t) {
  switch (t) {
    case DType::kUInt8:
      return QType::kU8;
    case DType::kInt8:
      return QType::kI8;
    case DType::kUInt16:
      return QType::kU16;
    case DType::kInt16:
      return QType::kI16;
    case DType::kInt32:
      return QType::kI32;
    default:
      L.unsupported(n, std::string("quantized dtype ") + dtype_name(t) + ", supported: (u)int8, (u)int16, int32");
  }
}

// Attributes of opset 23 that name a type; left out it is the scale's.
void float32_only(Lowering& L, const Node& n, const char* name) {
  const auto t = static_cast<DType>(attr_i(n, name, 0));
  if (t != DType::kUndefined && t != DType::kFloat)
    L.unsupported(n, std::string(name) + " " + dtype_name(t) + ", supported: float32");
}

void check_scale(Lowering& L, const Node& n, QuantizeStep& s) {
  const Dims& xd = L.dims(s.x);
  const int64_t count = L.value(s.scale).numel();
  if (attr_i(n, "block_size", 0) != 0) L.unsupported(n, "blocked quantization");
  if (L.rank(s.scale) > 1)
    L.unsupported(n, "scale " + dims_text(L.dims(s.scale)) + ", supported: a scalar or one axis");
  if (L.rank(s.scale) == 0 || (count == 1 && (xd.empty() || L.rank(s.scale) == 0))) {
    s.p.inner = L.value(s.x).numel();
  } else {
    const auto axis = count == 1 && L.rank(s.x) < 2 ? 0 : normal_axis(L, n, attr_i(n, "axis", 1), L.rank(s.x));
    if (count == 1) {
      s.p.inner = L.value(s.x).numel();
    } else {
      if (xd[static_cast<size_t>(axis)] != count)
        L.invalid(n, "scale has " + std::to_string(count) + " values, axis " + std::to_string(axis) + " of " +
                         dims_text(xd) + " does not");
      s.p.channels = count;
      for (int i = 0; i < L.rank(s.x); ++i)
        if (i != axis) (i < axis ? s.p.outer : s.p.inner) *= xd[static_cast<size_t>(i)];
    }
  }
  if (s.zero >= 0 && L.value(s.zero).numel() != count) L.invalid(n, "scale and zero point have different sizes");
}

// Bytes whose scale stays the same for some while go by vectors.
void by_bytes(const Lowering& L, QuantizeStep& s) {
  if ((s.p.type == QType::kU8 || s.p.type == QType::kI8) && s.p.inner >= 16) s.kernels = &quads_kernels(L.int8_isa());
}

// Scale and zero point of a value that integer layers share.
std::pair<float, int64_t> constants(Lowering& L, const QuantizeStep& s) {
  int64_t zero = 0;
  if (s.zero >= 0) {
    const uint8_t z = *L.value(s.zero).constant;
    zero = L.value(s.zero).dtype == DType::kInt8 ? int64_t{static_cast<int8_t>(z)} : int64_t{z};
  }
  return {*reinterpret_cast<const float*>(L.value(s.scale).constant), zero};
}

StepInfo named(const char* kernel) {
  StepInfo info;
  info.kernel = kernel;
  return info;
}

}  // namespace

void lower_quantize(Lowering& L, const Node& n) {
  QuantizeStep s{{}, true, L.in_f32(n, 0), L.in_f32(n, 1), L.in_or(n, 2), -1};
  DType t = s.zero >= 0 ? L.value(s.zero).dtype : DType::kUInt8;
  if (const int64_t asked = attr_i(n, "output_dtype", 0); asked != 0 && s.zero < 0) t = static_cast<DType>(asked);
  s.p.type = qtype(L, n, t);
  float32_only(L, n, "precision");
  if (t == DType::kInt32) L.unsupported(n, "quantized dtype int32");
  check_scale(L, n, s);
  if (const ValueLayout layout = wanted_layout(L, n, L.dims(s.x)); layout != ValueLayout::kPlain) {
    // Read by integer layers; scale and zero point are constant, the pass saw to that.
    const int y = L.out(n, 0, t, L.dims(s.x), layout);
    const auto [scale, zero] = constants(L, s);
    return quantized(L, n, s.x, y, scale, zero + flip_of(t));
  }
  s.y = L.out(n, 0, t, L.dims(s.x));
  by_bytes(L, s);
  L.emit(n, s, {s.x, s.scale, s.zero}, {s.y}, named(s.kernels ? "quantize_run_f32" : "quantize_f32_ref"));
}

void lower_dequantize(Lowering& L, const Node& n) {
  QuantizeStep s{{}, false, L.in(n, 0), L.in_f32(n, 1), L.in_or(n, 2), -1};
  s.p.type = qtype(L, n, L.value(s.x).dtype);
  float32_only(L, n, "output_dtype");
  const DType type = L.value(s.x).dtype;
  if (s.zero >= 0 && L.value(s.zero).dtype != type) L.invalid(n, "input and zero point have different dtypes");
  check_scale(L, n, s);
  if (L.value(s.x).layout != ValueLayout::kPlain) {
    const auto [scale, zero] = constants(L, s);
    L.name(dequantized(L, n, s.x, scale, zero + flip_of(type)), n.outputs[0]);
    return;
  }
  s.y = L.out(n, 0, DType::kFloat, L.dims(s.x));
  by_bytes(L, s);
  L.emit(n, s, {s.x, s.scale, s.zero}, {s.y}, named(s.kernels ? "dequantize_run_f32" : "dequantize_f32_ref"));
}

}  // namespace secateur
