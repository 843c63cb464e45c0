// Python: pack, unpack, measure, sections on bytes and arrays. Converts and checks, nothing more.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <span>

#include "base/error.h"
#include "bindings/bindings.h"
#include "formats/pack.h"
#include "formats/prime.h"
#include "formats/unpack.h"
#include "graph/onnx_read.h"

namespace nb = nanobind;

namespace {

std::span<const uint8_t> view(const nb::bytes& b) { return {static_cast<const uint8_t*>(b.data()), b.size()}; }

nb::bytes to_bytes(const std::vector<uint8_t>& v) { return nb::bytes(v.data(), v.size()); }

nb::dict describe(const secateur::SectionInfo& s) {
  nb::dict d;
  d["name"] = s.name;
  d["kind"] = s.kind;
  d["dtype"] = s.dtype;
  d["shape"] = nb::tuple(nb::cast(s.shape));
  d["layout"] = s.report.layout;
  d["codec"] = s.report.codec;
  d["nbytes"] = s.report.nbytes;
  d["bound_bits"] = s.report.bound_bits;
  d["n"] = s.report.n;
  d["nnz"] = s.report.nnz;
  d["n_values"] = s.report.n_values;
  return d;
}

}  // namespace

void bind_formats(nb::module_& m) {
  m.def("sct_pack", [](nb::bytes onnx, bool exact) {
    std::vector<uint8_t> out;
    {
      nb::gil_scoped_release free;
      out = exact ? secateur::pack_exact(view(onnx)) : secateur::pack(view(onnx));
    }
    return to_bytes(out);
  });
  m.def(
      "sct_unpack",
      [](nb::bytes sct, uint64_t limit, int level) {
        std::string out;
        {
          nb::gil_scoped_release free;
          out = secateur::unpack_onnx(view(sct), limit, level);
        }
        return nb::bytes(out.data(), out.size());
      },
      nb::arg("sct"), nb::arg("limit"), nb::arg("level") = 0);
  m.def("sct_pack_levels", [](const std::vector<nb::bytes>& levels) {
    std::vector<uint8_t> out;
    {
      nb::gil_scoped_release free;
      std::vector<secateur::Graph> graphs;
      for (const nb::bytes& onnx : levels) graphs.push_back(secateur::read_onnx(view(onnx)));
      out = secateur::pack_levels(graphs);
    }
    return to_bytes(out);
  });
  m.def("sct_levels", [](nb::bytes sct) { return secateur::levels(view(sct)); });
  m.def("sct_sections", [](nb::bytes sct, uint64_t limit) {
    std::vector<secateur::SectionInfo> found;
    {
      nb::gil_scoped_release free;
      found = secateur::sections(view(sct), limit);
    }
    nb::list out;
    for (const auto& s : found) out.append(describe(s));
    return out;
  });
  // One tensor alone: dtype is the ONNX number, data the elements' bytes in C order. Returns (stream, report).
  m.def("sct_encode_tensor", [](int dtype, std::vector<int64_t> dims, nb::bytes data) {
    const auto type = static_cast<secateur::DType>(dtype);
    uint64_t n = secateur::dtype_size(type);
    for (int64_t d : dims) n *= static_cast<uint64_t>(d);
    if (secateur::dtype_size(type) == 0 || n != data.size())
      throw secateur::UsageError("dtype, shape and data disagree");
    secateur::sct::CodedTensor coded;
    {
      nb::gil_scoped_release free;
      coded = secateur::sct::encode_tensor(type, dims, view(data));
    }
    secateur::SectionInfo s{"", "tensor", secateur::dtype_name(type), dims, coded.report};
    return nb::make_tuple(to_bytes(coded.bytes), describe(s));
  });
  m.def("sct_decode_tensor", [](int dtype, std::vector<int64_t> dims, nb::bytes stream) {
    std::vector<uint8_t> data;
    const secateur::sct::Earlier none;
    const size_t used = secateur::sct::decode_tensor(static_cast<secateur::DType>(dtype), dims, view(stream), data,
                                                     none, secateur::sct::kNewest);
    return nb::make_tuple(to_bytes(data), used);
  });
  m.def("sct_encode_prime", [](const std::vector<nb::bytes>& networks) {
    std::vector<secateur::Graph> graphs;
    for (const auto& onnx : networks) graphs.push_back(secateur::read_onnx(view(onnx)));
    return to_bytes(secateur::sct::encode_prime(graphs));
  });
}
