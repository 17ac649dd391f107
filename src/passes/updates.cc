#include "passes/updates.h"

#include <algorithm>
#include <optional>
#include <string>

namespace deepseek {

namespace {

using kernels::Call;
using kernels::Lowered;
using loops::Buffer;
using loops::Expr;
using loops::Stmt;

bool contains(std::span<const Buffer> buffers, const Buffer& b) {
  return std::find(buffers.begin(), buffers.end(), b) != buffers.end();
}

// Makes one buffer of those that hold an input's old elements and the one that takes the new ones.
class Merge {
 public:
  Merge(std::vector<Buffer> old, Buffer made) : old_(std::move(old)), made_(std::move(made)) {}

  // The statement over the one buffer; null where an old element may be read after its new one is stored. The program
  // stores each element once.
  Stmt rebuild(const Stmt& s) {
    if (!s || !touches(s)) return s;
    if (const auto* block = loops::as<loops::Block>(s)) {
      const bool stores = std::any_of(block->stmts.begin(), block->stmts.end(),
                                      [&](const Stmt& inner) { return is_target(inner); });
      if (stores) return straight(block->stmts);
      std::vector<Stmt> stmts;
      for (const Stmt& inner : block->stmts) {
        stmts.push_back(rebuild(inner));
        if (!stmts.back()) return nullptr;
      }
      return loops::block(std::move(stmts));
    }
    if (is_target(s)) return straight({s});
    if (const auto* loop = loops::as<loops::For>(s)) {
      if (loads(loop->extent, made_old())) return nullptr;
      const Stmt body = rebuild(loop->body);
      return body ? loops::stmt(loops::For{loop->var, loop->extent, loop->kind, body}) : nullptr;
    }
    if (const auto* branch = loops::as<loops::If>(s)) {
      if (loads(branch->condition, made_old())) return nullptr;
      const Stmt then = rebuild(branch->then), otherwise = rebuild(branch->otherwise);
      if ((branch->then && !then) || (branch->otherwise && !otherwise)) return nullptr;
      return loops::stmt(loops::If{branch->condition, then, otherwise});
    }
    return nullptr;
  }

 private:
  std::vector<Buffer> made_old() const {
    std::vector<Buffer> both = old_;
    both.push_back(made_);
    return both;
  }
  bool is_target(const Stmt& s) const {
    const auto* store = loops::as<loops::Store>(s);
    return store && store->buffer == made_;
  }

  static bool loads(const Expr& e, std::span<const Buffer> buffers) {
    bool found = false;
    if (e)
      loops::visit(
          e, [&](const Expr& x) { found |= x.op() == loops::Op::Load && contains(buffers, x->buffer); });
    return found;
  }

  bool touches(const Stmt& s) const {
    bool found = false;
    const std::vector<Buffer> both = made_old();
    const auto note = [&](const Buffer& b) { found |= contains(both, b); };
    loops::visit_stmts(s, [&](const Stmt& inner) {
      if (const auto* store = loops::as<loops::Store>(inner)) note(store->buffer);
      if (const auto* sum = loops::as<loops::Accumulate>(inner)) note(sum->buffer);
      if (const auto* tile = loops::as<loops::TileLoad>(inner)) note(tile->buffer);
      if (const auto* ask = loops::as<loops::Prefetch>(inner)) note(ask->buffer);
      if (const auto* copy = loops::as<loops::CopyAsync>(inner)) {
        note(copy->src);
        note(copy->dst);
      }
      loops::visit_exprs(inner, [&](const Expr& e) { found |= loads(e, both); });
    });
    return found;
  }

  // Whether the expression reads old elements, if any, at `index` alone.
  bool reads_only_at(const Expr& e, const Expr& index) const {
    bool right = true;
    if (e)
      loops::visit(e, [&](const Expr& x) {
        if (x.op() == loops::Op::Load && contains(old_, x->buffer))
          right = right && loops::same(x->args[0], index);
      });
    return right;
  }

