// Ops that read or write by index, and those that sort.
#include <algorithm>
#include <map>

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

Value indices(Context& c, int i) {
  const Value v = c.in(i);
  if (v.dtype() != DType::I32 && v.dtype() != DType::I64) c.bad("int32 or int64 indices", str(v.type()));
  return v;
}

void gather(Context& c) {
  const Value x = c.in(0);
  c.out(c.e.gather(x, indices(c, 1), c.axis(c.attr("axis", 0), x.rank())));
}

void gather_elements(Context& c) {
  const Value x = c.in(0);
  c.out(c.e.op("gather_elements", {x, indices(c, 1)},
               {{"axis", std::int64_t{c.axis(c.attr("axis", 0), x.rank())}}}));
}

void gather_nd(Context& c) {
  c.out(c.e.op("gather_nd", {c.in(0), indices(c, 1)}, {{"batch_dims", c.attr("batch_dims", 0)}}));
}

std::string reduction(Context& c) {
  const std::string r = c.attr_s("reduction", "none");
  if (r != "none" && r != "add" && r != "mul" && r != "min" && r != "max")
    c.bad("reduction none, add, mul, min or max", "'" + r + "'");
  return r;
}

void scatter_elements(Context& c) {
  const Value x = c.in(0);
  c.out(c.e.op("scatter_elements", {x, indices(c, 1), c.in(2)},
               {{"axis", std::int64_t{c.axis(c.attr("axis", 0), x.rank())}}, {"reduction", reduction(c)}}));
}

void scatter_nd(Context& c) {
  c.out(c.e.op("scatter_nd", {c.in(0), indices(c, 1), c.in(2)}, {{"reduction", reduction(c)}}));
}

void topk(Context& c) {
  const Value x = c.in(0);
  const Dim k = c.opset() < 10 ? Dim(c.need_attr("k")) : c.need_dim(1);
  const auto results = c.e.ops("topk", {x},
                               {{"k", Shape{k}},
                                {"axis", std::int64_t{c.axis(c.attr("axis", -1), x.rank())}},
                                {"largest", c.attr("largest", 1) != 0}});
  c.out(0, Item(results.at(0)));
  c.out(1, Item(c.e.cast(results.at(1), DType::I64)));
}

void reverse_sequence(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  const int batch = c.axis(c.attr("batch_axis", 1), x.rank()),
            time = c.axis(c.attr("time_axis", 0), x.rank());
  const Value lengths = e.along_axis(e.cast(c.in(1), DType::I64), batch, x.rank());
  const Value at = e.iota(x.shape(), DType::I64, time);
  const Value mirrored = e.sub(e.sub(lengths, 1), at);
  const Value source = e.select(e.less(at, lengths), mirrored, at);
  c.out(e.op("gather_elements", {x, source}, {{"axis", std::int64_t{time}}}));
}

// -- einsum --------------------------------------------------------------------------------------------------
// Each operand is brought to one axis per label; two at a time become a batched matrix product.
struct Operand {
  Value x;
  std::string labels;  // one letter per axis; an ellipsis has letters of its own
};

bool contains(const std::string& s, char l) { return s.find(l) != std::string::npos; }

// Labels that stand twice in one operand: the diagonal.
Operand without_repeats(Context& c, Operand o) {
  Emit& e = c.e;
  for (std::size_t i = 0; i < o.labels.size(); ++i) {
    const std::size_t j = o.labels.find(o.labels[i], i + 1);
    if (j == std::string::npos) continue;
    const int a = static_cast<int>(i), b = static_cast<int>(j);
    const Value on_diagonal = e.equal(e.iota(o.x.shape(), DType::I64, a), e.iota(o.x.shape(), DType::I64, b));
    o.x = e.sum(e.select(on_diagonal, o.x, 0), {b}, false);
    o.labels.erase(j, 1);
    return without_repeats(c, std::move(o));
  }
  return o;
}

Operand sum_out(Emit& e, Operand o, const std::string& keep) {
  Ints axes;
  std::string left;
  for (std::size_t i = 0; i < o.labels.size(); ++i) {
    if (contains(keep, o.labels[i]))
      left += o.labels[i];
    else
      axes.push_back(static_cast<std::int64_t>(i));
  }
  if (!axes.empty()) o.x = e.sum(o.x, axes, false);
  return {o.x, left};
}

Value arranged(Emit& e, const Operand& o, const std::string& order) {
  Ints perm;
  for (const char l : order) perm.push_back(static_cast<std::int64_t>(o.labels.find(l)));
  return e.permute(o.x, std::move(perm));
}

