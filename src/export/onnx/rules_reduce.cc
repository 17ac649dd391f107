// Reductions, running sums, positions of extremes.
#include "export/onnx/rules.h"

namespace deepseek::onnx_export {

namespace {

std::string reduced(Writer& w, std::string_view type, const std::string& x, const Node& n) {
  const Ints& axes = n.attr<Ints>("axes");
  return w.add(type, {x, axes.empty() ? "" : w.ints(axes)},
               {{"keepdims", std::int64_t{n.attr<bool>("keepdims")}}});
}

std::function<Names(Writer&, const Node&)> reduction(std::string_view type) {
  return [type](Writer& w, const Node& n) {
    const DType t = n.in(0).dtype();
    return Names{in_type(w, w.in(n, 0), t, wide_integer(t),
                         [&](const std::string& x) { return reduced(w, type, x, n); })};
  };
}

// How many hold; none that does not hold.
std::string any_holds(Writer& w, const std::string& x, const Node& n) {
  return w.cast(reduced(w, "ReduceSum", w.cast(x, DType::I64), n), DType::Bool);
}

Names any(Writer& w, const Node& n) { return {any_holds(w, w.in(n, 0), n)}; }
Names all(Writer& w, const Node& n) { return {w.add("Not", {any_holds(w, w.add("Not", {w.in(n, 0)}), n)})}; }

Names running(Writer& w, const Node& n) {
  const DType t = n.in(0).dtype();
  return {in_type(w, w.in(n, 0), t, wide_integer(t), [&](const std::string& x) {
    return w.add("CumSum", {x, w.scalar(static_cast<double>(n.attr<std::int64_t>("axis")), DType::I64)},
                 {{"exclusive", std::int64_t{n.attr<bool>("exclusive")}},
                  {"reverse", std::int64_t{n.attr<bool>("reverse")}}});
  })};
}

Names extreme(Writer& w, const Node& n, std::string_view type) {
  const DType t = n.in(0).dtype(), wide = wide_integer(t);
  const std::string x = w.in(n, 0);
  return {w.add(type, {t == wide ? x : w.cast(x, wide)},
                {{"axis", n.attr<std::int64_t>("axis")},
                 {"keepdims", std::int64_t{n.attr<bool>("keepdims")}},
                 {"select_last_index", std::int64_t{n.attr<bool>("select_last_index")}}})};
}

// Scan over the axis, the running product its state; ONNX has CumProd from opset 26 on.
Names running_product(Writer& w, const Node& n) {
  const Value x = n.in(0);
  const DType t = x.dtype(), wide = wide_integer(t);
  const std::int64_t given = n.attr<std::int64_t>("axis"), axis = given < 0 ? given + x.rank() : given;
  Type slice{wide, x.shape()};
  slice.shape.erase(slice.shape.begin() + axis);
  Writer body(&w);
  const std::string state = body.fresh("product"), element = body.fresh("element");
  set_type(*body.graph().add_input(), state, slice);
  set_type(*body.graph().add_input(), element, slice);
  const std::string next = body.add("Mul", {state, element});
  const std::string shown = body.add("Identity", {n.attr<bool>("exclusive") ? state : next});
  set_type(*body.graph().add_output(), next, slice);
  set_type(*body.graph().add_output(), shown, slice);
  body.graph().set_name(body.fresh("running_product"));
  const std::string start = w.full(slice, 1);
  const std::int64_t direction = n.attr<bool>("reverse") ? 1 : 0;
  const std::string from = t == wide ? w.in(n, 0) : w.cast(w.in(n, 0), wide);
  const std::string y = w.add_many("Scan", {start, from},
                                   {{"body", body.graph()},
                                    {"num_scan_inputs", std::int64_t{1}},
                                    {"scan_input_axes", Ints{axis}},
                                    {"scan_input_directions", Ints{direction}},
                                    {"scan_output_axes", Ints{axis}},
                                    {"scan_output_directions", Ints{direction}}},
                                   2)[1];
  return {t == wide ? y : w.cast(y, t)};
}

Names softmax(Writer& w, const Node& n, std::string_view type) {
  return {w.add(type, {w.in(n, 0)}, {{"axis", n.attr<std::int64_t>("axis")}})};
}

bool of_floats(const Node& n) { return is_float(n.in(0).dtype()); }

}  // namespace

void add_reduce_rules(Rules& r) {
  r.add("sum", reduction("ReduceSum"));
  r.add("prod", reduction("ReduceProd"));
  r.add("max", reduction("ReduceMax"));
  r.add("min", reduction("ReduceMin"));
  r.add("mean", reduction("ReduceMean"), of_floats);
  r.add("any", any);
  r.add("all", all);
  r.add("cumsum", running);
  r.add("cumprod", running_product);
  r.add("argmax", [](Writer& w, const Node& n) { return extreme(w, n, "ArgMax"); });
  r.add("argmin", [](Writer& w, const Node& n) { return extreme(w, n, "ArgMin"); });
  r.add(
      "softmax", [](Writer& w, const Node& n) { return softmax(w, n, "Softmax"); },
      [](const Node& n) { return !n.attr<bool>("masked"); });
  r.add("log_softmax", [](Writer& w, const Node& n) { return softmax(w, n, "LogSoftmax"); });
}

}  // namespace deepseek::onnx_export
