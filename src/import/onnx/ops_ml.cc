// Classical machine learning: tree ensembles, n-grams, small ops of ai.onnx.ml.
#include <algorithm>
#include <cmath>
#include <map>

#include "import/onnx/importer.h"

namespace deepseek::onnx_import {

namespace {

constexpr std::size_t kMaxSteps = 1 << 22;     // of all paths together
constexpr std::size_t kMaxLeaves = 1 << 14;    // paths are a dense matrix, nodes x leaves
constexpr std::int64_t kMaxColumns = 1 << 24;  // of TfIdfVectorizer's result

void array_feature_extractor(Context& c) {
  const Value x = c.in(0);
  if (x.rank() < 1) c.bad("rank 1 or more", str(x.type()));
  const Value y = c.e.gather(x, c.e.flatten(c.in(1)), x.rank() - 1);
  c.out(x.rank() == 1 ? c.e.reshape(y, {1, y.dim(0)}) : y);
}

void binarizer(Context& c) {
  const Value x = c.in(0);
  c.out(c.e.cast(c.e.less(c.attr_f("threshold", 0), x), x.dtype()));
}

// -- TfIdfVectorizer: how often each n-gram of a pool occurs, with up to `skip` elements left out between its items.
struct Gram {
  Ints items;
  std::int64_t column;
};

std::vector<Gram> grams_of(Context& c, const Ints& columns) {
  const Ints pool = c.attr_ints("pool_int64s"), counts = c.attr_ints("ngram_counts");
  if (c.has_attr("pool_strings")) c.unsupported("n-grams of integers", "strings");
  std::vector<Gram> grams;
  for (std::size_t n = 0; n < counts.size(); ++n) {
    const std::int64_t end = n + 1 < counts.size() ? counts[n + 1] : static_cast<std::int64_t>(pool.size());
    const auto size = static_cast<std::int64_t>(n + 1);
    if (counts[n] < 0 || end < counts[n] || end > static_cast<std::int64_t>(pool.size()) ||
        (end - counts[n]) % size != 0)
      c.bad("ngram_counts that divide the pool", str(counts));
    for (std::int64_t at = counts[n]; at < end; at += size) {
      if (grams.size() >= columns.size()) c.bad("an index for each n-gram", std::to_string(columns.size()));
      grams.push_back({{pool.begin() + at, pool.begin() + at + size}, columns[grams.size()]});
    }
  }
  return grams;
}

// How often the grams, all of one size, occur in x [B, L] with `distance` from item to item: [B, grams].
Value occurrences(Emit& e, Value x, const std::vector<Gram>& grams, std::int64_t distance) {
  const auto size = static_cast<std::int64_t>(grams[0].items.size());
  const Dim starts = x.dim(1) - Dim((size - 1) * distance);
  Value match;
  for (std::int64_t i = 0; i < size; ++i) {
    Ints wanted;
    for (const Gram& g : grams) wanted.push_back(g.items[static_cast<std::size_t>(i)]);
    const Value window = e.unsqueeze(e.slice_axis(x, 1, i * distance, starts + Dim(i * distance)), 1);
    const Value same =
        e.equal(window, e.reshape(e.ints(wanted), {1, static_cast<std::int64_t>(wanted.size()), 1}));
    match = match ? e.logical_and(match, same) : same;
  }
  return e.sum(e.cast(match, DType::F32), {2}, false);
}

void tfidf(Context& c) {
  Emit& e = c.e;
  Value x = c.in(0);
  if (x.rank() < 1 || x.rank() > 2 || !is_integer(x.dtype()))
    c.unsupported("a vector or matrix of integers", str(x.type()));
  const bool single = x.rank() == 1;
  x = e.cast(single ? e.unsqueeze(x, 0) : x, DType::I64);
  if (!x.dim(1).is_static()) c.ask_for("rows of static length", x.dim(1));
  const std::int64_t length = x.dim(1).value(), skips = c.need_attr("max_skip_count");
  const std::int64_t shortest = c.need_attr("min_gram_length"), longest = c.need_attr("max_gram_length");
  if (skips < 0 || skips > 1024) c.unsupported("max_skip_count from 0 to 1024", std::to_string(skips));
  std::map<std::size_t, std::vector<Gram>> by_size;
  std::int64_t width = 0;
  const Ints indexes = c.attr_ints("ngram_indexes");
  for (const std::int64_t column : indexes) {
    if (column < 0 || column >= kMaxColumns)
      c.bad("ngram_indexes that are not negative and fit", std::to_string(column));
    width = std::max(width, column + 1);
  }
  for (Gram& g : grams_of(c, indexes)) by_size[g.items.size()].push_back(std::move(g));
  Value total = e.full({x.dim(0), width}, 0, DType::F32);
  for (const auto& [size, grams] : by_size) {
    const auto n = static_cast<std::int64_t>(size);
    if (n < shortest || n > longest) continue;
    Value count;
    for (std::int64_t distance = 1; distance <= skips + 1; ++distance) {
      if ((n - 1) * distance >= length || (n == 1 && distance > 1)) break;
      c.importer().count_nodes(4 * size);
      const Value found = occurrences(e, x, grams, distance);
      count = count ? e.add(count, found) : found;
    }
    if (!count) continue;
    Ints columns;
    for (const Gram& g : grams) columns.push_back(g.column);
    const Value one_hot =
        e.cast(e.equal(e.reshape(e.ints(columns), {static_cast<std::int64_t>(columns.size()), 1}),
                       e.iota({1, width}, DType::I64, 1)),
               DType::F32);
    total = e.add(total, e.matmul(count, one_hot));
  }
  const std::string mode = c.attr_s("mode", "TF");
  const auto weights = c.attr_floats("weights");
  if (mode == "IDF") total = e.select(e.less(0, total), 1, e.like(0, total));
  if (mode != "TF" && !weights.empty()) {
    if (static_cast<std::int64_t>(weights.size()) != width)
      c.bad(std::to_string(width) + " weights", std::to_string(weights.size()));
    total = e.mul(total, e.floats(weights, DType::F32));
  }
  if (mode != "TF" && mode != "IDF" && mode != "TFIDF") c.bad("mode TF, IDF or TFIDF", "'" + mode + "'");
  c.out(single ? e.squeeze(total, 0) : total);
}

// -- TreeEnsemble --------------------------------------------------------------------------------------------
// Every node's condition at once, [batch, nodes]; a leaf is reached where all conditions on its path came out as the
// path has them, which a product with the matrix of paths counts.
struct Forest {
  Ints features, modes, true_ids, false_ids, true_leafs, false_leafs, leaf_targets, roots;
  std::vector<double> splits, members, leaf_weights, missing;

