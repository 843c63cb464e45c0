// InferenceSession's native half: feeds in, arrays out. Checks names, dtypes and shapes; computes nothing.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <tuple>
#include <utility>

#include "base/cpus.h"
#include "bindings/bindings.h"
#include "bindings/python.h"
#include "bindings/results.h"
#include "graph/once.h"
#include "graph/onnx_raw.h"
#ifdef SECATEUR_HAVE_FORMATS
#include "formats/unpack.h"
#endif
#include "plan/inspect.h"
#include "plan/session.h"

namespace nb = nanobind;
using namespace secateur;

namespace {

class PySession {
 public:
  PySession(nb::object model, int threads, bool sparse, const std::string& tune, const Known& known,
            const std::vector<Saved>& saved, bool plain_loops, double max_nbytes, double max_work,
            const std::optional<std::map<std::string, double>>& rates, int level)
      : PySession(Source(model), threads, sparse, tuner(tune, known, saved, rates), plain_loops, {max_nbytes, max_work},
                  level) {}

  const Session& session() const { return session_; }
  Session& session() { return session_; }

  nb::list run(nb::object names, nb::handle feeds) {
    if (!PyDict_Check(feeds.ptr()))
      throw UsageError("run(): feeds is a " + repr_type(feeds) + "; it must be a dict from input name to numpy array");
    const auto& inputs = session_.inputs();
    const size_t n = inputs.size();
    // Views of the arrays stay alive until the run is over.
    View views[kSmall];
    std::vector<View> more(n > kSmall ? n : 0);
    View* view = n > kSmall ? more.data() : views;
    std::vector<Dims> dims(n);
    for (size_t i = 0; i < n; ++i) {
      PyObject* array = PyDict_GetItemWithError(feeds.ptr(), input_names_[i].ptr());
      if (!array) {
        if (PyErr_Occurred()) throw nb::python_error();
        throw UsageError("run(): input '" + inputs[i].name +
                         "' is missing from feeds; the model's inputs: " + names_of(inputs));
      }
      look(inputs[i], array, view[i], dims[i]);
    }
    if (static_cast<size_t>(PyDict_Size(feeds.ptr())) != n) unknown_feed(feeds);
    std::vector<size_t> wanted = wanted_outputs(names);
    nb::list result;
    {
      Session::Lease lease = guarded(dims, [&]() { return Session::Lease(session_, dims); });
      for (size_t i = 0; i < n; ++i) give_in(lease, i, view[i]);
      std::vector<nb::object> made(wanted.size());
      for (size_t i = 0; i < wanted.size(); ++i) {
        // Asked for a second time it is copied from the first array.
        const auto end = wanted.begin() + static_cast<std::ptrdiff_t>(i);
        const bool again = std::find(wanted.begin(), end, wanted[i]) != end;
        if (!again && lease.lends_output(wanted[i]) && lease.output_value(wanted[i]).nbytes() >= kLentBytes)
          made[i] = results_.lend(lease, wanted[i]);
      }
      {
        nb::gil_scoped_release release;
        lease.run();
      }
      for (size_t i = 0; i < wanted.size(); ++i)
        result.append(made[i].is_valid() ? made[i] : copy_out(lease, wanted[i]));
    }
    return result;
  }

  // Bytes that the activations of one run are planned to take.
  size_t arena_nbytes(int64_t batch) {
    const auto dims = session_.declared_dims(batch);
    return guarded(dims, [&]() { return session_.plan(dims)->arena_bytes; });
  }

  // One dict per step; with repeats > 0 they are timed on a fixed pseudo-random input.
  nb::list explain(int64_t batch, int repeats) {
    nb::list rows;
    const auto dims = session_.declared_dims(batch);
    std::vector<double> seconds;
    std::shared_ptr<const Plan> plan;
    guarded(dims, [&]() {
      plan = session_.plan(dims);
      return 0;
    });
    if (repeats > 0) {
      Session::Lease lease(session_, dims);
      for (size_t i = 0; i < session_.inputs().size(); ++i) fill(lease, i);
      nb::gil_scoped_release release;
      lease.run();
      seconds = lease.profile(repeats);
    }
    const auto& steps = plan->steps;
    for (size_t i = 0; i < steps.size(); ++i) {
      const StepInfo& s = steps[i].info;
      nb::dict row;
      row["node"] = s.node;
      row["layer"] = s.layer;
      row["op"] = s.op;
      row["kernel"] = s.kernel;
      row["why"] = s.why;
      row["input"] = nb::tuple(nb::cast(s.in));
      row["output"] = nb::tuple(nb::cast(s.out));
      row["weight"] = s.n_weights ? nb::object(nb::tuple(nb::cast(s.weight))) : nb::none();
      row["macs"] = s.macs;
      row["n_weights"] = s.n_weights;
      row["nnz"] = s.nnz;
      row["density"] = s.n_weights
                           ? nb::object(nb::float_(static_cast<double>(s.nnz) / static_cast<double>(s.n_weights)))
                           : nb::none();
      row["packed_nbytes"] = s.packed_bytes;
      row["rate"] = s.rate.empty() ? nb::none() : nb::object(nb::str(s.rate.c_str()));
      row["predicted_us"] = s.predicted_us < 0 ? nb::none() : nb::object(nb::float_(s.predicted_us));
      row["time_us"] = repeats > 0 ? nb::object(nb::float_(seconds[i] * 1e6)) : nb::none();
      rows.append(row);
    }
    return rows;
  }

