// Executable, Context, compile.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>

#include "context.h"
#include "deepseek/build.h"
#include "deepseek/compile.h"

namespace deepseek::python {

std::vector<Tensor> tensors_from(const std::vector<Port>& ports, const nb::list& given) {
  if (given.size() != ports.size())
    throw Error(Code::InvalidArgument, "run", "", std::to_string(ports.size()) + " inputs",
                std::to_string(given.size()));
  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (given[i].is_none()) {
      tensors.emplace_back();
      continue;
    }
    try {
      tensors.push_back(tensor_from(nb::handle(given[i]), ports[i].type.dtype));
    } catch (const Error& e) {
      throw e.with_context("run: input \"" + ports[i].name + "\"", ports[i].source);
    }
  }
  return tensors;
}

namespace {

Tensor at_address(const Port& port, std::uintptr_t address, nb::handle shape, std::shared_ptr<void> owner) {
  return Tensor::wrap(port.type.dtype, dims_from(shape), reinterpret_cast<void*>(address),
                      std::move(owner));  // NOLINT
}

void set_parameter_pointer(PyContext& c, int input, std::uintptr_t address, nb::handle shape,
                           std::int64_t version, const nb::object& owner) {
  const auto& ports = c.executable().inputs();
  if (input < 0 || static_cast<std::size_t>(input) >= ports.size())
    throw Error(Code::InvalidArgument, "set_parameter", "", "a number of an input", std::to_string(input));
  const Tensor value = at_address(ports[static_cast<std::size_t>(input)], address, shape, keep(owner));
  const nb::gil_scoped_release unlocked;
  c.set_parameter(input, value, static_cast<std::uint64_t>(version));
}

void run_pointers(PyContext& c, const std::vector<std::uintptr_t>& inputs, const nb::sequence& input_shapes,
                  const std::vector<std::uintptr_t>& outputs, const nb::sequence& output_shapes) {
  const auto& in = c.executable().inputs();
  const auto& out = c.executable().outputs();
  std::vector<Tensor> given(in.size()), results;
  std::size_t next = 0;
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (c.is_set(i)) continue;
    if (next < inputs.size()) given[i] = at_address(in[i], inputs[next], input_shapes[next], nullptr);
    ++next;
  }
  if (next != inputs.size() || outputs.size() != out.size())
    throw Error(Code::InvalidArgument, "run", "",
                std::to_string(next) + " inputs and " + std::to_string(out.size()) + " outputs",
                std::to_string(inputs.size()) + " and " + std::to_string(outputs.size()));
  for (std::size_t i = 0; i < out.size(); ++i)
    results.push_back(at_address(out[i], outputs[i], output_shapes[i], nullptr));
  const nb::gil_scoped_release unlocked;
  c.run(given, results);
}

std::tuple<Executable, std::string, std::vector<std::string>> compile_graph(
    const PyGraph& graph, const std::string& target, bool strict, const std::string& isa, int threads,
    const std::string& precision, const std::string& storage, const std::string& tune, double rtol,
    bool freeze, const std::vector<std::string>& disable, const std::vector<nb::list>& samples,
    double tolerance, const std::vector<std::pair<int, int>>& updates) {
  CompileOptions options{.target = target,
                         .strict = strict,
                         .isa = isa,
                         .threads = threads,
                         .precision = precision,
                         .storage = storage,
                         .tolerance = tolerance,
                         .tune = tune,
                         .rtol = rtol,
                         .freeze = freeze,
                         .updates = updates,
                         .disable = disable};
  std::vector<Port> ports;
  for (const Node* n : graph.graph->inputs()) ports.push_back({n->name, n->out().type(), n->role, n->source});
  for (const nb::list& sample : samples) {
    const std::vector<Tensor> tensors = tensors_from(ports, sample);
    NamedTensors& named = options.samples.emplace_back();
    for (std::size_t i = 0; i < ports.size(); ++i) named[ports[i].name] = tensors[i];
  }
  CompileReport report;
  const nb::gil_scoped_release unlocked;
  Executable e = compile(*graph.graph, options, &report);
  return {std::move(e), report.target, report.warnings};
}

}  // namespace

