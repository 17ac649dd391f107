#include "passes/pipeline.h"

#include <algorithm>

namespace deepseek {

namespace {
constexpr Pass kPipeline[] = {
    {"decompose", decompose, true},
    {"canonicalize", canonicalize, true},
    {"simplify", simplify, false},
    {"quantised", quantised, false},
    {"narrow_weights", narrow_weights, false},
    {"byte_products", byte_products, false},
    {"requantised", requantised, false},
    {"channels_last", channels_last, false},
    {"move_views", move_views, false},
    {"merge_common", merge_common, false},
    {"round_operands", round_operands, false},
    {"round_stored", round_stored, false},
};

std::vector<Rule> enabled(std::span<const Rule> rules, const PassOptions& options) {
  std::vector<Rule> result;
  for (const Rule& r : rules)
    if (options.allows(r.name)) result.push_back(r);
  return result;
}

// What a pass leaves behind is simplified along the way.
std::vector<Rule> with_tidying(std::span<const Rule> rules, const PassOptions& options) {
  std::vector<Rule> all = enabled(rules, options);
  const std::vector<Rule> tidy = enabled(simplify_rules(), options);
  all.insert(all.end(), tidy.begin(), tidy.end());
  return all;
}
}  // namespace

bool PassOptions::allows(std::string_view name) const {
  return std::find(disabled.begin(), disabled.end(), name) == disabled.end();
}

std::span<const Pass> pipeline() { return kPipeline; }

Graph run_pipeline(const Graph& g, const PassOptions& options, std::string_view until) {
  Graph result = g.clone();
  for (const Pass& p : kPipeline)
    if (p.name == until)
      break;
    else if (p.required || options.allows(p.name))
      result = p.run(result, options);
  return result;
}

Graph decompose(const Graph& g, const PassOptions&) {
  const Rule rule{"decompose", {}, [](Graph& out, const Node& n) {
                    const Composed* c = n.op->composed();
                    return c ? c->fn(out, n) : std::vector<Value>{};
                  }};
  return rewrite(g, {&rule, 1});
}

Graph canonicalize(const Graph& g, const PassOptions&) { return rewrite(g, canonical_rules()); }

Graph simplify(const Graph& g, const PassOptions& options) {
  return rewrite(g, enabled(simplify_rules(), options));
}

Graph quantised(const Graph& g, const PassOptions& options) {
  return rewrite(g, with_tidying(byte_rules(), options));
}

Graph requantised(const Graph& g, const PassOptions& options) {
  return rewrite(g, enabled(scale_rules(), options));
}

Graph channels_last(const Graph& g, const PassOptions& options) {
  return rewrite(g, with_tidying(layout_rules(), options));
}

Graph move_views(const Graph& g, const PassOptions& options) {
  return rewrite(g, with_tidying(view_rules(), options));
}

}  // namespace deepseek
