// Ops that write their own loops (sort, scatter, NonZero).
#include <algorithm>

#include "kernels/assembly.h"

namespace deepseek::kernels {

namespace {

class NodeProgram final : public ProgramBuilder {
 public:
  NodeProgram(Assembly& a, const Node& n, bool extents) : a_(a), n_(n), extents_(extents) {}

  loops::Buffer input(int i) override { return a_.input(n_.in(i)); }
  loops::Buffer output(int i) override {
    if (!extents_) return a_.output_read_back(n_.out(i));
    if (!counts_)
      counts_ = a_.temp(0, Type{DType::I64, {static_cast<std::int64_t>(defined_symbols(n_).size())}},
                        loops::Access::ReadWrite);
    return counts_;
  }
  Expr dim(const Dim& d) override { return expr_of(d); }
  loops::Buffer workspace(std::string name, DType t, Expr extent) override {
    return a_.workspace(std::move(name), t, std::move(extent));
  }
  void phase(loops::Stmt s) override { a_.phase(std::move(s)); }
  loops::Stmt require(Expr condition, std::string_view message) override {
    return loops::stmt(loops::Assert{std::move(condition), message_code(a_.scope().messages(), message)});
  }

 private:
  Assembly& a_;
  const Node& n_;
  bool extents_;
  loops::Buffer counts_;
};

}  // namespace

std::vector<std::string> defined_symbols(const Node& n) {
  std::vector<std::string> before, result;
  for (const Value& v : n.inputs)
    if (v)
      for (const Dim& d : v.shape()) d.symbols(before);
  for (const auto& [key, value] : n.attrs)
    if (const auto* shape = std::get_if<Shape>(&value))
      for (const Dim& d : *shape) d.symbols(before);
  for (const Type& t : n.outputs)
    for (const Dim& d : t.shape) {
      std::vector<std::string> used;
      d.symbols(used);
      for (std::string& s : used)
        if (std::find(before.begin(), before.end(), s) == before.end() &&
            std::find(result.begin(), result.end(), s) == result.end())
          result.push_back(std::move(s));
    }
  return result;
}

std::optional<Lowered> lower_program(const Group& group, const LoweringContext&) {
  if (group.kind != GroupKind::Program) return std::nullopt;
  const Node& n = *group.anchor;
  const Programmed& p = *n.op->programmed();
  Lowered result;
  if (p.extents) {
    Assembly a(group);
    NodeProgram builder(a, n, true);
    p.extents(n, builder);
    result.temps = {Type{DType::I64, {static_cast<std::int64_t>(defined_symbols(n).size())}}};
    result.calls.push_back(a.finish("extents_" + group.name()));
    result.defines = defined_symbols(n);
  }
  Assembly a(group);
  NodeProgram builder(a, n, false);
  p.fn(n, builder);
  result.calls.push_back(a.finish(group.name()));
  result.way = "program";
  return result;
}

}  // namespace deepseek::kernels
