// Reductions, argmax, cumulative sums, softmax.
#include <limits>

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

struct Reduced {
  Value x;
  Ints axes;
  bool keepdims;
  bool nothing;  // no axes given and noop_with_empty_axes: only the elementwise part is done
};

Reduced reduced(Context& c) {
  Reduced r{c.in(0), {}, c.attr("keepdims", 1) != 0, false};
  const auto given = c.axes(1);
  if (given && !given->empty()) {
    for (const std::int64_t a : *given) r.axes.push_back(c.axis(a, r.x.rank()));
  } else {
    r.nothing = c.attr("noop_with_empty_axes", 0) != 0;
    if (!r.nothing) r.axes = all_axes(r.x);
  }
  return r;
}

Value apply(Context& c, const Reduced& r, std::string_view name, Value x) {
  return r.nothing || r.axes.empty() ? x : c.e.reduce(name, x, r.axes, r.keepdims);
}

Translate reduce(std::string name) {
  return [name](Context& c) {
    const Reduced r = reduced(c);
    // Bool has an order but no arithmetic: max is "any", min is "all".
    const bool truth = r.x.dtype() == DType::Bool;
    c.out(apply(c, r, !truth ? name : name == "max" ? "any" : "all", r.x));
  };
}

// post(reduce(pre(x)))
using Step = Value (*)(Emit&, Value);
Translate composed(std::string name, Step pre, Step post) {
  return [name, pre, post](Context& c) {
    const Reduced r = reduced(c);
    c.out(post(c.e, apply(c, r, name, pre(c.e, r.x))));
  };
}

Value same(Emit&, Value x) { return x; }
Value square(Emit& e, Value x) { return e.mul(x, x); }
Value log(Emit& e, Value x) {
  return is_float(x.dtype()) ? e.log(x) : e.cast(e.log(e.cast(x, DType::F64)), x.dtype());
}
Value sqrt(Emit& e, Value x) {
  return is_float(x.dtype()) ? e.sqrt(x) : e.cast(e.sqrt(e.cast(x, DType::F64)), x.dtype());
}
Value absolute(Emit& e, Value x) { return e.abs(x); }

void log_sum_exp(Context& c) {
  const Reduced r = reduced(c);
  if (r.nothing) return c.out(r.x);
  const Value x = is_float(r.x.dtype()) ? r.x : c.e.cast(r.x, DType::F64);
  c.out(c.e.cast(apply(c, r, "logsumexp", x), r.x.dtype()));
}

Translate arg(std::string name) {
  return [name](Context& c) {
    const Value x = c.in(0);
    const int axis = c.axis(c.attr("axis", 0), x.rank());
    c.out(c.e.op(name, {x},
                 {{"axis", std::int64_t{axis}},
                  {"keepdims", c.attr("keepdims", 1) != 0},
                  {"select_last_index", c.attr("select_last_index", 0) != 0}}));
  };
}

// Before opset 13 the input counts as a matrix: the axes before `axis` and those from it on.
Translate softmax_like(Value (*f)(Emit&, Value, int)) {
  return [f](Context& c) {
    const Value x = c.in(0);
    if (c.opset() >= 13) return c.out(f(c.e, x, c.axis(c.attr("axis", -1), x.rank())));
    const int axis = c.axis(c.attr("axis", 1), x.rank());
    Dim rows = 1, columns = 1;
    for (int i = 0; i < x.rank(); ++i) (i < axis ? rows : columns) = (i < axis ? rows : columns) * x.dim(i);
    c.out(c.e.reshape(f(c.e, c.e.reshape(x, {rows, columns}), 1), x.shape()));
  };
}

Value softmax(Emit& e, Value x, int axis) { return e.op("softmax", {x}, {{"axis", std::int64_t{axis}}}); }
Value log_softmax(Emit& e, Value x, int axis) {
  return e.op("log_softmax", {x}, {{"axis", std::int64_t{axis}}});
}
Value hardmax(Emit& e, Value x, int axis) {
  const Value top = e.op("argmax", {x}, {{"axis", std::int64_t{axis}}, {"keepdims", true}});
  return e.cast(e.equal(e.iota(x.shape(), DType::I64, axis), top), x.dtype());
}

Translate cumulative(std::string name) {
  return [name](Context& c) {
    const Value x = c.in(0);
    c.out(c.e.op(name, {x},
                 {{"axis", std::int64_t{c.axis(c.need_int(1), x.rank())}},
                  {"exclusive", c.attr("exclusive", 0) != 0},
                  {"reverse", c.attr("reverse", 0) != 0}}));
  };
}

}  // namespace

void add_reduce(Translators& t) {
  t.add("ReduceSum", reduce("sum"));
  t.add("ReduceMean", reduce("mean"));
  t.add("ReduceMax", reduce("max"));
  t.add("ReduceMin", reduce("min"));
  t.add("ReduceProd", reduce("prod"));
  t.add("ReduceL1", composed("sum", absolute, same));
  t.add("ReduceL2", composed("sum", square, sqrt));
  t.add("ReduceLogSum", composed("sum", same, log));
  t.add("ReduceSumSquare", composed("sum", square, same));
  t.add("ReduceLogSumExp", log_sum_exp);
  t.add("ArgMax", arg("argmax"));
  t.add("ArgMin", arg("argmin"));
  t.add("Softmax", softmax_like(softmax));
  t.add("LogSoftmax", softmax_like(log_softmax));
  t.add("Hardmax", softmax_like(hardmax));
  t.add("CumSum", cumulative("cumsum"));
  t.add("CumProd", cumulative("cumprod"));
}

}  // namespace deepseek::onnx_import
