#include "deepseek/bind_dims.h"

namespace deepseek {
namespace {

Dim bound(const Dim& dim, const DimEnv& known);

Dim bound(const Dim::Atom& atom, const DimEnv& known) {
  using Kind = Dim::Atom::Kind;
  if (atom.kind == Kind::Symbol) {
    const auto it = known.find(atom.symbol);
    return it == known.end() ? Dim::symbol(atom.symbol) : Dim(it->second);
  }
  Dim result = bound(atom.args.at(0), known);
  for (std::size_t i = 1; i < atom.args.size(); ++i) {
    const Dim next = bound(atom.args[i], known);
    result = atom.kind == Kind::FloorDiv ? floordiv(result, next)
             : atom.kind == Kind::Mod    ? mod(result, next)
             : atom.kind == Kind::Min    ? min(result, next)
                                         : max(result, next);
  }
  return result;
}

Dim bound(const Dim& dim, const DimEnv& known) {
  if (dim.is_static()) return dim;
  Dim sum = 0;
  for (const Dim::Term& term : dim.terms()) {
    Dim product = term.coefficient;
    for (const auto& factor : term.factors) product = product * bound(*factor, known);
    sum = sum + product;
  }
  return sum;
}

void bind(Shape& shape, const DimEnv& known) {
  for (Dim& dim : shape) dim = bound(dim, known);
}

}  // namespace

Graph bind_dims(const Graph& graph, const DimEnv& known) {
  Graph copy = graph.clone();
  for (const auto& n : copy.nodes()) {
    for (Type& type : n->outputs) bind(type.shape, known);
    for (auto& [name, attr] : n->attrs) {
      if (std::holds_alternative<std::shared_ptr<const Graph>>(attr) && !known.empty())
        throw Error(Code::Unsupported, "bind_dims", n->source, "a graph without control flow",
                    std::string(n->op_name()));
      if (auto* shape = std::get_if<Shape>(&attr)) bind(*shape, known);
    }
  }
  return copy;
}

}  // namespace deepseek
