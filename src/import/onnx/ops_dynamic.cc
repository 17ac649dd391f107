// Ops whose results' sizes depend on data: NonZero, Compress, Unique, NonMaxSuppression. The count is a symbol that
// the executable binds when it gets there.
#include <algorithm>
#include <limits>

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

constexpr std::int64_t kUnrolledPicks = 8;

Value nonzero(Context& c, Value x) {
  return c.e.op("nonzero", {x}, {{"symbol", c.importer().fresh_symbol("count")}});
}

// Positions of a vector's true elements, [count].
Value positions(Context& c, Value flags) {
  const Value at = nonzero(c, flags);
  return c.e.reshape(at, {at.dim(1)});
}

void non_zero(Context& c) {
  const Value x = c.in(0);
  c.out(nonzero(c, x.rank() == 0 ? c.e.reshape(x, {1}) : x));
}

void compress(Context& c) {
  Value x = c.in(0), condition = c.in(1);
  if (condition.rank() != 1 || condition.dtype() != DType::Bool)
    c.bad("a vector of bools", str(condition.type()));
  int axis = 0;
  if (c.has_attr("axis"))
    axis = c.axis(c.attr("axis", 0), x.rank());
  else
    x = c.e.flatten(x);
  c.out(c.e.gather(x, positions(c, condition), axis));
}

// Each row's place in the order of rows (the first of equals first), by comparing all pairs; and the first row of
// those equal to it.
struct Ranks {
  Value rank, first;
};
Ranks rank_rows(Emit& e, Value rows) {
  const Dim n = rows.dim(0), width = rows.dim(1);
  const Shape cube{n, n, width};
  const Value a = e.broadcast_to(e.unsqueeze(rows, 0), cube), b = e.broadcast_to(e.unsqueeze(rows, 1), cube);
  // b is row j, a is row i: does j come before i?
  const Value differs = e.cast(e.op("not_equal", {a, b}), DType::I64);
  const Value before = e.op("cumsum", {differs}, {{"axis", std::int64_t{2}}, {"exclusive", true}});
  const Value decides = e.logical_and(e.equal(before, 0), e.less(b, a));
  const Value less = e.reduce("any", decides, {2}, false);  // [j, i]
  const Value same = e.equal(e.sum(differs, {2}, false), 0);
  const Shape square{n, n};
  const Value j = e.iota(square, DType::I64, 0), i = e.iota(square, DType::I64, 1);
  const Value earlier = e.logical_or(less, e.logical_and(same, e.less(j, i)));
  const Value first = e.reduce("min", e.select(same, j, e.dim(n, DType::I64)), {0}, false);
  return {e.sum(e.cast(earlier, DType::I64), {0}, false), first};
}

