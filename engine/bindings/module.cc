// The Python module secateur.engine._native: exceptions, then one bind_* per subject.
#include <nanobind/nanobind.h>

#include "base/error.h"
#include "bindings/bindings.h"

namespace nb = nanobind;

namespace {

// Raises secateur.errors.<cls>(message, **extra); errors.py needs the standard library only.
void raise_python(const char* cls, const char* message, nb::object extra) {
  try {
    nb::object type = nb::module_::import_("secateur.errors").attr(cls);
    nb::object error = extra.is_valid() && !extra.is_none() ? type(nb::str(message), extra) : type(nb::str(message));
    PyErr_SetObject(type.ptr(), error.ptr());
  } catch (nb::python_error& e) {
    e.restore();
  }
}

void translate(const std::exception_ptr& p, void*) {
  try {
    std::rethrow_exception(p);
  } catch (const secateur::FormatError& e) {
    raise_python("FormatError", e.what(), e.offset < 0 ? nb::none() : nb::object(nb::int_(e.offset)));
  } catch (const secateur::UnsupportedError& e) {
    raise_python("UnsupportedError", e.what(), e.node.empty() ? nb::none() : nb::object(nb::str(e.node.c_str())));
  } catch (const secateur::MemoryError& e) {
    raise_python("EnvironmentFailure", e.what(), nb::none());
  } catch (const secateur::UsageError& e) {
    raise_python("UsageError", e.what(), nb::none());
  }
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "Secateur's engine: reads ONNX and .sct, plans, runs. Private; use secateur.engine and secateur.formats.";
  nb::register_exception_translator(translate);
#ifdef SECATEUR_HAVE_SESSION
  bind_session(m);
  bind_partition(m);
#endif
  bind_projections(m);
#ifdef SECATEUR_HAVE_FORMATS
  bind_formats(m);
#endif
}
