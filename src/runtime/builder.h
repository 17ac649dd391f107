// How lowering makes an executable: declare values, append steps in order, finish.
//
//   ExecutableBuilder b;
//   ValueId x = b.input("x", {DType::F32, {N, 8}});
//   ValueId w = b.constant(weights);
//   ValueId packed = b.temp({DType::F32, {8, 16}});
//   b.kernel(Phase::Prepare, pack_info, {pack_kernel, {}, {w, packed}, {}});
//   ValueId y = b.temp({DType::F32, {N, 16}});
//   b.kernel(Phase::Run, info, {kernel, {N}, {x, packed, y}, messages});
//   b.output("y", y);
//   Executable e = b.finish();
//
// Every value has one dense row-major piece of memory. A temporary written by a Prepare step is kept beyond
// the run; when it derives from constants alone it is computed by finish(), becomes a constant itself, and
// constants that no Run step reads any more are dropped. Any other temporary lives in the arena from the
// first step that names it to the last. Where an output lives is finish()'s business: the caller's memory
// when one step writes it there, a copy at the end when it is an input, a constant, or returned twice.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "deepseek/executable.h"
#include "runtime/step.h"

namespace deepseek {

enum class Phase : std::uint8_t {
  Prepare,  // reads constants, parameters and what Prepare steps wrote; dims are static; kernels, copies and
            // host steps
  Run,
};

class ExecutableBuilder {
 public:
  ExecutableBuilder();
  ~ExecutableBuilder();
  ExecutableBuilder(const ExecutableBuilder&) = delete;
  ExecutableBuilder& operator=(const ExecutableBuilder&) = delete;

  // Values. Symbols in inputs' shapes are bound from the arrays that come; every symbol must stand somewhere
  // as a*symbol + b (with other symbols known by then) or come from define(), a branch, a loop or a host
  // step.
  ValueId input(std::string name, Type type, Role role = Role::Argument, std::string source = "");
  ValueId constant(Tensor data);
  ValueId temp(Type type);
  // The memory of `of`, seen with another dtype or shape, `offset` elements (of type.dtype) further on. Both
  // reading and writing go through. Reshapes, slices of the first axis, the pieces of a concatenation.
  ValueId alias(ValueId of, Type type, Dim offset = 0);
  const Type& type(ValueId v) const;

  // Steps, in the order in which they run.
  void kernel(Phase phase, StepInfo info, KernelStep step);
  void copy(Phase phase, StepInfo info, ValueId from, ValueId to);
  // Symbols from data; they may be used by values and steps from here on (declare such values after this call
  // or before: what counts is that no earlier step uses them).
  void define(StepInfo info, ValueId values, std::vector<std::string> symbols);
  // Branches, loops and host steps make their outputs: one value per type.
  std::vector<ValueId> branch(StepInfo info, ValueId condition, Executable then, Executable otherwise,
                              std::vector<ValueId> inputs, std::vector<Type> outputs);
  std::vector<ValueId> loop(StepInfo info, Executable condition, Executable body,
                            std::vector<ValueId> initial, std::vector<ValueId> captured,
                            std::vector<int> parts, std::vector<Type> outputs);
  std::vector<ValueId> host(Phase phase, StepInfo info,
                            std::function<std::vector<Tensor>(std::span<const Tensor>)> run,
                            std::vector<ValueId> inputs, std::vector<Type> outputs);

  void output(std::string name, ValueId value);
  void equal(EqualDims dims);
  // Threads of the pool that runs it; 0: default_threads().
  void threads(int count);
  // What target the code is for, and a line for explain().
  void target(std::string name);
  void note(std::string line);

  // Throws Error{InvalidArgument} for a symbol that nothing defines, and what a Prepare step reports.
  Executable finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace deepseek
