// deepseek._core: the C++ API for the Python package, which makes it pleasant.
#include <nanobind/stl/string.h>

#include "convert.h"
#include "deepseek/guard.h"

namespace {

namespace nb = nanobind;

const char* code_name(deepseek::Code code) {
  static constexpr const char* kNames[] = {
      "ok",           "invalid argument", "not found",          "unsupported",
      "out of range", "data loss",        "resource exhausted", "internal"};
  return kNames[static_cast<int>(code)];
}

}  // namespace

NB_MODULE(_core, m) {
  nb::set_leak_warnings(false);  // caches of the package live until the process ends
  m.doc() = "The C++ API of deepseek.";
  nb::set_leak_warnings(false);  // PyTorch keeps what it compiled until the process ends
  // deepseek.Error, a Python class so that it has attributes and pickles.
  static PyObject* error_class = nullptr;
  m.def("set_error_class", [](nb::object cls) { error_class = cls.release().ptr(); });
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const deepseek::Error& e) {
      const nb::object made =
          nb::handle(error_class)(e.what(), code_name(e.code()), e.op(), e.source(), e.expected(), e.got());
      PyErr_SetObject(error_class, made.ptr());
    }
  });
  m.def(
      "set_guard",
      [](const std::string& side) {
        using deepseek::Guard;
        if (side != "end" && side != "begin" && side != "none")
          throw deepseek::Error(deepseek::Code::InvalidArgument, "set_guard", "",
                                "\"end\", \"begin\" or \"none\"", "\"" + side + "\"");
        deepseek::set_guard(side == "end" ? Guard::End : side == "begin" ? Guard::Begin : Guard::None);
      },
      nb::arg("side"),
      "From now on memory ends (\"end\") or begins (\"begin\") beside a page that must not be touched: code "
      "that leaves a buffer crashes. For tests.");
  deepseek::python::bind_tensor(m);
  deepseek::python::bind_graph(m);
  deepseek::python::bind_executable(m);
  deepseek::python::bind_exchange(m);
  deepseek::python::bind_onnx(m);
  deepseek::python::bind_profile(m);
}
