// Python: one layer of weighted k-means on the line. Converts and checks, nothing more.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>

#include "base/error.h"
#include "bindings/bindings.h"
#include "kernels/kmeans/kmeans.h"

namespace nb = nanobind;

namespace {

using Floats = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// A new NumPy array that owns `values`.
template <class T>
nb::ndarray<nb::numpy, T> owned(std::unique_ptr<T[]> values, size_t n) {
  T* data = values.release();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::ndarray<nb::numpy, T>(data, {n}, owner);
}

}  // namespace

void bind_kmeans(nb::module_& m) {
  m.def(
      "kmeans_layer",
      [](Floats s0, Floats s1, Floats s2, Floats previous, Ints floor) {
        const size_t n = previous.size();
        if (n == 0 || s0.size() != n || s1.size() != n || s2.size() != n || floor.size() != n)
          throw secateur::UsageError("kmeans_layer: five arrays of one length, not 0, are needed");
        for (size_t i = 0; i < n; ++i)
          if (floor.data()[i] < 0 || floor.data()[i] > static_cast<int64_t>(i)) throw secateur::UsageError("kmeans_layer: floor[i] must lie in 0..i");
        std::unique_ptr<double[]> best(new double[n]);
        std::unique_ptr<int64_t[]> origin(new int64_t[n]);
        {
          nb::gil_scoped_release free;
          secateur::kmeans_layer(static_cast<int64_t>(n) - 1, s0.data(), s1.data(), s2.data(), previous.data(), floor.data(), best.get(), origin.get());
        }
        return nb::make_tuple(owned(std::move(best), n), owned(std::move(origin), n));
      },
      nb::arg("s0"), nb::arg("s1"), nb::arg("s2"), nb::arg("previous"), nb::arg("floor"));
}
