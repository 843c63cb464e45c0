// Python: the compiled parts of projections, k-means on the line and selection. Converts and checks, nothing more.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <limits>
#include <memory>

#include "base/error.h"
#include "bindings/bindings.h"
#include "kernels/kmeans/kmeans.h"
#include "kernels/largest/largest.h"

namespace nb = nanobind;

namespace {

using Floats = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// A new NumPy array that owns `values`.
template <class T>
nb::ndarray<nb::numpy, T> owned(std::unique_ptr<T[]> values, size_t n) {
  T* data = values.release();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::ndarray<nb::numpy, T>(data, {n}, owner);
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
}
