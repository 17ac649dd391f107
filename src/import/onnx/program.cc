#include <map>
#include <mutex>

#include "import/onnx/importer.h"

namespace deepseek {

using onnx_import::Importer;
using onnx_import::NeedsValues;
using onnx_import::Source;

struct OnnxProgram::State {
  std::mutex mutex;
  Source source;
  std::vector<OnnxInput> inputs;
  std::set<std::string, std::less<>> wanted;
  std::map<std::string, std::shared_ptr<const Graph>> graphs;  // by the bytes of the values

  State(std::span<const std::byte> model, OnnxImportOptions options) : source(model, std::move(options)) {
    inputs = source.inputs();
  }

  // Names, dtypes, dims and bytes of the values that are wanted.
  std::string key(const Values& values) const {
    std::string key;
    for (const std::string& name : wanted) {
      const auto t = values ? values(name) : std::nullopt;
      if (!t)
        throw Error(Code::InvalidArgument, "input", source.options.model + ": '" + name + "'",
                    "a value, because it decides a shape", "none");
      key += name + '\0' + std::string(deepseek::name(t->dtype())) + str(t->dims()) + '\0';
      if (t->bytes() > 0) key.append(static_cast<const char*>(t->data()), t->bytes());
    }
    return key;
  }

  std::shared_ptr<const Graph> build(const Values& values) {
    for (;;) {
      const std::string k = key(values);
      const auto it = graphs.find(k);
      if (it != graphs.end()) return it->second;
      try {
        auto graph = std::make_shared<const Graph>(Importer(source, values, wanted).run());
        return graphs[k] = std::move(graph);
      } catch (const NeedsValues& needs) {
        wanted.insert(needs.inputs.begin(), needs.inputs.end());
      }
    }
  }

  // Finds what the import asks for at first.
  void probe() {
    try {
      graphs[""] = std::make_shared<const Graph>(Importer(source, {}, wanted).run());
    } catch (const NeedsValues& needs) {
      wanted.insert(needs.inputs.begin(), needs.inputs.end());
    }
  }
};

namespace {

OnnxImportOptions options_for(const std::filesystem::path& path) {
  OnnxImportOptions options;
  options.model = path.filename().string();
  options.folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  return options;
}

}  // namespace

OnnxProgram::OnnxProgram(std::span<const std::byte> model, OnnxImportOptions options)
    : state_(std::make_unique<State>(model, std::move(options))) {
  state_->probe();
}

OnnxProgram::OnnxProgram(const std::filesystem::path& path)
    : OnnxProgram(*onnx_import::map_file(path, path.filename().string()), options_for(path)) {}

OnnxProgram::~OnnxProgram() = default;
OnnxProgram::OnnxProgram(OnnxProgram&&) noexcept = default;
OnnxProgram& OnnxProgram::operator=(OnnxProgram&&) noexcept = default;

const std::vector<OnnxInput>& OnnxProgram::inputs() const { return state_->inputs; }

std::vector<std::string> OnnxProgram::outputs() const {
  std::vector<std::string> names;
  for (const auto& o : state_->source.model->graph().output()) names.push_back(o.name());
  return names;
}

std::vector<std::string> OnnxProgram::shape_inputs() const {
  const std::lock_guard lock(state_->mutex);
  return {state_->wanted.begin(), state_->wanted.end()};
}

std::shared_ptr<const Graph> OnnxProgram::graph_for(const Values& values) {
  const std::lock_guard lock(state_->mutex);
  return state_->build(values);
}

Graph import_onnx(std::span<const std::byte> model, const OnnxImportOptions& options) {
  Source source(model, options);
  try {
    return Importer(source, {}, {}).run();
  } catch (const NeedsValues& needs) {
    throw Error(Code::Unsupported, "input", options.model + ": '" + needs.inputs.front() + "'",
                "inputs that decide no shapes (OnnxProgram takes the others)", "one whose value is needed");
  }
}

Graph import_onnx(const std::filesystem::path& path) {
  return import_onnx(*onnx_import::map_file(path, path.filename().string()), options_for(path));
}

}  // namespace deepseek
