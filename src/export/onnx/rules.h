// One rule per op of our table: how ONNX writes it. A composed op whose rule is missing or does not apply is written as
// its definition.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "export/onnx/writer.h"

namespace deepseek::onnx_export {

struct Rule {
  std::function<Names(Writer&, const Node&)> write;  // adds nodes, gives a name per result
  std::function<bool(const Node&)> applies;          // empty: always
};

class Rules {
 public:
  void add(std::string_view op, std::function<Names(Writer&, const Node&)> write,
           std::function<bool(const Node&)> applies = {}) {
    rules_.insert_or_assign(std::string(op), Rule{std::move(write), std::move(applies)});
  }
  // The rule that writes this node; null where there is none.
  const Rule* find(const Node& n) const;

 private:
  std::map<std::string, Rule, std::less<>> rules_;
};
const Rules& rules();

void add_elementwise_rules(Rules& r);
void add_integer_rules(Rules& r);  // division, shifts, bits
void add_shape_rules(Rules& r);
void add_index_rules(Rules& r);
void add_reduce_rules(Rules& r);
void add_nn_rules(Rules& r);
void add_pool_rules(Rules& r);
void add_control_rules(Rules& r);
void add_expert_rules(Rules& r);

[[noreturn]] void unsupported(std::string expected, std::string got);

// Writes the nodes of a graph whose inputs, in their order, are the values of these names; gives those of its results,
// which are `wanted` where that is not empty.
Names write_graph(Writer& w, const Graph& graph, const Names& inputs, const Names& wanted = {});

// Computes in another dtype: `x` cast to `t`, the result of `f` cast back.
template <class F>
std::string in_type(Writer& w, const std::string& x, DType from, DType t, F f) {
  return from == t ? f(x) : w.cast(f(w.cast(x, t)), from);
}
// int32 for narrower integers, else the dtype itself: most operators lack the narrow ones.
DType wide_integer(DType t);

}  // namespace deepseek::onnx_export
