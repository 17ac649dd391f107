#include <algorithm>
#include <map>
#include <mutex>

#include "import/onnx/importer.h"
#include "runtime/mapped_file.h"

namespace deepseek {

using onnx_import::Importer;
using onnx_import::NeedsInputs;
using onnx_import::Source;

namespace {
constexpr std::size_t kKept = 64;  // graphs of one model
}

struct OnnxProgram::State {
  std::mutex mutex;
  Source source;
  std::vector<OnnxInput> inputs;
  onnx_import::Wanted wanted;
  std::map<std::string, std::shared_ptr<const Graph>> graphs;  // by the bytes of the values

  State(std::span<const std::byte> model, OnnxImportOptions options) : source(model, std::move(options)) {
    inputs = source.inputs();
  }

  static std::string describe(const std::string& name, const Tensor& t) {
    return name + '\0' + std::string(deepseek::name(t.dtype())) + str(t.dims()) + '\0';
  }

  // Types of optionals and of the elements of sequences; types and bytes of the values that are wanted.
  std::string key(const Values& values) const {
    std::string key;
    for (const OnnxInput& input : inputs) {
      if (input.kind == OnnxKind::Tensor || !values) continue;
      const bool one = input.kind == OnnxKind::Optional;
      for (std::size_t i = 0; !one || i == 0; ++i) {
        const std::string name = one ? input.name : onnx_import::element_name(input.name, i);
        const auto t = values(name);
        if (!t) break;
        key += describe(name, *t);
      }
    }
    for (const std::string& name : wanted.shapes) {
      const auto t = values ? values(name) : std::nullopt;
      if (!t)
        throw Error(Code::InvalidArgument, "input", source.options.model + ": '" + name + "'",
                    "an array, because its shape decides others", "none");
      key += describe(name, *t);
    }
    for (const std::string& name : wanted.values) {
      const auto declared =
          std::find_if(inputs.begin(), inputs.end(), [&](const OnnxInput& i) { return i.name == name; });
      const auto t = values ? values(name) : std::nullopt;
      const bool may_lack = declared == inputs.end() || declared->kind != OnnxKind::Tensor;
      if (!t && may_lack && values) continue;
      if (!t)
        throw Error(Code::InvalidArgument, "input", source.options.model + ": '" + name + "'",
                    "a value, because it decides a shape", "none");
      key += describe(name, *t);
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
        if (graphs.size() >= kKept) graphs.erase(graphs.begin());
        return graphs[k] = std::move(graph);
      } catch (const NeedsInputs& needs) {
        wanted.add(needs);
      }
    }
  }

  // Finds what the import asks for at first.
  void probe() {
    try {
      graphs[""] = std::make_shared<const Graph>(Importer(source, {}, wanted).run());
    } catch (const NeedsInputs& needs) {
      wanted.add(needs);
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
    : OnnxProgram(*map_file(path, path.filename().string()), options_for(path)) {}

OnnxProgram::~OnnxProgram() = default;
OnnxProgram::OnnxProgram(OnnxProgram&&) noexcept = default;
OnnxProgram& OnnxProgram::operator=(OnnxProgram&&) noexcept = default;

const std::vector<OnnxInput>& OnnxProgram::inputs() const { return state_->inputs; }

std::vector<OnnxOutput> OnnxProgram::outputs() const {
  std::vector<OnnxOutput> result;
  for (const auto& o : state_->source.model->graph().output())
    result.push_back({o.name(), onnx_import::kind_of(o.type())});
  return result;
}

std::vector<std::string> OnnxProgram::shape_inputs() const {
  const std::lock_guard lock(state_->mutex);
  std::set<std::string> names(state_->wanted.values.begin(), state_->wanted.values.end());
  names.insert(state_->wanted.shapes.begin(), state_->wanted.shapes.end());
  return {names.begin(), names.end()};
}

std::shared_ptr<const Graph> OnnxProgram::graph_for(const Values& values) {
  const std::lock_guard lock(state_->mutex);
  return state_->build(values);
}

Graph import_onnx(std::span<const std::byte> model, const OnnxImportOptions& options) {
  Source source(model, options);
  try {
    return Importer(source, {}, {}).run();
  } catch (const NeedsInputs& needs) {
    throw Error(Code::Unsupported, "input",
                options.model + ": '" + (needs.values.empty() ? needs.shapes : needs.values).front() + "'",
                "inputs that decide no shapes (OnnxProgram takes the others)", "one whose value is needed");
  }
}

Graph import_onnx(const std::filesystem::path& path) {
  return import_onnx(*map_file(path, path.filename().string()), options_for(path));
}

}  // namespace deepseek