void unique(Context& c) {
  Emit& e = c.e;
  Value x = c.in(0);
  int axis = 0;
  const bool whole = !c.has_attr("axis");
  if (whole)
    x = e.flatten(x);
  else
    axis = c.axis(c.attr("axis", 0), x.rank());
  const Dim n = x.dim(axis);
  Value order, starts;  // rows in order; whether row order[i] differs from the one before
  const Value at = e.iota({n}, DType::I64, 0);
  if (x.rank() == 1) {
    const auto sorted = e.ops("sort", {x}, {{"axis", std::int64_t{0}}});
    order = sorted.at(1);
    const Value values = sorted.at(0);
    const Value previous = e.gather(values, e.maximum(e.sub(at, 1), 0), 0);
    starts = e.logical_or(e.equal(at, 0), e.op("not_equal", {values, previous}));
  } else {
    Ints perm = axes_range(0, x.rank());
    std::rotate(perm.begin(), perm.begin() + axis, perm.begin() + axis + 1);
    Dim width = 1;
    for (int i = 0; i < x.rank(); ++i)
      if (i != axis) width = width * x.dim(i);
    const Ranks ranks = rank_rows(e, e.reshape(e.permute(x, perm), {n, width}));
    order = e.op("scatter_elements", {at, ranks.rank, at}, {{"axis", std::int64_t{0}}});
    starts = e.gather(e.equal(ranks.first, at), order, 0);
  }
  const Value group = e.sub(e.op("cumsum", {e.cast(starts, DType::I64)}, {{"axis", std::int64_t{0}}}), 1);
  const Value begins = positions(c, starts);  // [count], into the order
  const Dim count = begins.dim(0);
  Value firsts = e.gather(order, begins, 0);
  Value inverse = e.op("scatter_elements", {at, order, group}, {{"axis", std::int64_t{0}}});
  const Value ends =
      e.concat({e.slice_axis(begins, 0, min(Dim(1), count), count), e.reshape(e.dim(n, DType::I64), {1})}, 0);
  Value counts = e.sub(e.slice_axis(ends, 0, 0, count), begins);
  if (c.attr("sorted", 1) == 0) {
    const Value by_first = e.ops("sort", {firsts}, {{"axis", std::int64_t{0}}}).at(1);
    const Value places = e.iota({count}, DType::I64, 0);
    const Value rank = e.op("scatter_elements", {places, by_first, places}, {{"axis", std::int64_t{0}}});
    firsts = e.gather(firsts, by_first, 0);
    counts = e.gather(counts, by_first, 0);
    inverse = e.gather(rank, inverse, 0);
  }
  c.out(0, Item(e.gather(x, firsts, axis)));
  c.out(1, Item(firsts));
  c.out(2, Item(inverse));
  c.out(3, Item(counts));
}

// -- non-maximum suppression ---------------------------------------------------------------------------------
struct Boxes {
  Value low[2], high[2];  // [B, 1, N] by dim
};

Boxes boxes_of(Emit& e, Value boxes, bool centred) {
  const auto column = [&](int i) { return e.unsqueeze(e.squeeze(e.slice_axis(boxes, 2, i, i + 1), 2), 1); };
  Boxes b;
  for (int d = 0; d < 2; ++d) {
    const Value p = column(d), q = column(d + 2);
    b.low[d] = centred ? e.sub(p, e.mul(q, 0.5)) : e.minimum(p, q);
    b.high[d] = centred ? e.add(p, e.mul(q, 0.5)) : e.maximum(p, q);
  }
  return b;
}

// One pick for each batch and class: state is (i, open Bool [B, C, N], picked I64 [B, C, K]); constants are scores,
// the four sides and the threshold.
std::vector<Value> pick(Emit& e, const std::vector<Value>& state, const std::vector<Value>& constants) {
  const Value i = state[0], open = state[1], picked = state[2], scores = constants[0],
              threshold = constants[5];
  const Shape all = scores.shape();
  const Value lowest = e.like(-std::numeric_limits<double>::infinity(), scores);
  const Value best =
      e.op("argmax", {e.select(open, scores, lowest)}, {{"axis", std::int64_t{2}}, {"keepdims", true}});
  const Value any = e.reduce("any", open, {2}, true);
  const Value chosen = e.equal(e.iota(all, DType::I64, 2), best);
  Value overlap, area, chosen_area;
  for (std::size_t d = 0; d < 2; ++d) {
    const Value low = constants[1 + d], high = constants[3 + d];
    const auto of_chosen = [&](Value side) {
      return e.sum(e.select(chosen, e.broadcast_to(side, all), 0), {2}, true);
    };
    const Value chosen_low = of_chosen(low), chosen_high = of_chosen(high);
    const Value shared = e.maximum(e.sub(e.minimum(high, chosen_high), e.maximum(low, chosen_low)), 0);
    const Value extent = e.sub(high, low), chosen_extent = e.sub(chosen_high, chosen_low);
    overlap = overlap ? e.mul(overlap, shared) : shared;
    area = area ? e.mul(area, extent) : extent;
    chosen_area = chosen_area ? e.mul(chosen_area, chosen_extent) : chosen_extent;
  }
  const Value total = e.sub(e.add(area, chosen_area), overlap);
  const Value solid =
      e.logical_and(e.less(0, area), e.logical_and(e.less(0, chosen_area), e.less(0, overlap)));
  const Value covered = e.logical_and(solid, e.less(threshold, e.div(overlap, total)));
  const Value left = e.logical_and(open, e.logical_not(e.logical_or(covered, chosen)));
  const Value zero = e.ints({0});
  const Value next = e.op("dynamic_update_slice",
                          {picked, e.select(any, best, -1), e.concat({zero, zero, e.reshape(i, {1})}, 0)});
  return {e.add(i, 1), left, next};
}

