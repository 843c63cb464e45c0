// The Python module secateur.engine._native: exceptions, then one bind_* per subject.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <cctype>
#include <string>

#include "base/error.h"
#include "bindings/bindings.h"

namespace nb = nanobind;

namespace {

// A message repeats at most 80 characters of a name or word that came with a file: of the text between two ' and of
// what stands between spaces. A file may name a node with a million characters.
std::string shortened(const std::string& message) {
  constexpr size_t kQuoted = 80;
  std::string out;
  for (size_t at = 0; at < message.size();) {
    const bool inside = at > 0 && std::isalnum(static_cast<unsigned char>(message[at - 1])) != 0;
    const bool opens = message[at] == '\'' && !inside;
    const size_t closing = opens ? message.find('\'', at + 1) : std::string::npos;
    const bool quote = closing != std::string::npos;  // else an apostrophe, or a word
    const size_t end = quote ? closing + 1 : std::min(message.find_first_of(" '", at + 1), message.size());
    const bool fits = end - at <= kQuoted + 2;
    out += message.substr(at, fits ? end - at : kQuoted - 3);
    if (!fits) out += quote ? "...'" : "...";
    at = end;
  }
  return out;
}

// Raises secateur.errors.<cls>(message, **extra); errors.py needs the standard library only.
void raise_python(const char* cls, const char* text, nb::object extra) {
  try {
    const std::string whole = shortened(text);
    PyObject* decoded = PyUnicode_DecodeUTF8(whole.data(), static_cast<Py_ssize_t>(whole.size()), "replace");
    if (decoded == nullptr) throw nb::python_error();
    const nb::object message = nb::steal(decoded);
    nb::object type = nb::module_::import_("secateur.errors").attr(cls);
    nb::object error = extra.is_valid() && !extra.is_none() ? type(message, extra) : type(message);
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