 private:
  PySession(const Source& source, int threads, bool sparse, Tuner tuner, bool plain_loops, Limits limits, int level)
      : session_(source.bytes(), threads, sparse, std::move(tuner), plain_loops, limits, level) {
    empty_ = nb::module_::import_("numpy").attr("empty");
    for (const auto& in : session_.inputs())
      input_names_.push_back(nb::steal<nb::str>(PyUnicode_InternFromString(in.name.c_str())));
    for (const auto& out : session_.outputs()) {
      output_names_.push_back(nb::steal<nb::str>(PyUnicode_InternFromString(out.name.c_str())));
    }
    nb::module_ numpy = nb::module_::import_("numpy");
    for (int t = 0; t < 17; ++t) {
      const auto d = static_cast<DType>(t);
      if (dtype_size(d) && d != DType::kBFloat16) dtypes_[t] = numpy.attr("dtype")(numpy_name(d));
    }
  }

  static constexpr size_t kSmall = 4;
  static constexpr size_t kLentBytes = size_t{1} << 15;  // less is copied in the time that lending takes

  static std::string names_of(const std::vector<ValueInfo>& infos) {
    std::string s;
    for (const auto& i : infos) s += (s.empty() ? "'" : ", '") + i.name + "'";
    return s.empty() ? "none" : s;
  }

  template <class F>
  auto guarded(const std::vector<Dims>& dims, F&& f) -> decltype(f()) {
    try {
      return f();
    } catch (const FormatError& e) {
      // The shapes came from the caller: the file was read and checked when the session was made.
      std::string s;
      for (size_t i = 0; i < dims.size(); ++i)
        s += (i ? ", '" : "'") + session_.inputs()[i].name + "' " + dims_text(dims[i]);
      throw UsageError("run(): these input shapes do not fit the model: " + s + "; " + e.what());
    }
  }

  void look(const ValueInfo& info, PyObject* array, View& view, Dims& dims) {
    if (PyObject_GetBuffer(array, &view.buffer, PyBUF_FORMAT | PyBUF_STRIDES) != 0) {
      PyErr_Clear();
      throw UsageError("run(): input '" + info.name + "' is a " + repr_type(array) + "; it must be a numpy array of " +
                       numpy_name(info.dtype) + " " + describe(info));
    }
    view.held = true;
    const Py_buffer& b = view.buffer;
    if (!format_is(b.format, static_cast<size_t>(b.itemsize), info.dtype)) {
      const std::string got =
          nb::cast<std::string>(nb::steal<nb::str>(PyObject_Str(nb::object(nb::handle(array).attr("dtype")).ptr())));
      throw UsageError("run(): input '" + info.name + "' has dtype " + got + ", expected " + numpy_name(info.dtype) +
                       "; convert it with .astype('" + numpy_name(info.dtype) + "')");
    }
    dims.assign(b.shape, b.shape + b.ndim);
    bool ok = !info.has_shape || dims.size() == info.shape.size();
    for (size_t i = 0; ok && info.has_shape && i < dims.size(); ++i)
      ok = info.shape[i].size < 0 || info.shape[i].size == dims[i];
    if (!ok)
      throw UsageError("run(): input '" + info.name + "' has shape " + dims_text(dims) + ", expected " +
                       describe(info));
  }

  [[noreturn]] void unknown_feed(nb::handle feeds) {
    for (nb::handle key : nb::borrow<nb::dict>(feeds).keys()) {
      bool known = false;
      for (const auto& name : input_names_) known = known || name.equal(key);
      if (!known)
        throw UsageError("run(): feeds has an unknown input " + nb::cast<std::string>(nb::repr(key)) +
                         "; the model's inputs: " + names_of(session_.inputs()));
    }
    throw UsageError("run(): feeds does not match the model's inputs: " + names_of(session_.inputs()));
  }