void bind_executable(nb::module_& m) {
  nb::class_<Port>(m, "Port", "An input or output of an Executable.")
      .def_ro("name", &Port::name)
      .def_prop_ro("dtype", [](const Port& p) { return dtype_to(p.type.dtype); })
      .def_prop_ro(
          "shape", [](const Port& p) { return shape_to(p.type.shape); },
          nb::sig("def shape(self) -> tuple[int | str, ...]"))
      .def_prop_ro("role", [](const Port& p) { return p.role == Role::Parameter ? "parameter" : "argument"; })
      .def_ro("source", &Port::source)
      .def("__repr__",
           [](const Port& p) { return p.name + ": " + dtype_to(p.type.dtype) + str(p.type.shape); });

  nb::class_<Executable>(m, "Executable",
                         "A compiled graph; deepseek.Executable takes and gives arrays by name.")
      .def_prop_ro("inputs", [](const Executable& e) { return e.inputs(); })
      .def_prop_ro("outputs", [](const Executable& e) { return e.outputs(); })
      .def(
          "run",
          [](const Executable& e, const nb::list& inputs) {
            const std::vector<Tensor> given = tensors_from(e.inputs(), inputs);
            const nb::gil_scoped_release unlocked;
            return e.run(given);
          },
          nb::arg("inputs"), nb::sig("def run(self, inputs: list[Array | NDArray]) -> list[Array]"),
          "One array per input, of its dtype; one Array per output.")
      .def("explain", &Executable::explain)
      .def("save", &Executable::save, nb::arg("path"), nb::call_guard<nb::gil_scoped_release>())
      .def_static("load", &Executable::load, nb::arg("path"), nb::call_guard<nb::gil_scoped_release>())
      .def(
          "to_bytes",
          [](const Executable& e) {
            const std::string content = e.bytes();
            return nb::bytes(content.data(), content.size());
          },
          "What `save` writes.")
      .def_static(
          "from_bytes",
          [](const nb::bytes& content) {
            return Executable::from_bytes(
                std::span(static_cast<const std::byte*>(content.data()), content.size()));
          },
          nb::arg("content"));

  nb::class_<PyContext>(m, "Context",
                        "State to run an Executable with parameters that stay. Calls from several "
                        "threads take turns.")
      .def(
          "__init__", [](PyContext* self, const Executable& e) { new (self) PyContext(e); },
          nb::arg("executable"))
      .def_prop_ro("arena_bytes", &PyContext::arena_bytes, nb::call_guard<nb::gil_scoped_release>(),
                   "Memory for intermediate values at the sizes of the last run.")
      .def(
          "set_parameter",
          [](PyContext& c, int input, const Tensor& value, std::int64_t version) {
            const nb::gil_scoped_release unlocked;
            c.set_parameter(input, value, static_cast<std::uint64_t>(version));
          },
          nb::arg("input"), nb::arg("value"), nb::arg("version"),
          "Binds a parameter; what derives from it is kept until another address or version comes.")
      .def(
          "set_parameter_pointer", &set_parameter_pointer, nb::arg("input"), nb::arg("address"),
          nb::arg("shape"), nb::arg("version"), nb::arg("owner"),
          nb::sig(
              "def set_parameter_pointer(self, input: int, address: int, shape: Sequence[int], version: int, "
              "owner: object) -> None"),
          "The same from an address; `owner` is kept as long as it is bound.")
      .def(
          "run",
          [](PyContext& c, const nb::list& inputs) {
            const std::vector<Tensor> given = tensors_from(c.executable().inputs(), inputs);
            const nb::gil_scoped_release unlocked;
            std::vector<Tensor> made(c.executable().outputs().size());
            c.run(given, made);
            return made;
          },
          nb::arg("inputs"), nb::sig("def run(self, inputs: list[Array | NDArray | None]) -> list[Array]"),
          "One array per input, None for a parameter that was set.")
      .def("run_pointers", &run_pointers, nb::arg("inputs"), nb::arg("input_shapes"), nb::arg("outputs"),
           nb::arg("output_shapes"),
           nb::sig("def run_pointers(self, inputs: Sequence[int], input_shapes: Sequence[Sequence[int]], "
                   "outputs: Sequence[int], output_shapes: Sequence[Sequence[int]]) -> None"),
           "Addresses and shapes of row-major memory: of the inputs without set parameters, and of every "
           "output.");

  m.def(
      "compile", &compile_graph, nb::arg("graph"), nb::arg("target"), nb::arg("strict"), nb::arg("isa"),
      nb::arg("threads"), nb::arg("precision"), nb::arg("storage"), nb::arg("tune"), nb::arg("rtol"),
      nb::arg("freeze"), nb::arg("disable"), nb::arg("samples"), nb::arg("tolerance"),
      nb::arg("updates") = std::vector<std::pair<int, int>>(),
      nb::sig("def compile(graph: Graph, target: str, strict: bool, isa: str, threads: int, precision: str, "
              "storage: str, tune: str, rtol: float, freeze: bool, disable: Sequence[str], "
              "samples: Sequence[list[Array | NDArray]], tolerance: float, "
              "updates: Sequence[tuple[int, int]] = ()) -> tuple[Executable, str, list[str]]"),
      "Gives the executable, the target that was used, and warnings. `updates`: an output and an input each; "
      "the output is stored in that input's memory and is none of the executable's.");
  m.def("default_threads", &default_threads);
  m.def("build_and_machine", &build_and_machine,
        "This build and this machine's instruction set: a part of the key for whoever keeps executables.");
}

}  // namespace deepseek::python
