#include "passes/lower.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <span>

#include "deepseek/executor.h"
#include "kernels/attention.h"
#include "kernels/cascade.h"
#include "kernels/lowered.h"
#include "loops/simplify.h"
#include "passes/alike.h"
#include "passes/cascade.h"
#include "passes/groups.h"
#include "passes/in_place.h"
#include "passes/loop_parts.h"
#include "passes/pipeline.h"
#include "passes/tune.h"
#include "passes/updates.h"
#include "runtime/builder.h"
#include "runtime/in_parallel.h"

namespace deepseek {

namespace {

using kernels::Arg;
using kernels::Call;
using kernels::Lowered;

class Lowering {
 public:
  Lowering(const Graph& graph, Target& target, const LowerOptions& options)
      : graph_(graph), target_(target), options_(options) {}

  Executable run() {
    for (const Node* n : graph_.inputs()) {
      const ValueId v = builder_.input(n->name, n->outputs[0], n->role, n->source);
      ids_[key(n->out())] = v;
      if (n->role == Role::Parameter && options_.freeze) fixed_.insert(v);
    }
    for (const EqualDims& dims : graph_.equalities()) builder_.equal(dims);
    builder_.threads(options_.threads);
    builder_.target(target_.info().name + " " + target_.info().isa);

    const std::set<const Node*> fixed = fixed_nodes(graph_, options_.freeze);
    const int threads = options_.threads == 0 ? default_threads() : options_.threads;
    const kernels::LoweringContext context{target_.info(),     options_.disabled, fixed,
                                           options_.precision, options_.rtol,     threads};
    std::vector<Group> groups = form_groups(graph_, options_.fuse);
    if (options_.fuse && kernels::takes_attention(context))
      groups = join_attention(graph_, std::move(groups));
    const std::size_t apart = groups.size();
    if (options_.fuse && kernels::takes_cascades(context))
      for (Group& g : find_cascades(graph_, groups)) groups.push_back(std::move(g));
    choices_ = choose_ways(groups, context, target_, options_);
    settle_cascades(groups, choices_, apart);
    const InPlace in_place = find_in_place(groups, fixed);
    std::vector<Lowered> lowered = lower_all(groups, in_place.groups, context);
    std::set<Key> placed;
    for (const PlacedPiece& p : in_place.pieces) placed.insert(key(p.value));
    const std::vector<Update> updates = updates_of(graph_, options_.updates);
    std::set<int> in_memory;  // updates that kernels store over what they replace
    for (const PlacedPiece& p : in_place.pieces)
      ids_[key(p.value)] = builder_.alias(memory(p.whole), p.value.type(), p.offset);
    for (const Update& u : store_in_place(updates, groups, lowered, fixed, placed)) {
      in_memory.insert(u.output);
      const Value made = memory_of(u.value);
      const ValueId over = builder_.alias(id(u.input), made.type());
      ids_[key(made)] = over;
      overwritten_.insert(over);
    }
    std::vector<loops::Program> programs;
    for (const Lowered& l : lowered)
      for (const Call& c : l.calls) programs.push_back(c.program);
    const auto compiled = target_.compile(programs);
    std::vector<ValueId> results = keep_old(updates);
    std::size_t next = 0;
    for (std::size_t i = 0; i < groups.size(); ++i) {
      if (groups[i].kind == GroupKind::Control) {
        control(*groups[i].anchor);
      } else if (in_place.groups.contains(i)) {
        builder_.note(noted(groups[i], "in place"));
      } else {
        append(groups[i], lowered[i], choices_[i], compiled, next);
      }
    }
    finish_outputs(updates, in_memory, results);
    return builder_.finish();
  }

 private:
  using Key = std::pair<const Node*, int>;
  static Key key(Value v) { return {v.node, v.index}; }

  static StepInfo copying(const std::string& name, const Type& type) {
    const Dim bytes = floordiv(Dim(2) * numel(type.shape) * Dim(bits(type.dtype)), 8);
    return {"copy_" + name, "copy", "", 0, bytes, ""};
  }