Value pick_all(Emit& e, std::vector<Value> state, const std::vector<Value>& constants, std::int64_t picks) {
  if (picks <= kUnrolledPicks) {
    for (std::int64_t i = 0; i < picks; ++i) state = pick(e, state, constants);
    return state[2];
  }
  std::vector<Value> inputs = state;
  inputs.insert(inputs.end(), constants.begin(), constants.end());
  const auto declare = [&](Graph& g) {
    g.set_source(e.graph().source());
    std::vector<Value> own;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      own.push_back(g.placeholder("v" + std::to_string(i), inputs[i].dtype(), inputs[i].shape()));
    return own;
  };
  auto condition = std::make_shared<Graph>(), body = std::make_shared<Graph>();
  Emit b(*condition);
  condition->output("more", b.less(declare(*condition)[0], static_cast<double>(picks)));
  const auto own = declare(*body);
  Emit inner(*body);
  const auto next = pick(inner, {own.begin(), own.begin() + 3}, {own.begin() + 3, own.end()});
  for (std::size_t i = 0; i < next.size(); ++i) body->output("state" + std::to_string(i), next[i]);
  return e
      .ops("while", inputs,
           {{"condition", std::shared_ptr<const Graph>(condition)},
            {"body", std::shared_ptr<const Graph>(body)},
            {"carried", std::int64_t{3}}})
      .at(2);
}

void non_max_suppression(Context& c) {
  Emit& e = c.e;
  const Value boxes = c.in(0), scores = c.in(1);
  if (boxes.rank() != 3 || scores.rank() != 3 || !(boxes.dim(2) == Dim(4)))
    c.bad("boxes [B, N, 4] and scores [B, C, N]", str(boxes.type()) + " and " + str(scores.type()));
  std::int64_t picks = c.has(2) ? std::max<std::int64_t>(c.need_int(2), 0) : 0;
  if (boxes.dim(1).is_static()) picks = std::min(picks, boxes.dim(1).value());
  if (picks > (1 << 20)) c.unsupported("at most 2^20 boxes per class", std::to_string(picks));
  if (picks == 0) return c.out(e.full({0, 3}, 0, DType::I64));
  const Boxes b = boxes_of(e, boxes, c.attr("center_point_box", 0) != 0);
  const Value threshold = c.has(3) ? e.reshape(c.in(3), {}) : e.like(0, boxes);
  const Value open =
      c.has(4) ? e.less(e.reshape(c.in(4), {}), scores) : e.full(scores.shape(), 1, DType::Bool);
  const Value none = e.full({scores.dim(0), scores.dim(1), picks}, -1, DType::I64);
  const Value picked = pick_all(e, {e.scalar(0, DType::I64), open, none},
                                {scores, b.low[0], b.low[1], b.high[0], b.high[1], threshold}, picks);
  const Value where = e.transpose(nonzero(c, e.less_equal(0, picked)), {1, 0});  // [count, 3]
  const Value box = e.op("gather_nd", {picked, where});
  c.out(e.concat({e.slice_axis(where, 1, 0, 2), e.unsqueeze(box, 1)}, 1));
}

}  // namespace

void add_dynamic(Translators& t) {
  t.add("NonZero", non_zero);
  t.add("Compress", compress);
  t.add("Unique", unique);
  t.add("NonMaxSuppression", non_max_suppression);
}

}  // namespace deepseek::onnx_import
