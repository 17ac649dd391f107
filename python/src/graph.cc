// Graph, Value and the op table.
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "convert.h"
#include "deepseek/bind_dims.h"

namespace deepseek::python {
namespace {

const OpInfo& info_of(const std::string& op, const std::string& source) {
  static const auto* table = [] {
    auto* t = new std::map<std::string, const OpInfo*>;  // NOLINT: kept for the process
    for (const OpInfo& i : op_infos()) t->emplace(i.name, &i);
    return t;
  }();
  const auto it = table->find(op);
  if (it == table->end()) throw Error(Code::NotFound, op, source, "an op of the table", "'" + op + "'");
  return *it->second;
}

Attrs attrs_from(const OpInfo& info, const nb::dict& given, const std::string& source) {
  Attrs attrs;
  for (const auto& [key, value] : given) {
    const auto name = nb::cast<std::string>(key);
    const auto known = std::find_if(info.attrs.begin(), info.attrs.end(),
                                    [&](const OpAttrInfo& a) { return a.name == name; });
    if (known == info.attrs.end()) {
      std::string names;
      for (const OpAttrInfo& a : info.attrs) names += (names.empty() ? "" : ", ") + a.name;
      throw Error(Code::InvalidArgument, info.name, source,
                  names.empty() ? "no attributes" : "attributes named " + names, "'" + name + "'");
    }
    if (value.is_none()) continue;
    try {
      attrs.emplace(name, attr_from(*known, value));
    } catch (const Error& e) {
      throw e.with_context(info.name, source);
    }
  }
  return attrs;
}

std::vector<Value> values_from(const PyGraph& g, const std::vector<std::optional<PyValue>>& given,
                               const std::string& op, const std::string& source) {
  std::vector<Value> values;
  for (const auto& v : given) {
    if (v && v->graph != g.graph)
      throw Error(Code::InvalidArgument, op, source, "values of this graph", "a value of another graph");
    values.push_back(v ? v->value : Value{});
  }
  return values;
}

nb::object results_to(const PyGraph& g, const std::vector<Value>& values) {
  if (values.size() == 1) return nb::cast(PyValue{g.graph, values[0]});
  nb::list items;
  for (const Value v : values) items.append(PyValue{g.graph, v});
  return nb::tuple(items);
}

// Tells the graph where the user is, unless set_source did.
const std::string& locate(PyGraph& g) {
  if (!g.has_source) g.graph->set_source(user_source());
  return g.graph->source();
}

Role role_from(const std::string& name) {
  if (name == "argument") return Role::Argument;
  if (name == "parameter") return Role::Parameter;
  throw Error(Code::InvalidArgument, "placeholder", "", "role 'argument' or 'parameter'", "'" + name + "'");
}

PyValue arithmetic(const char* op, const PyValue& a, nb::handle other, bool swapped) {
  Value b;
  if (nb::isinstance<PyValue>(other)) {
    b = nb::inst_ptr<PyValue>(other)->value;
    if (nb::inst_ptr<PyValue>(other)->graph != a.graph)
      throw Error(Code::InvalidArgument, op, "", "values of one graph", "values of two");
  } else {
    b = a.graph->scalar(nb::cast<double>(other), a.value.dtype());
  }
  a.graph->set_source(user_source());
  return {a.graph, swapped ? a.graph->op(op, {b, a.value}) : a.graph->op(op, {a.value, b})};
}

void bind_value(nb::module_& m) {
  auto c = nb::class_<PyValue>(m, "Value", "One result of one node of a Graph.");
  c.def_prop_ro("dtype", [](const PyValue& v) { return dtype_to(v.value.dtype()); })
      .def_prop_ro(
          "shape", [](const PyValue& v) { return shape_to(v.value.shape()); },
          nb::sig("def shape(self) -> tuple[int | str, ...]"))
      .def_prop_ro("name", [](const PyValue& v) { return v.value.node->name; })
      .def_prop_ro("source", [](const PyValue& v) { return v.value.node->source; })
      .def(
          "__eq__",
          [](const PyValue& a, nb::handle b) {
            return nb::isinstance<PyValue>(b) && nb::inst_ptr<PyValue>(b)->value == a.value;
          },
          nb::arg().none(), nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__",
           [](const PyValue& v) { return reinterpret_cast<std::intptr_t>(v.value.node) + v.value.index; })
      .def("__repr__", [](const PyValue& v) {
        return "<" + v.value.node->name + ": " + dtype_to(v.value.dtype()) + str(v.value.shape()) + ">";
      });
  struct Operator {
    const char *method, *reflected, *op;
  };
  static constexpr Operator kOperators[] = {{"__add__", "__radd__", "add"},
                                            {"__sub__", "__rsub__", "sub"},
                                            {"__mul__", "__rmul__", "mul"},
                                            {"__truediv__", "__rtruediv__", "div"},
                                            {"__pow__", "__rpow__", "pow"}};
  for (const Operator& o : kOperators) {
    const char* op = o.op;
    c.def(
        o.method, [op](const PyValue& a, nb::handle b) { return arithmetic(op, a, b, false); },
        nb::is_operator());
    c.def(
        o.reflected, [op](const PyValue& a, nb::handle b) { return arithmetic(op, a, b, true); },
        nb::is_operator());
  }
  c.def(
      "__matmul__",
      [](const PyValue& a, const PyValue& b) { return arithmetic("matmul", a, nb::cast(b), false); },
      nb::is_operator());
  c.def("__neg__", [](const PyValue& a) {
    a.graph->set_source(user_source());
    return PyValue{a.graph, a.graph->op("neg", {a.value})};
  });
}

void bind_table(nb::module_& m) {
  static constexpr const char* kKinds[] = {"bool",        "int",   "float", "str",   "list[int]",
                                           "list[float]", "dtype", "shape", "array", "graph"};
  nb::class_<OpInputInfo>(m, "OpInput")
      .def_ro("name", &OpInputInfo::name)
      .def_ro("optional", &OpInputInfo::optional)
      .def_ro("variadic", &OpInputInfo::variadic);
  nb::class_<OpAttrInfo>(m, "OpAttr")
      .def_ro("name", &OpAttrInfo::name)
      .def_prop_ro("kind", [](const OpAttrInfo& a) { return std::string(kKinds[static_cast<int>(a.kind)]); })
      .def_prop_ro("required", [](const OpAttrInfo& a) { return !a.default_value.has_value(); })
      .def_prop_ro(
          "default",
          [](const OpAttrInfo& a) { return a.default_value ? attr_to(*a.default_value) : nb::none(); })
      .def_ro("doc", &OpAttrInfo::doc);
  nb::class_<OpInfo>(m, "Op", "An entry of the op table.")
      .def_ro("name", &OpInfo::name)
      .def_ro("doc", &OpInfo::doc)
      .def_ro("inputs", &OpInfo::inputs)
      .def_ro("attrs", &OpInfo::attrs)
      .def_ro("differentiable", &OpInfo::differentiable);
  m.def("op_names", [] {
    std::vector<std::string> names;
    for (const OpInfo& i : op_infos()) names.push_back(i.name);
    return names;
  });
  m.def("op_info", [](const std::string& op) { return info_of(op, ""); }, nb::arg("op"));
  m.def(
      "dim", [](const std::string& text) { return dim_to(Dim::parse(text)); }, nb::arg("text"),
      nb::sig("def dim(text: str) -> int | str"), "A dim in its normal form: an int where it is one.");
  m.def("op_table", [] { return op_infos(); }, "Every op, by name.");
}

}  // namespace

void bind_graph(nb::module_& m) {
  bind_value(m);
  bind_table(m);
  nb::class_<PyGraph>(m, "Graph", "A graph under construction; deepseek.Graph adds a method per op.")
      .def(nb::init<>())
      .def(
          "placeholder",
          [](PyGraph& g, const std::string& name, nb::handle shape, const std::string& dtype,
             const std::string& role) {
            const std::string& source = locate(g);
            try {
              return PyValue{
                  g.graph, g.graph->placeholder(name, dtype_from(dtype), shape_from(shape), role_from(role))};
            } catch (const Error& e) {
              throw e.with_context("placeholder " + name, source);
            }
          },
          nb::arg("name"), nb::arg("shape"), nb::arg("dtype") = "float32", nb::arg("role") = "argument",
          nb::sig("def placeholder(self, name: str, shape: Sequence[int | str], dtype: str = 'float32', "
                  "role: str = 'argument') -> Value"))
      .def(
          "array_constant",
          [](PyGraph& g, const Tensor& data, const std::string& name) {
            locate(g);
            return PyValue{g.graph, g.graph->constant(data, name)};
          },
          nb::arg("data"), nb::arg("name") = "")
      .def(
          "scalar",
          [](PyGraph& g, double value, const std::string& dtype) {
            return PyValue{g.graph, g.graph->scalar(value, dtype_from(dtype))};
          },
          nb::arg("value"), nb::arg("dtype"), "A constant of rank 0.")
      .def(
          "add_op",
          [](PyGraph& g, const std::string& op, const std::vector<std::optional<PyValue>>& inputs,
             const nb::dict& attrs, const std::string& name) {
            const std::string& source = locate(g);
            const OpInfo& info = info_of(op, source);
            return results_to(g, g.graph->ops(op, values_from(g, inputs, op, source),
                                              attrs_from(info, attrs, source), name));
          },
          nb::arg("op"), nb::arg("inputs"), nb::arg("attrs"), nb::arg("name") = "",
          nb::sig("def add_op(self, op: str, inputs: Sequence[Value | None], attrs: dict[str, object], "
                  "name: str = '') -> Value | tuple[Value, ...]"))
      .def(
          "gradient",
          [](PyGraph& g, const std::string& op, const std::vector<std::optional<PyValue>>& inputs,
             const nb::dict& attrs, const std::vector<std::optional<PyValue>>& dys,
             const std::vector<bool>& needed) {
            const std::string& source = locate(g);
            const std::vector<Value> given = values_from(g, dys, op, source);
            const std::vector<Value> results =
                gradient(*g.graph, op, values_from(g, inputs, op, source),
                         attrs_from(info_of(op, source), attrs, source), given, needed);
            std::vector<std::optional<PyValue>> out;
            for (const Value v : results)
              out.push_back(v ? std::optional(PyValue{g.graph, v}) : std::nullopt);
            return out;
          },
          nb::arg("op"), nb::arg("inputs"), nb::arg("attrs"), nb::arg("dys"), nb::arg("needed"),
          nb::sig("def gradient(self, op: str, inputs: Sequence[Value | None], attrs: dict[str, object], "
                  "dys: Sequence[Value | None], needed: Sequence[bool]) -> list[Value | None]"),
          "Gradients of the inputs of an op for gradients of its results; None where not needed.")
      .def(
          "gradients",
          [](PyGraph& g, const std::vector<PyValue>& ys, const std::vector<std::optional<PyValue>>& dys,
             const std::vector<PyValue>& xs) {
            const std::string& source = locate(g);
            const auto values = [&](const std::vector<PyValue>& given) {
              return values_from(g, {given.begin(), given.end()}, "gradients", source);
            };
            if (ys.size() != dys.size())
              throw Error(Code::InvalidArgument, "gradients", source,
                          std::to_string(ys.size()) + " gradients of results", std::to_string(dys.size()));
            std::vector<std::optional<PyValue>> out;
            for (const Value v :
                 gradients(*g.graph, values(ys), values_from(g, dys, "gradients", source), values(xs)))
              out.push_back(v ? std::optional(PyValue{g.graph, v}) : std::nullopt);
            return out;
          },
          nb::arg("ys"), nb::arg("dys"), nb::arg("xs"),
          nb::sig(
              "def gradients(self, ys: Sequence[Value], dys: Sequence[Value | None], xs: Sequence[Value]) "
              "-> list[Value | None]"),
          "Adds the gradients of the sum of ys[i] * dys[i] for each of xs; None where the ys do not depend "
          "on it. A dy of None stands for ones.")
      .def(
          "output",
          [](PyGraph& g, const std::string& name, const PyValue& value) {
            locate(g);
            g.graph->output(name, value.value);
          },
          nb::arg("name"), nb::arg("value"),
          "Names a result. Without any, the results that nothing uses are the outputs.")
      .def(
          "set_source",
          [](PyGraph& g, const std::string& source) {
            g.graph->set_source(source);
            g.has_source = !source.empty();
          },
          nb::arg("source"), "Where the ops added from now on come from; empty: the caller's line.")
      .def_prop_ro(
          "outputs",
          [](const PyGraph& g) {
            nb::dict d;
            for (const Output& o : g.graph->outputs())
              d[nb::str(o.name.c_str(), o.name.size())] = PyValue{g.graph, o.value};
            return d;
          },
          nb::sig("def outputs(self) -> dict[str, Value]"))
      .def_prop_ro("inputs",
                   [](const PyGraph& g) {
                     std::vector<PyValue> values;
                     for (Node* n : g.graph->inputs()) values.push_back({g.graph, n->out()});
                     return values;
                   })
      .def(
          "bind_dims",
          [](const PyGraph& g, const std::map<std::string, std::int64_t>& known) {
            return PyGraph{std::make_shared<Graph>(bind_dims(*g.graph, {known.begin(), known.end()}))};
          },
          nb::arg("known"), nb::sig("def bind_dims(self, known: dict[str, int]) -> Graph"),
          "A copy in which these symbols are their values.")
      .def("verify", [](const PyGraph& g) { g.graph->verify(); })
      .def("__str__", [](const PyGraph& g) { return g.graph->str(); })
      .def("__len__", [](const PyGraph& g) { return g.graph->nodes().size(); });
}

}  // namespace deepseek::python