  // Outputs by number, where they are known before the first step: copies of inputs that the run writes.
  std::vector<ValueId> keep_old(std::span<const Update> updates) {
    const std::vector<Output> outputs = graph_.outputs();
    std::vector<ValueId> results(outputs.size(), kWorkspace);
    for (std::size_t k = 0; k < outputs.size(); ++k) {
      const Value value = outputs[k].value;
      const bool written = std::any_of(updates.begin(), updates.end(), [&](const Update& u) {
        const bool stays = u.output == static_cast<int>(k);
        return !stays && u.input == memory_of(value);
      });
      if (!written) continue;
      results[k] = builder_.temp(value.type());
      builder_.copy(Phase::Run, copying(outputs[k].name, value.type()), id(value), results[k]);
    }
    return results;
  }

  // Copies the updates that no kernel has `stored`, and returns the other outputs.
  void finish_outputs(std::span<const Update> updates, const std::set<int>& stored,
                      std::span<ValueId> results) {
    const std::vector<Output> outputs = graph_.outputs();
    std::set<int> updating;
    for (std::size_t k = 0; k < outputs.size(); ++k)
      if (results[k] == kWorkspace) results[k] = id(outputs[k].value);
    for (const Update& u : updates) {
      updating.insert(u.output);
      const ValueId from = results[static_cast<std::size_t>(u.output)];
      if (memory_of(u.value) == u.input || stored.contains(u.output)) continue;
      builder_.copy(Phase::Run, copying(u.input.node->name, u.value.type()), from, id(u.input));
    }
    for (std::size_t k = 0; k < outputs.size(); ++k)
      if (!updating.contains(static_cast<int>(k))) builder_.output(outputs[k].name, results[k]);
  }

  // Kernels compute with real numbers.
  static void check_supported(const Node& n) {
    for (const Type& t : n.outputs)
      if (is_complex(t.dtype) || t.dtype == DType::String)
        throw Error(Code::Unsupported, std::string(n.op_name()), n.source, "results of a real dtype", str(t));
  }

  // Of each group that is not `left_out`, the programs named by their place among all.
  std::vector<Lowered> lower_all(std::span<const Group> groups, const std::set<std::size_t>& left_out,
                                 const kernels::LoweringContext& context) {
    const Alike alike(groups, choices_, context);
    std::vector<std::optional<Lowered>> lowered(groups.size());
    const auto lower_at = [&](std::size_t i) {
      if (groups[i].kind == GroupKind::Control || left_out.contains(i)) return;
      lowered[i] = lower_one(groups[i], context, choices_[i].way);
      for (Call& c : lowered[i]->calls) c.program = loops::simplify(c.program);
    };
    in_parallel(
        groups.size(),
        [&](std::size_t i) {
          if (alike.first(i) == i) lower_at(i);
        },
        true);
    std::vector<Lowered> all(groups.size());
    std::size_t programs = 0;
    for (std::size_t i = 0; i < groups.size(); ++i) {
      const std::optional<Lowered>& first = lowered[alike.first(i)];
      if (alike.first(i) != i && first && !left_out.contains(i)) lowered[i] = alike.renamed(*first, i);
      if (!lowered[i]) lower_at(i);
      if (lowered[i]) all[i] = *lowered[i];
      for (Call& c : all[i].calls) c.program.name = "k" + std::to_string(programs++) + "_" + c.program.name;
    }
    return all;
  }

  Lowered lower_one(const Group& g, const kernels::LoweringContext& context, const kernels::Way* way) {
    for (const Node* n : g.members) check_supported(*n);
    try {
      return kernels::lower_group(g, context, way);
    } catch (const Error& e) {
      throw e.with_context(std::string(g.anchor->op_name()), g.anchor->source);
    }
  }

  // The value's memory in the executable.
  ValueId id(Value v) {
    if (const auto it = ids_.find(key(v)); it != ids_.end()) return it->second;
    ValueId result = 0;
    if (v.node->is_constant()) {
      result = builder_.constant(v.node->data);
      fixed_.insert(result);
    } else {
      check(is_alias(*v.node), "a value is computed before it is read");
      const ValueId of = id(v.node->in(0));
      result = builder_.alias(of, v.type());
      if (fixed_.contains(of)) fixed_.insert(result);
    }
    return ids_[key(v)] = result;
  }

  // Known before the run: constants, and parameters where freezing is on.
  bool is_fixed(ValueId v) const { return fixed_.contains(v); }

  static std::int64_t width(DType t) { return std::max<std::int64_t>(1, bits(t) / 8); }

