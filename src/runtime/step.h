// What an executable is made of: values, and steps that compute them. Plain data; builder.h makes it,
// context.cc runs it, serialize.cc saves it.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "deepseek/shape.h"
#include "deepseek/tensor.h"
#include "deepseek/type.h"
#include "runtime/kernel.h"

namespace deepseek {

struct ExecutableData;

using ValueId = int;
inline constexpr ValueId kWorkspace =
    -1;  // in KernelStep::args: a Workspace parameter, planned like a temporary

enum class Place : std::uint8_t {
  Input,     // the caller's; index: which input
  Output,    // the caller's, written; index: which output
  Constant,  // part of the executable; index: into ExecutableData::constants
  Prepared,  // computed by prepare steps from parameters; index: which
  Temp,      // in the arena
  Alias,     // index: the value whose memory this shares, from `offset` on
  Held,      // allocated when its step runs, as its dims are known only then (branches, loops, host steps)
};

struct ValueInfo {
  Type type;
  Place place = Place::Temp;
  int index = 0;
  Dim offset = 0;  // Alias: in elements of its own dtype
};

// Where time goes and whom to blame.
struct StepInfo {
  std::string name;    // of the kernel: "conv1_relu"
  std::string op;      // for errors: the op whose checks may fail
  std::string source;  // the user's line or module path
  Dim flops = 0, bytes = 0;
  std::string way;  // that lowering took: "gemm", "map", ...
};

// Runs a kernel. `dims`: what Program::symbols stand for, in order. `args`: one value per parameter of the
// program, in order. `messages`: Program::messages.
struct KernelStep {
  std::shared_ptr<const Kernel> kernel;
  std::vector<Dim> dims;
  std::vector<ValueId> args;
  std::vector<std::string> messages;
};

// Reads an I32 or I64 value on the host and gives its elements to new symbols; shapes of later values may use
// them. `values` may be an input: that is how a shape that comes as data is bound.
struct DefineStep {
  ValueId values;
  std::vector<std::string> symbols;
};

struct CopyStep {
  ValueId from, to;  // of equal dtype and number of elements
};

// Runs one of two executables, both with these inputs in order. Symbols in the outputs' shapes that are not
// known yet are taken from the dims that come out.
struct BranchStep {
  ValueId condition;  // one element: Bool or integer
  std::shared_ptr<const ExecutableData> then, otherwise;
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;  // Held
};

// state = initial; while (condition(state, captured)) state = body(state, captured)
// The condition gives one element, Bool or integer. Dims of the state may differ from one iteration to the next. Of each
// of the states `parts` the body gives a part, which is stored over the state, and after all states (in the same order)
// the coordinates of the part's first element, which are moved so that it lies within.
struct LoopStep {
  std::shared_ptr<const ExecutableData> condition, body;
  std::vector<ValueId> initial, captured;
  std::vector<int> parts;
  std::vector<ValueId> outputs;  // Held: the final state
};

// Runs in the host process: an op of another framework, shape arithmetic on strings. Cannot be saved.
struct HostStep {
  std::function<std::vector<Tensor>(std::span<const Tensor>)> run;
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;  // Held
};

struct Step {
  StepInfo info;
  std::variant<KernelStep, DefineStep, CopyStep, BranchStep, LoopStep, HostStep> work;
};

}  // namespace deepseek