  std::vector<size_t> wanted_outputs(nb::handle names) {
    std::vector<size_t> wanted;
    if (names.is_none()) {
      for (size_t i = 0; i < output_names_.size(); ++i) wanted.push_back(i);
      return wanted;
    }
    if (nb::isinstance<nb::str>(names)) throw UsageError("run(): output names is a str; pass a list of names or None");
    for (nb::handle name : names) {
      size_t i = 0;
      while (i < output_names_.size() && !output_names_[i].equal(name)) ++i;
      if (i == output_names_.size())
        throw UsageError("run(): the model has no output " + nb::cast<std::string>(nb::repr(name)) +
                         "; its outputs: " + names_of(session_.outputs()));
      wanted.push_back(i);
    }
    return wanted;
  }

  // Large inputs are read where they are: whoever changes them meanwhile, in another thread, gets what that makes.
  static void give_in(Session::Lease& lease, size_t i, const View& view) {
    const size_t n = lease.input_bytes(i);
    if (n == 0) return;
    if (PyBuffer_IsContiguous(&view.buffer, 'C')) {
      if (n >= kLentBytes && lease.lends_input(i) && reinterpret_cast<uintptr_t>(view.buffer.buf) % 4 == 0)
        return lease.lend_input(i, view.buffer.buf);
      std::memcpy(lease.input(i), view.buffer.buf, n);
    } else if (PyBuffer_ToContiguous(lease.input(i), &view.buffer, static_cast<Py_ssize_t>(n), 'C') != 0) {
      throw nb::python_error();
    }
  }

  nb::object copy_out(const Session::Lease& lease, size_t k) {
    const Value& v = lease.output_value(k);
    nb::object shape = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(v.dims.size())));
    for (size_t i = 0; i < v.dims.size(); ++i)
      PyTuple_SET_ITEM(shape.ptr(), static_cast<Py_ssize_t>(i), PyLong_FromLongLong(v.dims[i]));
    nb::handle dtype = dtypes_[static_cast<int>(v.dtype)];
    if (!dtype.is_valid())
      throw UnsupportedError(std::string("output of dtype ") + dtype_name(v.dtype) + ": NumPy has none");
    PyObject* args[] = {shape.ptr(), dtype.ptr()};
    nb::object array = nb::steal(PyObject_Vectorcall(empty_.ptr(), args, 2, nullptr));
    if (!array.is_valid()) throw nb::python_error();
    if (v.nbytes()) {
      View view;
      if (PyObject_GetBuffer(array.ptr(), &view.buffer, PyBUF_SIMPLE | PyBUF_WRITABLE) != 0) throw nb::python_error();
      view.held = true;
      std::memcpy(view.buffer.buf, lease.output(k), v.nbytes());
    }
    return array;
  }

  // A fixed pseudo-random input in [-1, 1): zeros would flatter kernels that skip them and NaN would slow others.
  void fill(const Session::Lease& lease, size_t i) {
    const size_t n = lease.input_bytes(i);
    std::memset(lease.input(i), 0, n);
    if (session_.inputs()[i].dtype != DType::kFloat) return;
    uint32_t state = 12345;
    auto* x = static_cast<float*>(lease.input(i));
    for (size_t k = 0; k < n / 4; ++k) {
      state = state * 1664525u + 1013904223u;
      x[k] = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
    }
  }

  Session session_;
  Results results_;
  nb::object empty_;
  nb::object dtypes_[17];
  std::vector<nb::str> input_names_, output_names_;
};

// ORT's NodeArg: .name, .shape (ints, symbols or None), .type
struct NodeArg {
  std::string name, type;
  nb::list shape;
};

std::vector<NodeArg> node_args(const std::vector<ValueInfo>& infos) {
  std::vector<NodeArg> args;
  for (const auto& info : infos) {
    NodeArg a;
    a.name = info.name;
    a.type = info.type.empty() ? "tensor(" + std::string(element_text(static_cast<int64_t>(info.dtype))) + ")"
                               : type_text(info.type);
    for (const Dim& d : info.shape) {
      if (d.size >= 0) a.shape.append(d.size);
      else if (d.symbol.empty()) a.shape.append(nb::none());
      else a.shape.append(d.symbol);
    }
    args.push_back(std::move(a));
  }
  return args;
}

}  // namespace

