// How symbolic dims get their values from the dims of arrays that come.
#pragma once

#include <set>
#include <span>
#include <string>
#include <vector>

#include "deepseek/error.h"
#include "deepseek/executor.h"
#include "deepseek/shape.h"

namespace deepseek {

// dim `axis` of array `array` = coefficient * symbol + rest.
struct BindRule {
  int array = 0;
  int axis = 0;
  Dim dim;
  std::string symbol;  // empty: the dim is only checked
  std::int64_t coefficient = 1;
  Dim rest = 0;
};

// Rules in an order in which each uses only symbols in `known` or bound by earlier rules; the bound ones are
// added to `known`. A dim that cannot be solved for its symbols gives no rule and leaves them unknown.
std::vector<BindRule> make_bind_rules(std::span<const Shape> shapes,
                                      std::set<std::string, std::less<>>& known);

// Applies the rules: adds symbols to `env`, checks the other dims. The first contradiction throws what
// `mismatch` makes of it; `because` says what an earlier dim has settled ("N = 4"), or is empty.
void apply_bind_rules(std::span<const BindRule> rules, FunctionRef<std::int64_t(int array, int axis)> dim,
                      DimEnv& env, FunctionRef<Error(int array, const std::string& because)> mismatch);

// "N = 4, M = 2" for the symbols of a shape that are bound.
std::string known_symbols(const Shape& shape, const DimEnv& env);

}  // namespace deepseek
