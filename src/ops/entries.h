// What the files of entries share.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ops/graph_builder.h"
#include "ops/op.h"

namespace deepseek {

// Gradient of an op with one differentiable input: n.in(0) is x, n.out() is y. An empty dy needs no answer.
using UnaryGradient = std::function<Value(GraphBuilder& g, const Node& n, Value dy)>;
inline GradientFn unary_gradient(UnaryGradient f) {
  return [f = std::move(f)](Graph& graph, const Node& n, std::span<const Value> dys,
                            const std::vector<bool>& needed) {
    std::vector<Value> result(n.inputs.size());
    GraphBuilder g(graph);
    if (needed.at(0) && dys[0]) result[0] = f(g, n, dys[0]);
    return result;
  };
}

// Gradient of a broadcasting elementwise op: f gives the gradient of input i before it is summed down to the
// input's shape; an empty Value where the input has none.
using ElementwiseGradient = std::function<Value(GraphBuilder& g, const Node& n, int i, Value dy)>;
inline GradientFn elementwise_gradient(ElementwiseGradient f) {
  return [f = std::move(f)](Graph& graph, const Node& n, std::span<const Value> dys,
                            const std::vector<bool>& needed) {
    std::vector<Value> result(n.inputs.size());
    GraphBuilder g(graph);
    for (std::size_t i = 0; i < n.inputs.size(); ++i) {
      if (!n.inputs[i] || !needed[i] || !dys[0]) continue;
      const Value d = f(g, n, static_cast<int>(i), dys[0]);
      if (d) result[i] = unbroadcast(graph, d, n.inputs[i]);
    }
    return result;
  };
}

// The element in the type in which it is computed with (Elements::in may hand out narrow floats).
inline Expr element(Elements& e, const Node& n, int i, std::span<const Expr> coords) {
  return loops::cast(compute_type(n.in(i).dtype()), e.in(i, coords));
}
// The same; 0, or `otherwise`, where the predicate is false.
inline Expr element(Elements& e, const Node& n, int i, std::span<const Expr> coords, Expr predicate,
                    Expr otherwise) {
  const DType t = compute_type(n.in(i).dtype());
  if (predicate.int_value() == 1) return element(e, n, i, coords);
  return loops::cast(t, e.in(i, coords, std::move(predicate), loops::cast(t, std::move(otherwise))));
}

// The dtype of sums of products of the first two inputs: theirs, or int32 of uint8 by int8.
DType product_dtype(const Node& n);

inline const std::vector<std::int64_t>& ints(const Node& n, std::string_view key) {
  return n.attr<std::vector<std::int64_t>>(key);
}
inline std::int64_t integer(const Node& n, std::string_view key) { return n.attr<std::int64_t>(key); }
inline double number(const Node& n, std::string_view key) { return n.attr<double>(key); }
inline bool flag(const Node& n, std::string_view key) { return n.attr<bool>(key); }
inline const Shape& shape_attr(const Node& n, std::string_view key) { return n.attr<Shape>(key); }
inline const std::string& text(const Node& n, std::string_view key) { return n.attr<std::string>(key); }

}  // namespace deepseek