void bind_session(nb::module_& m) {
  nb::class_<NodeArg>(m, "NodeArg", "An input or output of a model.")
      .def_ro("name", &NodeArg::name)
      .def_ro("shape", &NodeArg::shape)
      .def_ro("type", &NodeArg::type)
      .def("__repr__", [](const NodeArg& a) {
        return "NodeArg(name='" + a.name + "', type='" + a.type +
               "', shape=" + nb::cast<std::string>(nb::repr(a.shape)) + ")";
      });
  nb::class_<PySession>(m, "Session", "A model ready to run.")
      .def(nb::init<nb::object, int, bool, const std::string&, const Known&, const std::vector<Saved>&, bool, double,
                    double, const std::optional<std::map<std::string, double>>&, int>(),
           nb::arg("model"), nb::arg("threads") = 0, nb::arg("sparse") = true, nb::arg("tune") = "off",
           nb::arg("known") = Known(), nb::arg("saved") = std::vector<Saved>(), nb::arg("plain_loops") = true,
           nb::arg("max_nbytes") = 0.0, nb::arg("max_work") = 0.0, nb::arg("rates") = nb::none(), nb::arg("level") = 0)
      .def("run", &PySession::run, nb::arg("output_names").none(), nb::arg("feeds"))
      .def("get_inputs", [](const PySession& s) { return node_args(s.session().inputs()); })
      .def("get_outputs", [](const PySession& s) { return node_args(s.session().outputs()); })
      .def("_explain", &PySession::explain, nb::arg("batch"), nb::arg("repeats"))
      .def("_arena_nbytes", &PySession::arena_nbytes, nb::arg("batch"))
      .def("_decisions",
           [](PySession& s) {
             std::vector<Saved> all;
             for (const SavedPlan& p : s.session().decisions()) all.emplace_back(p.input_dims, py_choices(p.layers));
             return all;
           })
      .def("_take_timed", [](PySession& s) { return py_choices(s.session().take_timed()); })
      .def_prop_ro("n_timed", [](PySession& s) { return s.session().n_timed(); })
      .def_prop_ro("threads", [](const PySession& s) { return s.session().threads(); })
      .def_prop_ro("n_nodes", [](const PySession& s) { return s.session().n_nodes(); })
      .def_prop_ro("isa", [](const PySession& s) { return isa_name(s.session().isa()); })
      .def_prop_ro("planned", [](const PySession& s) { return s.session().planned(); })
      .def_prop_ro("notes", [](const PySession& s) { return s.session().notes(); });
  m.def(
      "layers",
      [](nb::bytes model) {
        const Graph graph = read_model({reinterpret_cast<const uint8_t*>(model.c_str()), model.size()});
        nb::dict file;
        file["ir_version"] = graph.ir_version;
        nb::dict opsets;
        for (const auto& [domain, version] : graph.opsets)
          opsets[domain.empty() ? "ai.onnx" : domain.c_str()] = version;
        file["opsets"] = opsets;
        file["n_nodes"] = graph.nodes.size();
        nb::list rows;
        for (const auto& layer : inspect_layers(graph)) {
          nb::dict row;
          row["index"] = layer.index;
          row["name"] = layer.name;
          row["op"] = layer.op;
          row["shape"] = nb::cast(layer.shape);
          row["n_weights"] = layer.n_weights;
          row["nnz"] = layer.nnz;
          row["n_values"] = layer.n_values;
          row["bits"] = layer.bits;
          row["structure"] = nb::cast(layer.structure);
          row["constants"] = nb::cast(layer.constants);
          row["nbytes"] = layer.nbytes;
          rows.append(row);
        }
        file["layers"] = rows;
        return file;
      },
      nb::arg("model"));
  m.def(
      "interface",
      [](nb::bytes model) {
        const Graph graph = read_model({reinterpret_cast<const uint8_t*>(model.c_str()), model.size()});
        return nb::make_tuple(node_args(graph.inputs), node_args(graph.outputs));
      },
      nb::arg("model"));
  m.def("is_sct", [](nb::bytes model) {
#ifdef SECATEUR_HAVE_FORMATS
    return is_sct({reinterpret_cast<const uint8_t*>(model.c_str()), model.size()});
#else
    return false;
#endif
  });
  m.def("usable_cpus", []() { return usable_cpus(); });
  m.def("isas", []() {
    std::vector<std::string> names;
    for (Isa i : available_isas()) names.emplace_back(isa_name(i));
    return names;
  });
  m.def("cpu_name", []() { return cpu().name; });
  m.def("shipped_rates",
        []() { return std::map<std::string, double>(shipped_rates(cpu()).begin(), shipped_rates(cpu()).end()); });
  // What timings and plans hold for: their costs and their tilings follow from it.
  m.def("machine", []() {
    return cpu().name + ", " + isa_name(selected_isa()) + ", L1 " + std::to_string(cpu().l1d_bytes) + ", L2 " +
           std::to_string(cpu().l2_bytes);
  });
  m.def("supported_operators", []() { return supported_operators(); });
}
