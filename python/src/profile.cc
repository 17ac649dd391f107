// profile(): where the time of a run goes.
#include "deepseek/profile.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "convert.h"

namespace deepseek::python {

void bind_profile(nb::module_& m) {
  nb::class_<StepProfile>(m, "StepProfile",
                          "A step's figures of one run; deepseek.StepProfile is the typed row.")
      .def_ro("name", &StepProfile::name)
      .def_ro("ops", &StepProfile::ops)
      .def_ro("source", &StepProfile::source)
      .def_ro("way", &StepProfile::way)
      .def_ro("calls", &StepProfile::calls)
      .def_ro("seconds", &StepProfile::seconds)
      .def_ro("best_seconds", &StepProfile::best_seconds)
      .def_ro("share", &StepProfile::share)
      .def_ro("flops", &StepProfile::flops)
      .def_ro("bytes", &StepProfile::bytes)
      .def_ro("roof_seconds", &StepProfile::roof_seconds)
      .def_ro("roof", &StepProfile::roof);

  nb::class_<Roof::Level>(m, "RoofLevel", "A level of memory: bytes per second, all threads together.")
      .def_ro("name", &Roof::Level::name)
      .def_ro("capacity", &Roof::Level::capacity)
      .def_ro("read", &Roof::Level::read)
      .def_ro("write", &Roof::Level::write)
      .def("__repr__", [](const Roof::Level& l) {
        return l.name + ": read " + std::to_string(l.read * 1e-9) + " GB/s, write " +
               std::to_string(l.write * 1e-9) + " GB/s";
      });
  nb::class_<Roof>(m, "Roof", "What this machine does at best with so many threads, measured.")
      .def_ro("threads", &Roof::threads)
      .def_ro("vector_bits", &Roof::vector_bits)
      .def_ro("flops_per_s", &Roof::flops_per_s)
      .def_ro("bf16_flops_per_s", &Roof::bf16_flops_per_s)
      .def_ro("int8_flops_per_s", &Roof::int8_flops_per_s)
      .def_ro("levels", &Roof::levels);

  nb::class_<Profile>(m, "Profile")
      .def_ro("steps", &Profile::steps)
      .def_ro("seconds", &Profile::seconds)
      .def_ro("outside", &Profile::outside)
      .def_ro("runs", &Profile::runs)
      .def_ro("roof", &Profile::roof)
      .def("table", &Profile::str, nb::arg("rows"), nb::arg("merge"))
      .def("write_chrome_trace", &Profile::write_chrome_trace, nb::arg("path"));

  m.def(
      "profile",
      [](const Executable& e, const nb::list& inputs, int runs, double seconds) {
        const std::vector<Tensor> given = tensors_from(e.inputs(), inputs);
        const nb::gil_scoped_release unlocked;
        return profile(e, given, {runs, seconds});
      },
      nb::arg("executable"), nb::arg("inputs"), nb::arg("runs"), nb::arg("seconds"),
      nb::sig(
          "def profile(executable: Executable, inputs: list[Array | NDArray], runs: int, seconds: float) -> "
          "Profile"));
  m.def("combined", &combined, nb::arg("parts"), nb::arg("seconds"),
        "Profiles of what ran one after another within `seconds`, as one.");
  m.def(
      "measured_roof", [](int threads, int vector_bits) { return measured_roof(threads, vector_bits); },
      nb::arg("threads") = 0, nb::arg("vector_bits") = 0, nb::call_guard<nb::gil_scoped_release>(),
      "What this machine does at best with so many threads (0: default_threads()) and vectors (0: the "
      "widest): measured at the first call, in a fraction of a second.");
}

}  // namespace deepseek::python