  Expr from_made(const Expr& e) const {
    if (e.get() == nullptr) return e;
    return loops::rewrite(e, [&](const Expr& x) {
      if (x.op() != loops::Op::Load || !contains(old_, x->buffer)) return Expr();
      return x->args.size() == 1 ? loops::load(made_, x->args[0])
                                 : loops::load(made_, x->args[0], x->args[1], x->args[2]);
    });
  }

  // Statements without loops: all values, each computed once, then all stores.
  Stmt straight(const std::vector<Stmt>& stmts) const {
    const loops::Store* target = nullptr;
    for (const Stmt& s : stmts) {
      if (!is_target(s)) continue;
      if (target) return nullptr;
      target = loops::as<loops::Store>(s);
    }
    if (loads(target->index, made_old())) return nullptr;
    std::vector<Stmt> first, stores;
    std::vector<Expr> values, variables;
    std::vector<Buffer> stored;
    const auto known = [&](const Expr& e) {
      return loops::rewrite(e, [&](const Expr& x) {
        for (std::size_t i = 0; i < values.size(); ++i)
          if (loops::same(x, values[i])) return variables[i];
        return Expr();
      });
    };
    for (const Stmt& s : stmts) {
      bool fits = true;
      loops::visit_exprs(
          s, [&](const Expr& e) { fits = fits && !loads(e, stored) && reads_only_at(e, target->index); });
      if (!fits) return nullptr;
      if (const auto* let = loops::as<loops::Let>(s)) {
        first.push_back(loops::stmt(loops::Let{let->var, from_made(let->value)}));
      } else if (const auto* demand = loops::as<loops::Assert>(s)) {
        first.push_back(loops::stmt(loops::Assert{from_made(demand->condition), demand->code}));
      } else if (const auto* store = loops::as<loops::Store>(s)) {
        if (loads(store->index, made_old()) || loads(store->predicate, made_old())) return nullptr;
        stored.push_back(store->buffer);
        Expr value = known(from_made(store->value));
        if (value.op() != loops::Op::Var && !value.is_const()) {
          const loops::Var held = loops::make_var("held_" + store->buffer->name, value.type());
          first.push_back(loops::stmt(loops::Let{held, value}));
          values.push_back(value);
          variables.push_back(loops::var(held));
          value = variables.back();
        }
        stores.push_back(loops::stmt(loops::Store{store->buffer, store->index, value, store->predicate}));
      } else {
        return nullptr;
      }
    }
    first.insert(first.end(), stores.begin(), stores.end());
    return loops::block(std::move(first));
  }