  // How many elements of a value a group touches at most: it may read a slice of it, or a few rows of a table.
  static Dim touched(const Group& g, Value v) {
    const Value memory = memory_of(v);
    for (const Value& o : g.outputs)
      if (key(memory_of(o)) == key(memory)) return numel(v.shape());
    Dim read = 0;
    for (const Node* m : g.members)
      for (std::size_t i = 0; i < m->inputs.size(); ++i) {
        Value u = m->inputs[i];
        if (!u) continue;  // an optional one
        Dim size = numel(u.shape());
        if (i == 0 && m->op_name().starts_with("gather")) size = min(size, numel(m->outputs[0].shape));
        for (; !u.node->inputs.empty() && (is_view(*u.node) || is_alias(*u.node)); u = u.node->in(0))
          size = min(size, numel(u.node->in(0).shape()));
        if (key(u) == key(memory)) read = read + size;
      }
    return read == Dim(0) ? numel(v.shape()) : min(read, numel(v.shape()));
  }

  StepInfo info_of(const Group& g, const Lowered& lowered, const Call& c) const {
    std::string ops;
    for (const Node* m : g.members) ops += (ops.empty() ? "" : ", ") + std::string(m->op_name());
    // Bytes: every argument once. FLOPs: the contraction's, or one per element and member.
    Dim bytes = 0, flops = c.flops;
    std::set<Key> counted;
    for (const Arg& a : c.args) {
      if (const Value* v = std::get_if<Value>(&a)) {
        if (counted.insert(key(*v)).second) bytes = bytes + touched(g, *v) * width(v->dtype());
      } else if (const auto* t = std::get_if<kernels::TempArg>(&a)) {
        const Type& type = lowered.temps[static_cast<std::size_t>(t->index)];
        bytes = bytes + numel(type.shape) * width(type.dtype);
      }
    }
    if (flops == Dim(0)) flops = numel(g.domain) * static_cast<std::int64_t>(g.members.size());
    // "gemm", and "gemm pack" for what prepares its operands.
    std::string way = lowered.way;
    const std::string tail = "_" + g.name();
    if (c.program.name.ends_with(tail)) {
      const std::string head = c.program.name.substr(0, c.program.name.size() - tail.size());
      if (const std::size_t at = head.find('_'); at != std::string::npos) way += " " + head.substr(at + 1);
    }
    return {c.program.name, ops, g.anchor->source, flops, bytes, std::move(way)};
  }

  void append(const Group& g, const Lowered& lowered, const Choice& choice,
              const std::vector<std::shared_ptr<const Kernel>>& compiled, std::size_t& next) {
    std::vector<ValueId> temps;
    for (const Type& t : lowered.temps) temps.push_back(builder_.temp(t));
    for (const Value& v : g.outputs) memory(v);
    for (std::size_t c = 0; c < lowered.calls.size(); ++c, ++next) {
      const Call& call = lowered.calls[c];
      if (lowered.defines.empty() && taken_from_before(lowered, call, temps)) continue;
      KernelStep step{compiled[next], {}, {}, call.program.messages};
      for (const std::string& s : call.program.symbols) step.dims.push_back(Dim::symbol(s));
      bool fixed = call.program.symbols.empty() && lowered.defines.empty();
      for (std::size_t i = 0; i < call.args.size(); ++i) {
        const ValueId v = argument(call.args[i], temps);
        step.args.push_back(v);
        // Nothing of no elements names a symbol in its program, yet its size is not known before the run.
        if (const auto* value = std::get_if<Value>(&call.args[i])) fixed = fixed && is_static(value->shape());
        if (loops::is_only_read(call.program.params[i].access)) fixed = fixed && is_fixed(v);
        fixed = fixed && !overwritten_.contains(v);
      }
      if (fixed)
        for (std::size_t i = 0; i < call.args.size(); ++i)
          if (step.args[i] != kWorkspace) fixed_.insert(step.args[i]);
      const StepInfo info = info_of(g, lowered, call);
      builder_.kernel(fixed ? Phase::Prepare : Phase::Run, info, std::move(step));
      if (c == 0 && !lowered.defines.empty()) builder_.define(info, temps[0], lowered.defines);
    }
    std::string note = lowered.way;
    if (const std::string tried = choice.str(); !tried.empty()) note += " of " + tried;
    if (!choice.apart.empty()) note += ", not joined with what it reads: " + choice.apart;
    builder_.note(noted(g, note));
  }

  static std::string noted(const Group& g, const std::string& how) {
    return g.name() + ": " + how + (g.anchor->source.empty() ? "" : "  (" + g.anchor->source + ")");
  }

