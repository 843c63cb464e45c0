// Python values as the engine takes them: buffers, names of dtypes, choices of kernels.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "graph/once.h"
#include "plan/session.h"

namespace secateur {

namespace nb = nanobind;

// A Py_buffer that lets go.
struct View {
  Py_buffer buffer{};
  bool held = false;
  ~View() {
    if (held) PyBuffer_Release(&buffer);
  }
};

inline const char* numpy_name(DType t) { return t == DType::kBool ? "bool" : dtype_name(t); }

// Struct-module format characters of native byte order.
inline bool format_is(const char* format, size_t itemsize, DType t) {
  if (!format) return t == DType::kUInt8;
  if (*format == '@' || *format == '=' || *format == '<') ++format;
  if (format[0] == 0 || format[1] != 0 || itemsize != dtype_size(t)) return false;
  const char c = format[0];
  switch (t) {
    case DType::kFloat:
      return c == 'f';
    case DType::kDouble:
      return c == 'd';
    case DType::kFloat16:
      return c == 'e';
    case DType::kBool:
      return c == '?';
    case DType::kInt8:
      return c == 'b';
    case DType::kUInt8:
      return c == 'B';
    case DType::kInt16:
      return c == 'h';
    case DType::kUInt16:
      return c == 'H';
    case DType::kInt32:
    case DType::kInt64:
      return c == 'i' || c == 'l' || c == 'q';
    case DType::kUInt32:
    case DType::kUInt64:
      return c == 'I' || c == 'L' || c == 'Q';
    default:
      return false;
  }
}

inline std::string describe(const ValueInfo& info) {
  std::string s = "[";
  for (size_t i = 0; i < info.shape.size(); ++i) {
    const Dim& d = info.shape[i];
    s += (i ? ", " : "") + (d.size >= 0 ? std::to_string(d.size) : d.symbol.empty() ? std::string("?") : d.symbol);
  }
  return info.has_shape ? s + "]" : "of any shape";
}

// Choices as Python holds them: kernel, tile, microseconds, mode; by key, or in order with their nodes' labels.
using PyChoice = std::tuple<std::string, std::array<int, 4>, double, std::string>;
using Known = std::vector<std::pair<std::string, PyChoice>>;
using Saved = std::pair<std::vector<Dims>, Known>;

inline Choice choice(const PyChoice& c) {
  const auto& [kernel, t, us, by] = c;
  return {kernel, {t[0], t[1], t[2], t[3]}, us, tune_of(by)};
}

inline Known py_choices(const std::vector<std::pair<std::string, Choice>>& choices) {
  Known all;
  for (const auto& [name, c] : choices)
    all.emplace_back(name,
                     PyChoice{c.kernel, {c.tile.rows, c.tile.chunk, c.tile.block, c.tile.form}, c.us, tune_name(c.by)});
  return all;
}

inline Tuner tuner(const std::string& tune, const Known& known, const std::vector<Saved>& saved,
                   const std::optional<std::map<std::string, double>>& rates) {
  Tuner t;
  t.mode = tune_of(tune);
  for (const auto& [key, c] : known) t.known[key] = choice(c);
  for (const auto& [dims, layers] : saved) {
    t.saved.push_back({dims, {}});
    for (const auto& [node, c] : layers) t.saved.back().layers.emplace_back(node, choice(c));
  }
  if (rates) {
    t.rates.emplace(rates->begin(), rates->end());
    for (const auto& [key, rate] : *t.rates)
      if (!(rate >= 1 / kMostRate && rate <= kMostRate))
        throw UsageError("rates: " + key + ": got " + std::to_string(rate) + "; a factor from 1/64 to 64 is needed");
  }
  return t;
}

inline std::string repr_type(nb::handle h) {
  return nb::cast<std::string>(nb::handle(reinterpret_cast<PyObject*>(Py_TYPE(h.ptr()))).attr("__name__"));
}

// A model's bytes, or an mmap.mmap that its owner has no more use for: its pages are dropped while they are read.
class Source {
 public:
  explicit Source(nb::handle model) {
    if (PyObject_GetBuffer(model.ptr(), &view_.buffer, PyBUF_SIMPLE) != 0) throw nb::python_error();
    view_.held = true;
    if (repr_type(model) == "mmap") once_.emplace(bytes());
  }
  std::span<const uint8_t> bytes() const {
    return {static_cast<const uint8_t*>(view_.buffer.buf), static_cast<size_t>(view_.buffer.len)};
  }

 private:
  View view_;
  std::optional<ReadOnce> once_;
};

}  // namespace secateur
