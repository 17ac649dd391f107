// The state of one thread of execution through an executable. See include/deepseek/executable.h.
#pragma once

#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "deepseek/executable.h"
#include "runtime/binding.h"
#include "runtime/executable.h"
#include "runtime/launch.h"

namespace deepseek {

class Recorder;

struct KeyHash {
  std::size_t operator()(const std::vector<std::int64_t>& key) const;
};

struct Context::State {
  State(std::shared_ptr<const ExecutableData> executable, std::shared_ptr<Executor> executor);
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { free_idle_memory(); }

  std::shared_ptr<const ExecutableData> owner;
  const ExecutableData& data;
  std::shared_ptr<Executor> executor;
  TraceFn trace = nullptr;
  void* trace_user = nullptr;
  Recorder* recorder = nullptr;  // of a run that is profiled

  struct Parameter {
    Tensor value;
    std::uint64_t version = 0;
  };
  std::vector<Parameter> parameters;  // by input; undefined until set

  struct Memory {
    std::unordered_map<std::vector<std::int64_t>, std::unique_ptr<Binding>, KeyHash> bindings;
    Binding* active = nullptr;
    std::vector<std::int64_t> active_key;
  };
  std::vector<Memory> segments;
  std::shared_ptr<const Prepared> prepared;
  std::vector<Tensor> held;
  std::map<std::pair<int, int>, std::unique_ptr<Context>> children;  // by step and which
  std::uint64_t epoch = 1;  // counts what makes addresses in bindings stale
  std::uint64_t stamp = 0;  // of the working memory that those addresses are in
  std::uint64_t runs = 0;

  // Of the run in progress.
  WorkingMemory* working = nullptr;
  std::vector<const Tensor*> inputs;
  std::span<Tensor> outputs;
  const Handover* handover = nullptr;
  std::vector<std::int64_t> key;                              // all dims of inputs, then what steps defined
  std::vector<std::pair<std::string, std::int64_t>> defined;  // by the steps of this segment

  void run(std::span<const Tensor> given, std::span<Tensor> results, const Handover* hand_over = nullptr);
  void run_segment(int segment);
  void give_held(std::span<Tensor> results);
  void take_inputs(std::span<const Tensor> given);
  void prepare(std::span<const Tensor> given);
  void activate(int segment);
  DimEnv env_for(int segment) const;
  void fill_addresses(Binding& b, int segment);
  void take_outputs(const Binding& b);
  void take_output(int output);
  void run_step(int index, BoundStep& bound);
  void copy(const CopyStep& step);

  // Where a value is now.
  std::byte* address(ValueId v) const;
  const DimEnv& env() const;
  Dims dims(ValueId v) const;
  Tensor view(ValueId v) const;  // not owning
  bool truth(const Tensor& t, const StepInfo& info) const;

  // control.cc
  Context& child(int step, int which, const std::shared_ptr<const ExecutableData>& executable);
  void branch(int index, const Step& step, const BranchStep& work);
  void loop(int index, const Step& step, const LoopStep& work);
  void host(int index, const Step& step, const HostStep& work);
  void define(const Step& step, const DefineStep& work);
  // Stores what a step made, and gives the symbols in its outputs' shapes their values.
  void hold(int index, const Step& step, std::span<const ValueId> ids, std::vector<Tensor> made);
};

}  // namespace deepseek