  // Where a group's result goes: memory of its own, unless it has a place already.
  ValueId memory(Value v) {
    const auto [at, is_new] = ids_.emplace(key(v), 0);
    if (is_new) at->second = builder_.temp(v.type());
    return at->second;
  }

  // What a group prepares for itself of values alone, as a panel of weights, is prepared once for all that want the same.
  bool taken_from_before(const Lowered& lowered, const Call& call, std::vector<ValueId>& temps) {
    const kernels::TempArg* made = nullptr;
    std::string work;
    for (std::size_t i = 0; i < call.args.size(); ++i) {
      const loops::Access access = call.program.params[i].access;
      if (access == loops::Access::Workspace) continue;
      const auto* temp = std::get_if<kernels::TempArg>(&call.args[i]);
      const bool written = access == loops::Access::Write || access == loops::Access::Stream;
      if ((temp != nullptr) != written || (temp && made)) return false;
      if (temp)
        made = temp;
      else
        work += std::to_string(argument(call.args[i], temps)) + " ";
    }
    if (!made || !only_written_by(lowered, call, made->index)) return false;
    loops::Program unnamed = call.program;
    unnamed.name = "prepare";
    work += loops::print(unnamed);
    ValueId& own = temps[static_cast<std::size_t>(made->index)];
    const auto [at, is_new] = prepared_.emplace(std::move(work), own);
    own = at->second;
    return !is_new;
  }

  static bool only_written_by(const Lowered& lowered, const Call& call, int temp) {
    return std::all_of(lowered.calls.begin(), lowered.calls.end(), [&](const Call& other) {
      if (&other == &call) return true;
      for (std::size_t i = 0; i < other.args.size(); ++i) {
        const auto* arg = std::get_if<kernels::TempArg>(&other.args[i]);
        if (arg && arg->index == temp && !loops::is_only_read(other.program.params[i].access)) return false;
      }
      return true;
    });
  }

  ValueId argument(const Arg& a, const std::vector<ValueId>& temps) {
    if (const Value* v = std::get_if<Value>(&a)) return id(*v);
    if (const auto* t = std::get_if<kernels::TempArg>(&a)) return temps[static_cast<std::size_t>(t->index)];
    return kWorkspace;
  }

  void control(const Node& n) {
    std::vector<ValueId> inputs;
    for (const Value& v : n.inputs) inputs.push_back(id(v));
    const auto compile_graph = [&](const Graph& graph) {
      const PassOptions passes{.disabled = options_.disabled,
                               .quantise = options_.precision == kernels::Precision::Int8,
                               .bf16 = options_.precision == kernels::Precision::Bf16};
      LowerOptions options = options_;
      options.updates.clear();
      return lower(run_pipeline(graph, passes), target_, options);
    };
    const auto sub_graph = [&](std::string_view attr) -> const Graph& {
      return *n.attr<std::shared_ptr<const Graph>>(attr);
    };
    const auto compile = [&](std::string_view attr) { return compile_graph(sub_graph(attr)); };
    const StepInfo info{n.name, n.op->name, n.source};
    std::vector<ValueId> results;
    if (n.op->name == "if") {
      results = builder_.branch(info, inputs[0], compile("then"), compile("otherwise"),
                                {inputs.begin() + 1, inputs.end()}, n.outputs);
    } else {
      const auto carried = static_cast<std::ptrdiff_t>(n.attr<std::int64_t>("carried"));
      const BodyOfParts body = give_parts(sub_graph("body"), static_cast<int>(carried));
      results = builder_.loop(info, compile("condition"), compile_graph(body.graph),
                              {inputs.begin(), inputs.begin() + carried},
                              {inputs.begin() + carried, inputs.end()}, body.parts, n.outputs);
    }
    for (std::size_t i = 0; i < results.size(); ++i) ids_[{&n, static_cast<int>(i)}] = results[i];
  }

  const Graph& graph_;
  Target& target_;
  const LowerOptions& options_;
  ExecutableBuilder builder_;
  std::vector<Choice> choices_;  // by group
  std::map<Key, ValueId> ids_;
  std::set<ValueId> fixed_, overwritten_;    // known before the run; what lies over an input
  std::map<std::string, ValueId> prepared_;  // by what each call reads and does
};

}  // namespace

Executable lower(const Graph& graph, Target& target, const LowerOptions& options) {
  return Lowering(graph, target, options).run();
}

}  // namespace deepseek
