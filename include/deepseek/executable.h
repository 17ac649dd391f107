// A compiled graph: an immutable Executable, and Contexts that run it.
//
// An Executable is generic in its symbolic dims. The first run at given dims makes a plan (offsets in the
// arena, loop extents, scratch sizes); later runs at those dims find it. Any number of Contexts may run one
// Executable at once, each used by one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "deepseek/executor.h"
#include "deepseek/shape.h"
#include "deepseek/tensor.h"
#include "deepseek/type.h"

namespace deepseek {

struct ExecutableData;  // src/runtime/executable.h

// One input or output.
struct Port {
  std::string name;
  Type type;
  Role role = Role::Argument;
  std::string source;  // where the user made it, for errors
};

using NamedTensors = std::map<std::string, Tensor, std::less<>>;

class Executable {
 public:
  Executable() = default;
  explicit Executable(std::shared_ptr<const ExecutableData> data) : data_(std::move(data)) {}

  explicit operator bool() const { return data_ != nullptr; }
  const ExecutableData& data() const { return *data_; }
  const std::shared_ptr<const ExecutableData>& share() const { return data_; }
  const std::vector<Port>& inputs() const;
  const std::vector<Port>& outputs() const;

  // Runs on a context that no one else is using now. Throws Error that names the input when one is missing,
  // unknown or of a wrong dtype, rank or dim, and Error that names the op and its source when a step fails.
  NamedTensors run(const NamedTensors& inputs) const;
  std::vector<Tensor> run(std::span<const Tensor> inputs) const;
  // The same into memory of the caller's, as Context::run has it.
  void run(std::span<const Tensor> inputs, std::span<Tensor> outputs) const;

  // What was compiled and why: one line per step (name, source, ops fused, FLOPs, bytes) and the compiler's
  // notes.
  std::string explain() const;

  // Adds lines to what explain() says; only before anyone else has this Executable.
  void note(std::vector<std::string> lines);

  // A file that `load` brings back on a machine with the same instruction set. Loading code means trusting
  // it: the checksum finds damage, not malice. Throws Error{Unsupported} for what cannot be saved (steps that
  // run in the host framework) and Error{DataLoss} for a file that is damaged or from another version.
  void save(const std::string& path) const;
  static Executable load(const std::string& path);
  // What such a file holds.
  std::string bytes() const;
  static Executable from_bytes(std::span<const std::byte> bytes);

 private:
  std::shared_ptr<const ExecutableData> data_;
};

// Called after every step when set; `name` and `source` live as long as the Executable.
struct StepTrace {
  const char* name;
  const char* source;
  std::int64_t begin_ns, end_ns;  // steady clock
  double flops, bytes;            // at the bound dims
};
using TraceFn = void (*)(void* user, const StepTrace& step);

// Memory that changes hands while a run goes on, so that less of it is in use at once. Called on the thread that runs.
struct Handover {
  // Points the tensor at memory for that output, which no step has written yet; its dims are checked.
  std::function<void(int output, Tensor& to)> take;
  // No step reads that input from here on. Never called for a parameter, nor for an input that no step reads.
  std::function<void(int input)> release;
};

class Context {
 public:
  struct State;  // src/runtime/context.h

  // `executor`: null for the pool that the executable was compiled for.
  explicit Context(Executable executable, std::shared_ptr<Executor> executor = nullptr);
  ~Context();
  Context(Context&&) noexcept;
  Context& operator=(Context&&) noexcept;

  // Binds a Parameter input until the next call. What derives from it (packed weights) is kept until a call
  // brings another address or another version.
  void set_parameter(int input, Tensor value, std::uint64_t version);

  // Runs. `inputs`: one per input, in order; an undefined one stands for the parameter that was set. A
  // parameter passed here is unversioned: what derives from it is computed anew. `outputs`: one per output;
  // undefined ones are allocated, defined ones are written (their dtype and dims must be right, and they must
  // not overlap inputs). When all are defined and these dims ran before, nothing is allocated, unless the end of another
  // context has freed the memory that contexts lend each other.
  void run(std::span<const Tensor> inputs, std::span<Tensor> outputs);
  // The same, but each output's memory is asked for when the first step writes it, whatever is in `outputs`, and each
  // input is released when the last step has read it. An input released may be freed, or come back as an output's memory.
  void run(std::span<const Tensor> inputs, std::span<Tensor> outputs, const Handover& handover);

  void set_trace(TraceFn trace, void* user);
  // Memory for intermediate values at the dims of the last run.
  std::size_t arena_bytes() const;
  // Reads the memory that runs reuse, not what is prepared, into the caches: for timing a run whose weights alone have
  // left them.
  void warm() const;

 private:
  friend class Profiler;  // src/runtime/profile.cc
  std::unique_ptr<State> state_;
};

}  // namespace deepseek
