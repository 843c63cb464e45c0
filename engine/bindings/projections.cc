// Python: the compiled parts of projections, k-means on the line, uniform grids and selection. Converts and checks,
// nothing more.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "base/error.h"
#include "bindings/bindings.h"
#include "kernels/kmeans/kmeans.h"
#include "kernels/largest/largest.h"
#include "kernels/uniform/uniform.h"

namespace nb = nanobind;

namespace {

using Floats = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// A new NumPy array that owns `values`.
template <class T>
nb::ndarray<nb::numpy, T> owned(std::unique_ptr<T[]> values, size_t n) {
  T* data = values.release();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::ndarray<nb::numpy, T>(data, {n}, owner);
}

nb::ndarray<nb::numpy, double> best_scales(Matrix a, Matrix h, int64_t top, bool zero) {
  const size_t rows = a.shape(0), cols = a.shape(1);
  if (rows != h.shape(0) || cols != h.shape(1) || cols > std::numeric_limits<int32_t>::max() || top < 1)
    throw secateur::UsageError("best_scales: values and weights of one shape, at most 2^31 - 1 a row, and top >= 1");
  for (size_t i = 0; i < rows * cols; ++i)
    if (!(a.data()[i] >= 0) || !(a.data()[i] < HUGE_VAL) || !(h.data()[i] >= 0) || !(h.data()[i] < HUGE_VAL))
      throw secateur::UsageError("best_scales: finite values and weights >= 0 are needed");
  std::unique_ptr<double[]> scales(new double[rows]);
  {
    nb::gil_scoped_release free;
    for (size_t r = 0; r < rows; ++r)
      scales[r] = secateur::best_scale(static_cast<int64_t>(cols), a.data() + r * cols, h.data() + r * cols, top, zero);
  }
  return owned(std::move(scales), rows);
}

using Grids = std::pair<nb::ndarray<nb::numpy, int16_t>, nb::ndarray<nb::numpy, double>>;

std::optional<Grids> grids_of(Matrix x, int64_t top, bool nonzero, int digits, int least) {
  const size_t rows = x.shape(0), cols = x.shape(1);
  if (top < 1 || top > std::numeric_limits<int16_t>::max() || digits < 2 || digits > 53)
    throw secateur::UsageError("grids_of: 1 <= top < 2^15 and a significand of 2 to 53 bits are needed");
  std::unique_ptr<int16_t[]> codes(new int16_t[rows * cols]);
  std::unique_ptr<double[]> scales(new double[rows]);
  {
    nb::gil_scoped_release free;
    for (size_t r = 0; r < rows; ++r)
      if (!secateur::grid_of(static_cast<int64_t>(cols), x.data() + r * cols, top, nonzero, {digits, least},
                             codes.get() + r * cols, scales.get() + r))
        return std::nullopt;
  }
  return Grids(owned(std::move(codes), rows * cols), owned(std::move(scales), rows));
}

}  // namespace

void bind_projections(nb::module_& m) {
  nb::class_<secateur::KMeans>(m, "KMeans")
      .def(
          "__init__",
          [](secateur::KMeans* self, Floats x, Floats w, bool zero, int64_t exact_below) {
            if (x.size() != w.size() || x.size() > std::numeric_limits<int32_t>::max())
              throw secateur::UsageError("KMeans: values and weights of one length, at most 2^31 - 1, are needed");
            for (size_t i = 0; i < x.size(); ++i)
              if (!(i == 0 || x.data()[i - 1] <= x.data()[i]) || !(w.data()[i] >= 0))
                throw secateur::UsageError("KMeans: ascending values and weights >= 0 are needed");
            nb::gil_scoped_release free;
            new (self) secateur::KMeans(static_cast<int64_t>(x.size()), x.data(), w.data(), zero, exact_below);
          },
          nb::arg("x"), nb::arg("w"), nb::arg("zero"), nb::arg("exact_below"))
      .def(
          "centres",
          [](secateur::KMeans& self, int64_t n) {
            if (n < 0) throw secateur::UsageError("KMeans: a number of centres >= 0 is needed");
            std::vector<double> found;
            {
              nb::gil_scoped_release free;
              found = self.centres(n);
            }
            std::unique_ptr<double[]> values(new double[found.size()]);
            std::copy(found.begin(), found.end(), values.get());
            return owned(std::move(values), found.size());
          },
          nb::arg("m"));
  m.def(
      "keep_largest",
      [](Floats scores, int64_t k) {
        const size_t n = scores.size();
        if (k < 0 || k > static_cast<int64_t>(n)) throw secateur::UsageError("keep_largest: k must lie in 0..n");
        std::unique_ptr<bool[]> kept(new bool[n]);
        {
          nb::gil_scoped_release free;
          secateur::keep_largest(static_cast<int64_t>(n), scores.data(), k, kept.get());
        }
        return owned(std::move(kept), n);
      },
      nb::arg("scores"), nb::arg("k"));
  m.def("best_scales", &best_scales, nb::arg("a"), nb::arg("h"), nb::arg("top"), nb::arg("zero"));
  m.def("grids_of", &grids_of, nb::arg("x"), nb::arg("top"), nb::arg("nonzero"), nb::arg("digits"), nb::arg("least"));
}