  struct Path {
    std::int64_t leaf;
    std::vector<std::pair<std::size_t, bool>> steps;
  };
  std::vector<Path> paths;
  std::vector<std::size_t> member_order;  // set membership nodes, as their members follow each other
};

std::vector<double> numbers(Context& c, const char* name) {
  const auto t = c.attr_tensor(name);
  std::vector<double> values;
  for (std::int64_t i = 0; t && i < t->numel(); ++i) values.push_back(t->at(i));
  return values;
}

Forest forest_of(Context& c) {
  Forest f;
  f.features = c.attr_ints("nodes_featureids");
  for (const double m : numbers(c, "nodes_modes")) f.modes.push_back(static_cast<std::int64_t>(m));
  f.true_ids = c.attr_ints("nodes_truenodeids");
  f.false_ids = c.attr_ints("nodes_falsenodeids");
  f.true_leafs = c.attr_ints("nodes_trueleafs");
  f.false_leafs = c.attr_ints("nodes_falseleafs");
  f.leaf_targets = c.attr_ints("leaf_targetids");
  f.roots = c.attr_ints("tree_roots");
  f.splits = numbers(c, "nodes_splits");
  f.members = numbers(c, "membership_values");
  f.leaf_weights = numbers(c, "leaf_weights");
  for (const std::int64_t m : c.attr_ints("nodes_missing_value_tracks_true"))
    f.missing.push_back(static_cast<double>(m));
  const std::size_t n = f.features.size();
  for (const Ints* list : {&f.modes, &f.true_ids, &f.false_ids, &f.true_leafs, &f.false_leafs})
    if (list->size() != n)
      c.bad(std::to_string(n) + " entries for each attribute of nodes", std::to_string(list->size()));
  if (f.splits.size() != n || f.leaf_weights.size() != f.leaf_targets.size() ||
      (!f.missing.empty() && f.missing.size() != n))
    c.bad("as many splits as nodes and weights as leaves", std::to_string(f.splits.size()));
  return f;
}

void walk(Context& c, Forest& f) {
  struct Visit {
    std::int64_t id;
    bool leaf;
    std::vector<std::pair<std::size_t, bool>> steps;
  };
  std::vector<Visit> stack;
  const std::size_t n = f.features.size();
  std::size_t steps = 0;
  for (auto root = f.roots.rbegin(); root != f.roots.rend(); ++root) {
    if (*root < 0 || static_cast<std::size_t>(*root) >= n)
      c.bad("roots that are nodes", std::to_string(*root));
    const auto r = static_cast<std::size_t>(*root);
    const bool only_leaf = f.true_leafs[r] != 0 && f.false_leafs[r] != 0 && f.true_ids[r] == f.false_ids[r];
    stack.push_back({only_leaf ? f.true_ids[r] : *root, only_leaf, {}});
  }
  while (!stack.empty()) {
    Visit v = std::move(stack.back());
    stack.pop_back();
    const std::size_t limit = v.leaf ? f.leaf_targets.size() : n;
    if (v.id < 0 || static_cast<std::size_t>(v.id) >= limit || v.steps.size() > n)
      c.bad("trees without cycles", std::to_string(v.id));
    if (v.leaf) {
      if (f.paths.size() == kMaxLeaves)
        c.unsupported("at most " + std::to_string(kMaxLeaves) + " leaves", "more");
      f.paths.push_back({v.id, std::move(v.steps)});
      continue;
    }
    const auto at = static_cast<std::size_t>(v.id);
    steps += 2 * v.steps.size();
    if (steps > kMaxSteps) c.unsupported("trees whose paths fit", std::to_string(n) + " nodes");
    if (f.modes[at] == 6) f.member_order.push_back(at);
    Visit yes{f.true_ids[at], f.true_leafs[at] != 0, v.steps},
        no{f.false_ids[at], f.false_leafs[at] != 0, std::move(v.steps)};
    yes.steps.emplace_back(at, true);
    no.steps.emplace_back(at, false);
    stack.push_back(std::move(no));  // the true branch comes first
    stack.push_back(std::move(yes));
  }
}

// [batch, nodes] of Bool.
Value conditions(Context& c, const Forest& f, Value x) {
  Emit& e = c.e;
  const auto n = static_cast<std::int64_t>(f.features.size());
  const Value seen = e.gather(x, e.ints(f.features), 1), split = e.floats(f.splits, x.dtype());
  const Value compared[] = {e.less_equal(seen, split), e.less(seen, split),
                            e.less_equal(split, seen), e.less(split, seen),
                            e.equal(seen, split),      e.op("not_equal", {seen, split})};
  Value result = e.full(seen.shape(), 0, DType::Bool);
  const auto where = [&](auto holds) {
    Tensor mask(DType::Bool, {n});
    for (std::int64_t i = 0; i < n; ++i) mask.set(i, holds(static_cast<std::size_t>(i)));
    return e.constant(std::move(mask));
  };
  for (std::int64_t mode = 0; mode < 6; ++mode) {
    if (std::find(f.modes.begin(), f.modes.end(), mode) == f.modes.end()) continue;
    result = e.select(where([&](std::size_t i) { return f.modes[i] == mode; }), compared[mode], result);
  }
  std::size_t next = 0;
  for (const std::size_t node : f.member_order) {
    Value any = e.full({x.dim(0), 1}, 0, DType::Bool);
    const Value feature =
        e.slice_axis(seen, 1, static_cast<std::int64_t>(node), static_cast<std::int64_t>(node) + 1);
    for (; next < f.members.size() && !std::isnan(f.members[next]); ++next)
      any = e.logical_or(any, e.equal(feature, f.members[next]));
    ++next;  // NaN ends a set
    result = e.select(where([&](std::size_t i) { return i == node; }), any, result);
  }
  if (!f.missing.empty())
    result = e.logical_or(result, e.logical_and(where([&](std::size_t i) { return f.missing[i] != 0; }),
                                                e.unary("is_nan", seen)));
  return result;
}

void tree_ensemble(Context& c) {
  Emit& e = c.e;
  const Value x = c.in(0);
  if (x.rank() != 2) c.bad("a matrix", str(x.type()));
  const std::int64_t targets = c.attr("n_targets", 1), aggregate = c.attr("aggregate_function", 1);
  if (targets < 1 || targets > (1 << 20)) c.bad("a positive n_targets that fits", std::to_string(targets));
  if (aggregate > 1 || aggregate < 0)
    c.unsupported("aggregate_function AVERAGE or SUM", std::to_string(aggregate));
  if (c.attr("post_transform", 0) != 0)
    c.unsupported("post_transform NONE", std::to_string(c.attr("post_transform", 0)));
  Forest f = forest_of(c);
  walk(c, f);
  const auto nodes = static_cast<std::int64_t>(f.features.size()),
             leaves = static_cast<std::int64_t>(f.paths.size());
  if (leaves == 0) return c.out(e.full({x.dim(0), targets}, 0, x.dtype()));
  c.importer().count_elements(leaves, nodes + targets);
  Tensor paths = Tensor::zeros(x.dtype(), {nodes, leaves}), expected(x.dtype(), {leaves});
  Tensor weights = Tensor::zeros(x.dtype(), {leaves, targets});
  for (std::int64_t l = 0; l < leaves; ++l) {
    const auto& p = f.paths[static_cast<std::size_t>(l)];
    double yes = 0;
    for (const auto& [node, taken] : p.steps) {
      paths.set(static_cast<std::int64_t>(node) * leaves + l, taken ? 1 : -1);
      yes += taken;
    }
    expected.set(l, yes);  // what the product gives on the path taken
    const std::int64_t target = f.leaf_targets[static_cast<std::size_t>(p.leaf)];
    if (target < 0 || target >= targets) c.bad("targets below n_targets", std::to_string(target));
    const double share = aggregate == 0 ? static_cast<double>(f.roots.size()) : 1;
    weights.set(l * targets + target, f.leaf_weights[static_cast<std::size_t>(p.leaf)] / share);
  }
  const Value held = e.cast(conditions(c, f, x), x.dtype());
  const Value reached = e.equal(e.matmul(held, e.constant(paths)), e.constant(expected));
  c.out(e.matmul(e.cast(reached, x.dtype()), e.constant(weights)));
}

}  // namespace

void add_ml(Translators& t) {
  t.add("ai.onnx.ml:ArrayFeatureExtractor", array_feature_extractor);
  t.add("ai.onnx.ml:Binarizer", binarizer);
  t.add("ai.onnx.ml:TreeEnsemble", tree_ensemble);
  t.add("TfIdfVectorizer", tfidf);
}

}  // namespace deepseek::onnx_import
