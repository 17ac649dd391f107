// Importing ONNX models (opsets 7 to the newest). Every failure is one Error whose op is the node's op type and
// whose source names the model and the node.
//
// Initializers become constants, symbolic dims (dim_param) symbols, dims without a name fresh symbols. Inputs whose
// values decide shapes (Reshape's target, Slice's starts, TopK's k ...) must be constants or derive from constants
// and shapes; where they come from the user, OnnxProgram builds one graph per tuple of their values.
//
// External data is mapped, and large tables of it (embeddings) are read from the file as long as an executable lives:
// put a new file in its place by renaming it there, never by writing into the old one.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "deepseek/graph.h"

namespace deepseek {

struct OnnxImportOptions {
  std::string model = "model";  // what errors call the model
  // Where external data files live; nothing outside it is read. Empty: external data is an error.
  std::filesystem::path folder;
  // Overrides of the shapes of inputs, by name.
  std::map<std::string, Shape, std::less<>> shapes;
  // The most nodes that the model may have when loops are unrolled and functions stand where they are called.
  std::size_t max_nodes = std::size_t{1} << 17;
};

Graph import_onnx(std::span<const std::byte> model, const OnnxImportOptions& options = {});
Graph import_onnx(const std::filesystem::path& path);  // model and folder of the options come from the path

// What an input or output of a model is. The elements of a sequence "x" are inputs "x[0]", "x[1]" ... of the graph.
enum class OnnxKind : std::uint8_t { Tensor, Sequence, Optional, OptionalSequence };

struct OnnxInput {
  std::string name;
  Type
      type;  // dtype and shape as the model declares them, symbols in place of dynamic dims; of a sequence: its
             // elements' dtype
  OnnxKind kind = OnnxKind::Tensor;
};

struct OnnxOutput {
  std::string name;
  OnnxKind kind = OnnxKind::Tensor;
};

// A model whose graph may depend on the values of some inputs ("shape-like" inputs). Which ones is found while
// importing; they stay inputs of the graph, and are also known while it is built. Thread-safe.
class OnnxProgram {
 public:
  // The value of the input of this name, or nothing: of an optional one that is absent, and of the element after a
  // sequence's last. Graphs are cached by the values asked for.
  using Values = std::function<std::optional<Tensor>(std::string_view name)>;

  // Reads and checks the model; throws Error.
  OnnxProgram(std::span<const std::byte> model, OnnxImportOptions options = {});
  explicit OnnxProgram(const std::filesystem::path& path);
  ~OnnxProgram();
  OnnxProgram(OnnxProgram&&) noexcept;
  OnnxProgram& operator=(OnnxProgram&&) noexcept;

  const std::vector<OnnxInput>& inputs() const;  // without those that initializers stand for
  std::vector<OnnxOutput> outputs() const;
  // Inputs that are known to decide shapes, sequences and optionals among them. It may grow when a value of one leads to a branch that asks for another.
  std::vector<std::string> shape_inputs() const;
  // The graph for these values of the shape inputs, built or from the cache. With no shape inputs, `values` is
  // never called. Throws Error{InvalidArgument} when a value is needed and not given.
  std::shared_ptr<const Graph> graph_for(const Values& values);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace deepseek