Operand contract(Emit& e, Operand a, Operand b, const std::string& keep) {
  a = sum_out(e, a, keep + b.labels);
  b = sum_out(e, b, keep + a.labels);
  std::string batch, inner, left, right;
  for (const char l : a.labels) (!contains(b.labels, l) ? left : contains(keep, l) ? batch : inner) += l;
  for (const char l : b.labels)
    if (!contains(a.labels, l)) right += l;
  const auto extent = [&](char l) {
    const Dim& d = contains(a.labels, l) ? a.x.dim(static_cast<int>(a.labels.find(l))) : Dim(1);
    return d == Dim(1) && contains(b.labels, l) ? b.x.dim(static_cast<int>(b.labels.find(l))) : d;
  };
  const auto matrix = [&](const Operand& o, const std::string& rows, const std::string& columns) {
    // Axes of size 1 that meet longer ones are stretched, so that runs of axes can be joined.
    Value x = arranged(e, o, batch + rows + columns);
    Shape full, joined;
    Dim r = 1, n = 1;
    for (const char l : batch) joined.push_back(extent(l));
    for (const char l : rows) r = r * extent(l);
    for (const char l : columns) n = n * extent(l);
    for (const char l : batch + rows + columns) full.push_back(extent(l));
    joined.push_back(r);
    joined.push_back(n);
    return e.reshape(e.broadcast_to(x, full), joined);
  };
  const Value y = e.matmul(matrix(a, left, inner), matrix(b, inner, right));
  Shape shape;
  for (const char l : batch + left + right) shape.push_back(extent(l));
  return {e.reshape(y, shape), batch + left + right};
}

void einsum(Context& c) {
  Emit& e = c.e;
  std::string equation = c.attr_s("equation", "");
  std::erase(equation, ' ');
  const std::size_t arrow = equation.find("->");
  std::string left = equation.substr(0, arrow);
  std::vector<Operand> operands;
  std::string ellipsis;  // letters for its axes, from the longest
  std::size_t begin = 0;
  std::vector<std::string> terms;
  while (begin <= left.size()) {
    const std::size_t comma = std::min(left.find(',', begin), left.size());
    terms.push_back(left.substr(begin, comma - begin));
    begin = comma + 1;
  }
  if (static_cast<int>(terms.size()) != c.inputs())
    c.bad(std::to_string(terms.size()) + " inputs", std::to_string(c.inputs()));
  for (int i = 0; i < c.inputs(); ++i) {
    std::string labels = terms[static_cast<std::size_t>(i)];
    const Value x = c.in(i);
    const std::size_t dots = labels.find("...");
    if (dots != std::string::npos) {
      const int spread = x.rank() - static_cast<int>(labels.size() - 3);
      if (spread < 0 || spread > 9) c.bad("as many labels as axes", labels);
      // Letters count from the right: the ellipsis broadcasts like NumPy's leading axes.
      std::string letters;
      for (int k = spread; k-- > 0;) letters += static_cast<char>('0' + k);
      if (letters.size() > ellipsis.size()) ellipsis = letters;
      labels.replace(dots, 3, letters);
    }
    if (static_cast<int>(labels.size()) != x.rank()) c.bad("as many labels as axes", labels);
    operands.push_back(without_repeats(c, {x, labels}));
  }
  std::string result;
  if (arrow != std::string::npos) {
    result = equation.substr(arrow + 2);
    const std::size_t dots = result.find("...");
    if (dots != std::string::npos) result.replace(dots, 3, ellipsis);
  } else {
    std::map<char, int> counts;
    for (const std::string& t : terms)
      for (const char l : t)
        if (l != '.') ++counts[l];
    result = ellipsis;
    for (const auto& [l, n] : counts)
      if (n == 1) result += l;
  }
  Operand total = operands[0];
  for (std::size_t i = 1; i < operands.size(); ++i) {
    std::string keep = result;
    for (std::size_t k = i + 1; k < operands.size(); ++k) keep += operands[k].labels;
    total = contract(e, total, operands[i], keep);
  }
  total = sum_out(e, total, result);
  for (const char l : result)
    if (!contains(total.labels, l)) c.bad("labels of the result that an input has", result);
  c.out(arranged(e, total, result));
}

}  // namespace

void add_index(Translators& t) {
  t.add("Gather", gather);
  t.add("GatherElements", gather_elements);
  t.add("GatherND", gather_nd);
  t.add("Scatter", scatter_elements);
  t.add("ScatterElements", scatter_elements);
  t.add("ScatterND", scatter_nd);
  t.add("TopK", topk);
  t.add("ReverseSequence", reverse_sequence);
  t.add("Einsum", einsum);
}

}  // namespace deepseek::onnx_import
