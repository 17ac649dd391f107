#include "runtime/binding.h"

#include <algorithm>
#include <limits>
#include <set>

#include "deepseek/guard.h"
#include "runtime/launch.h"
#include "runtime/plan.h"

namespace deepseek {
namespace {

std::int64_t bytes_of(const Type& type, const DimEnv& env) {
  const Dims dims = eval(type.shape, env);
  for (const std::int64_t d : dims)
    if (d < 0)
      throw Error(Code::InvalidArgument, "", "", "dims of at least 0 in " + str(type.shape), str(dims));
  const std::int64_t count = numel(dims);
  if (count > std::numeric_limits<std::int64_t>::max() / 32)
    throw Error(Code::ResourceExhausted, "", "", "a value that fits in memory", str(dims));
  return bytes(type.dtype, count);
}

// 0 when it depends on what only the step itself finds out.
double estimate(const Dim& d, const DimEnv& env) {
  std::vector<std::string> symbols;
  d.symbols(symbols);
  for (const std::string& s : symbols)
    if (!env.contains(s)) return 0;
  return static_cast<double>(d.eval(env));
}

// Which values steps have written so far.
class Written {
 public:
  explicit Written(const ExecutableData& data) : data_(data) {}

  // A step is next. Whether all that it is the first to name, and so writes, has no elements: whatever its loops go over
  // beside those, there is nothing to compute.
  bool is_empty(const KernelStep& kernel, const DimEnv& env) {
    bool any = false, empty = true;
    for (const ValueId arg : kernel.args) {
      if (arg == kWorkspace) continue;
      const ValueId v = memory(arg);
      const ValueInfo& info = data_.values[static_cast<std::size_t>(v)];
      if ((info.place != Place::Temp && info.place != Place::Output) || !named_.insert(v).second) continue;
      any = true;
      empty = empty && has_no_elements(info.type, env);
    }
    return any && empty;
  }
  void note(const Step& step) {
    if (const auto* kernel = std::get_if<KernelStep>(&step.work))
      for (const ValueId arg : kernel->args)
        if (arg != kWorkspace) named_.insert(memory(arg));
    if (const auto* copy = std::get_if<CopyStep>(&step.work)) named_.insert(memory(copy->to));
  }

 private:
  ValueId memory(ValueId v) const {
    while (data_.values[static_cast<std::size_t>(v)].place == Place::Alias)
      v = data_.values[static_cast<std::size_t>(v)].index;
    return v;
  }
  static bool has_no_elements(const Type& type, const DimEnv& env) {
    std::vector<std::string> symbols;
    for (const Dim& d : type.shape) d.symbols(symbols);
    for (const std::string& s : symbols)
      if (!env.contains(s)) return false;
    return numel(eval(type.shape, env)) == 0;
  }

  const ExecutableData& data_;
  std::set<ValueId> named_;
};

}  // namespace

Binding bind_segment(const ExecutableData& data, int index, DimEnv env) {
  const Segment& segment = data.segments[static_cast<std::size_t>(index)];
  Binding b;
  std::vector<Lifetime> lifetimes;
  for (const ValueId v : segment.temps) {
    const TempLife& life = data.temps[static_cast<std::size_t>(v)];
    const StepInfo& info = data.steps[static_cast<std::size_t>(life.first)].info;
    try {
      lifetimes.push_back(
          {bytes_of(data.values[static_cast<std::size_t>(v)].type, env), life.first, life.last});
    } catch (const Error& e) {
      throw e.with_context(info.op, info.source);
    }
  }
  b.steps.resize(static_cast<std::size_t>(segment.end - segment.begin));
  Written written(data);
  for (int i = 0; i < segment.begin; ++i) written.note(data.steps[static_cast<std::size_t>(i)]);
  for (int i = segment.begin; i < segment.end; ++i) {
    const Step& step = data.steps[static_cast<std::size_t>(i)];
    BoundStep& bound = b.steps[static_cast<std::size_t>(i - segment.begin)];
    try {
      const auto* kernel = std::get_if<KernelStep>(&step.work);
      if (!kernel) {
        written.note(step);
        continue;
      }
      bound.flops = estimate(step.info.flops, env);
      bound.bytes = estimate(step.info.bytes, env);
      bound.work_ns = work_ns(bound.flops, bound.bytes);
      bound.dims = eval(kernel->dims, env);
      bound.shape = kernel->kernel->shape(bound.dims);
      if (written.is_empty(*kernel, env)) std::fill(bound.shape.grid.begin(), bound.shape.grid.end(), 0);
    } catch (const Error& e) {
      throw e.with_context(step.info.op, step.info.source);
    }
    b.scratch_bytes = std::max(b.scratch_bytes, most_scratch(bound.shape));
    bound.first_workspace = lifetimes.size();
    for (const std::int64_t bytes : bound.shape.workspace_bytes) lifetimes.push_back({bytes, i, i});
  }
  MemoryPlan plan = plan_memory(lifetimes);
  b.arena_bytes = plan.arena_bytes;
  b.lower_bound = plan.lower_bound;
  b.offsets = std::move(plan.offsets);
  if (guard() != Guard::None)
    for (const Lifetime& l : lifetimes) b.guarded.emplace_back(DType::U8, Dims{l.bytes});
  for (const int k : segment.new_outputs)
    b.outputs.emplace_back(k, eval(data.outputs[static_cast<std::size_t>(k)].type.shape, env));
  b.env = std::move(env);
  return b;
}

}  // namespace deepseek
