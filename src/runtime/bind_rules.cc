#include "runtime/bind_rules.h"

#include <algorithm>

namespace deepseek {
namespace {

using Known = std::set<std::string, std::less<>>;

std::vector<std::string> unknown_symbols(const Dim& d, const Known& known) {
  std::vector<std::string> symbols;
  d.symbols(symbols);
  std::erase_if(symbols, [&](const std::string& s) { return known.contains(s); });
  return symbols;
}

// The coefficient of a symbol that stands in `d` as coefficient * symbol only; 0 when it stands otherwise.
std::int64_t linear_coefficient(const Dim& d, const std::string& symbol) {
  for (const Dim::Term& t : d.terms()) {
    if (t.factors.size() != 1 || t.factors[0]->kind != Dim::Atom::Kind::Symbol ||
        t.factors[0]->symbol != symbol)
      continue;
    std::vector<std::string> others;
    (d - Dim(t.coefficient) * Dim::symbol(symbol)).symbols(others);
    return std::find(others.begin(), others.end(), symbol) == others.end() ? t.coefficient : 0;
  }
  return 0;
}

}  // namespace

std::vector<BindRule> make_bind_rules(std::span<const Shape> shapes, Known& known) {
  std::vector<BindRule> open, rules;
  for (std::size_t i = 0; i < shapes.size(); ++i)
    for (std::size_t axis = 0; axis < shapes[i].size(); ++axis)
      open.push_back({static_cast<int>(i), static_cast<int>(axis), shapes[i][axis], "", 1, 0});
  for (bool progress = true; progress;) {
    progress = false;
    std::vector<BindRule> later;
    for (BindRule& rule : open) {
      const auto unknown = unknown_symbols(rule.dim, known);
      if (unknown.size() == 1) {
        rule.coefficient = linear_coefficient(rule.dim, unknown[0]);
        if (rule.coefficient != 0) {
          rule.symbol = unknown[0];
          rule.rest = rule.dim - Dim(rule.coefficient) * Dim::symbol(rule.symbol);
          known.insert(rule.symbol);
        }
      }
      if (unknown.empty() || !rule.symbol.empty()) {
        rules.push_back(std::move(rule));
        progress = true;
      } else {
        later.push_back(std::move(rule));
      }
    }
    open = std::move(later);
  }
  return rules;
}

std::string known_symbols(const Shape& shape, const DimEnv& env) {
  std::string text;
  std::vector<std::string> symbols;
  for (const Dim& d : shape) d.symbols(symbols);
  std::sort(symbols.begin(), symbols.end());
  symbols.erase(std::unique(symbols.begin(), symbols.end()), symbols.end());
  for (const std::string& s : symbols)
    if (const auto it = env.find(s); it != env.end())
      text += (text.empty() ? "" : ", ") + s + " = " + std::to_string(it->second);
  return text;
}

void apply_bind_rules(std::span<const BindRule> rules, FunctionRef<std::int64_t(int, int)> dim, DimEnv& env,
                      FunctionRef<Error(int, const std::string&)> mismatch) {
  for (const BindRule& rule : rules) {
    const std::int64_t got = dim(rule.array, rule.axis);
    if (rule.symbol.empty()) {
      if (rule.dim.eval(env) != got) throw mismatch(rule.array, known_symbols({rule.dim}, env));
      continue;
    }
    const Dim scaled = Dim(got) - Dim(rule.rest.eval(env));  // a Dim's arithmetic throws on overflow
    const std::int64_t value = floordiv(scaled, Dim(rule.coefficient)).value();
    if (value < 0 || !(Dim(value) * Dim(rule.coefficient) == scaled))
      throw mismatch(rule.array, rule.symbol + " is a whole number of at least 0");
    env[rule.symbol] = value;
  }
}

}  // namespace deepseek
