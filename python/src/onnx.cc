// ONNX models.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <filesystem>

#include "convert.h"
#include "deepseek/export_onnx.h"
#include "deepseek/import_onnx.h"
#include "deepseek/onnxruntime.h"

namespace deepseek::python {
namespace {

struct ImportedGraph {
  std::shared_ptr<const Graph> graph;
};

const char* kind_name(OnnxKind kind) {
  switch (kind) {
    case OnnxKind::Tensor:
      return "tensor";
    case OnnxKind::Sequence:
      return "sequence";
    case OnnxKind::Optional:
      return "optional";
    case OnnxKind::OptionalSequence:
      return "optional_sequence";
  }
  return "";
}

OnnxProgram from_bytes(const nb::bytes& model, const std::string& folder) {
  OnnxImportOptions options;
  options.folder = folder;
  const auto* data = static_cast<const std::byte*>(model.data());
  const nb::gil_scoped_release unlocked;
  return OnnxProgram({data, model.size()}, std::move(options));
}

ImportedGraph graph_for(OnnxProgram& program, const nb::dict& values) {
  std::map<std::string, Tensor, std::less<>> known;
  for (const auto& [name, array] : values)
    known.emplace(nb::cast<std::string>(name), nb::cast<Tensor>(array));
  const nb::gil_scoped_release unlocked;
  return {program.graph_for([&](std::string_view name) -> std::optional<Tensor> {
    const auto it = known.find(name);
    return it == known.end() ? std::nullopt : std::optional(it->second);
  })};
}

}  // namespace

void bind_onnx(nb::module_& m) {
  nb::class_<ImportedGraph>(m, "OnnxGraph", "A graph for given values of a model's shape inputs.")
      .def_prop_ro("key",
                   [](const ImportedGraph& g) { return reinterpret_cast<std::uintptr_t>(g.graph.get()); })
      .def("graph",
           [](const ImportedGraph& g) { return PyGraph{std::make_shared<Graph>(g.graph->clone()), false}; });
  nb::class_<OnnxProgram>(m, "OnnxProgram",
                          "An ONNX model, whose graph may depend on the values of some inputs.")
      .def_static(
          "read",
          [](const std::string& path) {
            const nb::gil_scoped_release unlocked;
            return OnnxProgram(std::filesystem::path(path));
          },
          nb::arg("path"))
      .def_static("parse", &from_bytes, nb::arg("model"), nb::arg("folder") = "",
                  "From the model's bytes; `folder`: where its external data may lie.")
      .def_prop_ro("inputs",
                   [](const OnnxProgram& p) {
                     std::vector<Port> ports;
                     for (const OnnxInput& i : p.inputs()) ports.push_back({i.name, i.type, Role::Argument});
                     return ports;
                   })
      .def_prop_ro(
          "kinds",
          [](const OnnxProgram& p) {
            nb::dict kinds;
            for (const OnnxInput& i : p.inputs()) kinds[i.name.c_str()] = kind_name(i.kind);
            return kinds;
          },
          nb::sig("def kinds(self) -> dict[str, str]"),
          "What each input is: tensor, sequence, optional or optional_sequence.")
      .def_prop_ro(
          "outputs",
          [](const OnnxProgram& p) {
            nb::dict kinds;
            for (const OnnxOutput& o : p.outputs()) kinds[o.name.c_str()] = kind_name(o.kind);
            return kinds;
          },
          nb::sig("def outputs(self) -> dict[str, str]"), "What each output is, in order.")
      .def_prop_ro(
          "shape_inputs", [](const OnnxProgram& p) { return p.shape_inputs(); },
          "Inputs whose values decide shapes, as far as that is known.")
      .def("graph_for", &graph_for, nb::arg("values"),
           nb::sig("def graph_for(self, values: dict[str, Array]) -> OnnxGraph"),
           "The graph for these values of inputs; the same key for the same graph.");
  m.def(
      "export_onnx",
      [](const PyGraph& g, const std::string& path) {
        const nb::gil_scoped_release unlocked;
        export_onnx(*g.graph, std::filesystem::path(path));
      },
      nb::arg("graph"), nb::arg("path"), "Writes a graph as an ONNX model.");
  m.def("onnxruntime_library", &onnxruntime_library);
}

}  // namespace deepseek::python
