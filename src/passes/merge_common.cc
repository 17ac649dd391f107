// Common subexpressions: nodes of one op with equal inputs and attributes become one.
#include <map>

#include "passes/pipeline.h"

namespace deepseek {

namespace {

// Equal texts mean equal attributes; nothing for attributes that have no short text.
std::optional<std::string> text(const Attr& a) {
  struct Visitor {
    std::string operator()(bool x) const { return x ? "t" : "f"; }
    std::string operator()(std::int64_t x) const { return std::to_string(x); }
    std::string operator()(double x) const {
      char buffer[32];
      std::snprintf(buffer, sizeof buffer, "%a", x);
      return buffer;
    }
    std::string operator()(const std::string& x) const { return '"' + x + '"'; }
    std::string operator()(const std::vector<std::int64_t>& x) const { return str(x); }
    std::string operator()(const std::vector<double>& x) const {
      std::string s;
      for (const double d : x) s += (*this)(d) + ",";
      return s;
    }
    std::string operator()(DType x) const { return std::string(name(x)); }
    std::string operator()(const Shape& x) const { return str(x); }
    std::string operator()(const Tensor&) const { return ""; }
    std::string operator()(const std::shared_ptr<const Graph>&) const { return ""; }
  };
  std::string s = std::visit(Visitor{}, a);
  if (s.empty()) return std::nullopt;
  return s;
}

}  // namespace

Graph merge_common(const Graph& g, const PassOptions&) {
  std::map<std::string, const Node*> seen;
  std::map<const Node*, int> numbers;  // nodes of the new graph
  const auto number = [&](const Node* n) {
    return numbers.emplace(n, static_cast<int>(numbers.size())).first->second;
  };
  const Rule rule{"merge_common", {}, [&](Graph& out, const Node& n) -> std::vector<Value> {
                    std::string k = n.op->name;
                    for (const Value& v : n.inputs)
                      k += v ? " %" + std::to_string(number(v.node)) + "." + std::to_string(v.index) : " -";
                    for (const auto& [name, attr] : n.attrs) {
                      const auto t = text(attr);
                      if (!t) return {};
                      k += " " + name + "=" + *t;
                    }
                    for (const Type& t : n.outputs)
                      k += " " + str(t);  // fresh symbols tell data-dependent ops apart
                    const auto it = seen.find(k);
                    const Node* first = it == seen.end() ? nullptr : it->second;
                    if (!first) {
                      first = out.ops(n.op->name, n.inputs, n.attrs, n.name).at(0).node;
                      seen[k] = first;
                    }
                    std::vector<Value> results;
                    for (int i = 0; i < static_cast<int>(n.outputs.size()); ++i)
                      results.push_back(first->out(i));
                    return results;
                  }};
  bool changed = false;
  return rewrite_once(g, {&rule, 1}, changed);
}

}  // namespace deepseek
