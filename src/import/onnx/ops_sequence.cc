// Sequences and optionals: they exist only while importing, so their lengths and positions must be known.
#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

const std::vector<Item>& elements(Context& c, int i) {
  const Item& item = c.item(i);
  if (item.kind != Item::Kind::Sequence) c.bad("a sequence", "a tensor");
  return *item.sequence;
}

std::size_t position(Context& c, int i, std::size_t limit) {
  const std::int64_t given = c.need_int(i);
  const auto size = static_cast<std::int64_t>(limit);
  const std::int64_t at = given < 0 ? given + size : given;
  if (at < 0 || at >= size)
    c.bad("a position in a sequence of " + std::to_string(limit), std::to_string(given));
  return static_cast<std::size_t>(at);
}

void construct(Context& c) {
  std::vector<Item> items;
  for (int i = 0; i < c.inputs(); ++i) items.push_back(c.item(i));
  c.importer().count_nodes(items.size());
  c.out(0, Item(std::move(items)));
}

void insert(Context& c) {
  std::vector<Item> items = elements(c, 0);
  std::size_t at = items.size();
  if (c.has(2)) {
    const std::int64_t given = c.need_int(2);
    const auto size = static_cast<std::int64_t>(items.size());
    const std::int64_t from_start = given < 0 ? given + size : given;
    if (from_start < 0 || from_start > size) c.bad("a position in the sequence", std::to_string(given));
    at = static_cast<std::size_t>(from_start);
  }
  items.insert(items.begin() + static_cast<std::ptrdiff_t>(at), c.item(1));
  c.importer().count_nodes(items.size());  // a copy in every iteration adds up
  c.out(0, Item(std::move(items)));
}

void erase(Context& c) {
  std::vector<Item> items = elements(c, 0);
  if (items.empty()) c.bad("a sequence with elements", "an empty one");
  const std::size_t at = c.has(1) ? position(c, 1, items.size()) : items.size() - 1;
  items.erase(items.begin() + static_cast<std::ptrdiff_t>(at));
  c.out(0, Item(std::move(items)));
}

void at(Context& c) {
  const auto& items = elements(c, 0);
  c.out(0, items[position(c, 1, items.size())]);
}

void concat(Context& c) {
  std::vector<Value> parts;
  const bool new_axis = c.attr("new_axis", 0) != 0;
  for (const Item& i : elements(c, 0)) parts.push_back(c.value(i));
  if (parts.empty()) c.bad("a sequence with elements", "an empty one");
  const int axis = c.axis(c.need_attr("axis"), parts[0].rank() + new_axis);
  if (new_axis)
    for (Value& v : parts) v = c.e.unsqueeze(v, axis);
  c.out(c.e.concat(parts, axis));
}

void split(Context& c) {
  const Value x = c.in(0);
  const int axis = c.axis(c.attr("axis", 0), x.rank());
  if (!x.dim(axis).is_static()) c.ask_for("a static dim to split", x.dim(axis));
  const std::int64_t extent = x.dim(axis).value();
  Ints sizes;
  const bool scalar = !c.has(1) || c.rank(1) == 0;
  if (scalar) {
    const std::int64_t size = c.has(1) ? c.need_int(1) : 1;
    if (size < 1) c.bad("a positive size", std::to_string(size));
    for (std::int64_t start = 0; start < extent; start += size) {
      c.importer().count_nodes(1);
      sizes.push_back(std::min(size, extent - start));
    }
  } else {
    sizes = c.need_ints(1);
  }
  std::vector<Item> items;
  std::int64_t start = 0;
  for (const std::int64_t size : sizes) {
    if (size < 0 || size > extent - start)
      c.bad("sizes that add up to " + std::to_string(extent), str(sizes));
    Value part = c.e.slice_axis(x, axis, start, start + size);
    if (!c.has(1) && c.attr("keepdims", 1) == 0) part = c.e.squeeze(part, axis);
    items.emplace_back(part);
    start += size;
  }
  c.out(0, Item(std::move(items)));
}

void map(Context& c) {
  const auto& body = c.attr_graph("body");
  const std::size_t length = elements(c, 0).size();
  std::vector<std::vector<Item>> results(static_cast<std::size_t>(body.output_size()));
  for (std::size_t i = 0; i < length; ++i) {
    std::vector<Item> inputs;
    for (int k = 0; k < c.inputs(); ++k) {
      const Item& item = c.item(k);
      if (item.kind == Item::Kind::Sequence && item.sequence->size() != length)
        c.bad("sequences of one length", std::to_string(item.sequence->size()));
      inputs.push_back(item.kind == Item::Kind::Sequence ? (*item.sequence)[i] : item);
    }
    auto outputs = c.importer().inline_graph(body, std::move(inputs), c.scope());
    for (std::size_t k = 0; k < outputs.size(); ++k) results[k].push_back(outputs[k]);
  }
  for (int k = 0; k < c.outputs(); ++k) c.out(k, Item(results.at(static_cast<std::size_t>(k))));
}

void has_element(Context& c) {
  const bool has = c.has(0);
  c.out(0, Item(Known::scalar(DType::Bool, has)));
}

}  // namespace

void add_sequence(Translators& t) {
  t.add("SequenceEmpty", [](Context& c) { c.out(0, Item(std::vector<Item>())); });
  t.add("SequenceConstruct", construct);
  t.add("SequenceInsert", insert);
  t.add("SequenceErase", erase);
  t.add("SequenceAt", at);
  t.add("SequenceLength", [](Context& c) {
    c.out(0, Item(Known::scalar(DType::I64, static_cast<double>(elements(c, 0).size()))));
  });
  t.add("ConcatFromSequence", concat);
  t.add("SplitToSequence", split);
  t.add("SequenceMap", map);
  t.add("Optional", [](Context& c) { c.out(0, c.has(0) ? c.item(0) : Item()); });
  t.add("OptionalHasElement", has_element);
  t.add("OptionalGetElement", [](Context& c) { c.out(0, c.item(0)); });
}

}  // namespace deepseek::onnx_import