  std::vector<Buffer> old_;
  Buffer made_;
};

bool is_memory(const kernels::Arg& arg, Value memory) {
  const auto* value = std::get_if<Value>(&arg);
  return value && memory_of(*value) == memory;
}

bool mentions(const Lowered& lowered, Value memory) {
  return std::any_of(lowered.calls.begin(), lowered.calls.end(), [&](const Call& call) {
    return std::any_of(call.args.begin(), call.args.end(),
                       [&](const kernels::Arg& arg) { return is_memory(arg, memory); });
  });
}

bool reads(const Group& group, const Lowered& lowered, Value memory) {
  const bool control = std::any_of(group.inputs.begin(), group.inputs.end(),
                                   [&](const Value& v) { return memory_of(v) == memory; });
  return control || mentions(lowered, memory);
}

// The call with `input` and `made` as one argument.
std::optional<Call> merged(const Call& call, Value made, Value input) {
  std::vector<Buffer> old;
  Buffer target;
  for (std::size_t i = 0; i < call.args.size(); ++i) {
    const loops::Param& param = call.program.params[i];
    if (is_memory(call.args[i], input)) {
      if (!loops::is_only_read(param.access)) return std::nullopt;
      old.push_back(param.buffer);
    } else if (is_memory(call.args[i], made)) {
      const bool written = param.access == loops::Access::Write || param.access == loops::Access::Stream;
      if (target || !written) return std::nullopt;
      target = param.buffer;
    }
  }
  if (!target) return std::nullopt;
  if (std::any_of(old.begin(), old.end(), [&](const Buffer& b) { return b->dtype != target->dtype; }))
    return std::nullopt;
  Call result = call;
  if (!old.empty()) {
    result.program.body = Merge(old, target).rebuild(call.program.body);
    if (!result.program.body) return std::nullopt;
  }
  result.args.clear();
  result.program.params.clear();
  for (std::size_t i = 0; i < call.args.size(); ++i) {
    loops::Param param = call.program.params[i];
    if (contains(old, param.buffer)) continue;
    if (param.buffer == target && !old.empty()) param.access = loops::Access::ReadWrite;
    result.program.params.push_back(param);
    result.args.push_back(call.args[i]);
  }
  return result;
}

bool store_one(const Update& update, std::span<const Group> groups, std::vector<Lowered>& lowered) {
  const Value made = memory_of(update.value);
  std::optional<std::size_t> maker;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const bool makes = std::any_of(groups[i].outputs.begin(), groups[i].outputs.end(),
                                   [&](const Value& v) { return v == made; });
    if (makes) maker = i;
    if (maker && *maker != i && reads(groups[i], lowered[i], update.input)) return false;
  }
  if (!maker || groups[*maker].kind != GroupKind::Map) return false;
  std::vector<Call>& calls = lowered[*maker].calls;
  if (calls.size() != 1) return false;
  std::optional<Call> call = merged(calls[0], made, update.input);
  if (!call) return false;
  calls[0] = *std::move(call);
  return true;
}

// Dims that are symbols may be known to be equal by the graph alone.
bool may_replace(const Type& value, const Type& input) {
  return value.dtype == input.dtype &&
         std::equal(value.shape.begin(), value.shape.end(), input.shape.begin(), input.shape.end(),
                    [](const Dim& a, const Dim& b) { return a == b || !a.is_static() || !b.is_static(); });
}

Error refused(const std::string& expected, const std::string& got) {
  return Error(Code::InvalidArgument, "compile", "", expected, got);
}

}  // namespace

std::vector<Update> updates_of(const Graph& graph, std::span<const std::pair<int, int>> pairs) {
  const auto outputs = graph.outputs();
  const auto inputs = graph.inputs();
  std::vector<Update> updates;
  std::set<int> taken, written;
  for (const auto& [output, input] : pairs) {
    const std::string pair = std::to_string(output) + " of input " + std::to_string(input);
    if (output < 0 || input < 0 || static_cast<std::size_t>(output) >= outputs.size() ||
        static_cast<std::size_t>(input) >= inputs.size())
      throw refused("numbers of an output and an input", "output " + pair);
    if (!taken.insert(output).second || !written.insert(input).second)
      throw refused("one update of an input, and of each output", "another, output " + pair);
    const Node& n = *inputs[static_cast<std::size_t>(input)];
    const Value value = outputs[static_cast<std::size_t>(output)].value;
    if (n.role != Role::Argument || !may_replace(value.type(), n.outputs[0]))
      throw refused("an update of an argument of " + str(value.type()),
                    "input \"" + n.name + "\" of " + str(n.outputs[0]));
    updates.push_back({output, value, n.out()});
  }
  return updates;
}

std::vector<Update> store_in_place(std::span<const Update> updates, std::span<const Group> groups,
                                   std::vector<Lowered>& lowered, const std::set<const Node*>& fixed,
                                   const std::set<std::pair<const Node*, int>>& placed) {
  std::vector<Update> stored;
  std::set<std::pair<const Node*, int>> taken = placed;
  for (const Update& u : updates) {
    const Value made = memory_of(u.value);
    if (fixed.contains(made.node) || taken.contains({made.node, made.index})) continue;
    if (!store_one(u, groups, lowered)) continue;
    taken.insert({made.node, made.index});
    stored.push_back(u);
  }
  return stored;
}

}  // namespace deepseek
