// The ways to each kind of group, best first, the definition last.
#include <algorithm>
#include <tuple>

#include "kernels/gpu_map.h"
#include "kernels/lowered.h"
#include "kernels/register_tile.h"
#include "ops/op.h"

namespace deepseek::kernels {

namespace {

constexpr Way kWays[] = {
    {"winograd 4x4", lower_winograd<4, false>, false, price_winograd<4, false>},
    {"winograd 2x2", lower_winograd<2, false>, false, price_winograd<2, false>},
    {"winograd at use 4x4", lower_winograd<4, true>, false, price_winograd<4, true>},
    {"winograd at use 2x2", lower_winograd<2, true>, false, price_winograd<2, true>},
    {"winograd gradient", lower_winograd_gradient, false, price_winograd_gradient},
    {"conv gradient", lower_conv_gradient, false, price_conv_gradient},
    {"gemm windows", lower_gemm_windows, false, price_gemm_windows},
    {"gemm", lower_gemm, false, price_gemm},
    {"inner products", lower_inner_products, false, price_inner_products},
    {"cascade", lower_cascade, false, price_cascade},
    {"apart", nullptr, false, price_apart},
    {"depthwise", lower_depthwise},
    {"attention", lower_attention},
    {"long rows", lower_long_rows},
    {"rows", lower_rows},
    {"concat", lower_concat},
    {"turned", lower_turned},
    {"columns", lower_columns},
    {"map", lower_map, true},
    {"program", lower_program, true},
};

// A quarter of the price of reading what is kept: kSecondsPerKeptByte in multiply-adds.
double keeping(double bytes, const TargetInfo& target) { return cost_of(0, bytes / 4, target) / 4; }

bool is_stored_from_tiles(const loops::Program& p, const loops::Buffer& b) {
  bool found = false;
  loops::visit_stmts(p.body, [&](const loops::Stmt& s) {
    const auto* tile = loops::as<loops::TileStore>(s);
    if (!tile) return;
    loops::visit_stmts(tile->body, [&](const loops::Stmt& inner) {
      const auto* store = loops::as<loops::Store>(inner);
      found |= store && store->buffer == b;
    });
  });
  return found;
}

// Results that have left the caches when somebody reads them are streams. Not those of products: tiles store in bursts,
// for which memory is slower than caches that write back while the next tile is multiplied.
void mark_streams(loops::Program& p, const TargetInfo& target) {
  for (loops::Param& param : p.params) {
    const loops::BufferNode& b = *param.buffer;
    const auto elements = b.extent.int_value();
    if (param.access == loops::Access::Write && elements &&
        *elements * bits(b.dtype) / 8 > target.kept_bytes && !loops::is_read(p, param.buffer) &&
        !is_stored_from_tiles(p, param.buffer))
      param.access = loops::Access::Stream;
  }
}

// A map that reduces nothing reads each element of large arguments once. Where the arithmetic on it takes longer than the
// processor looks ahead, loads begin too late for memory to be busy all the time.
void mark_scans(loops::Program& p) {
  constexpr std::int64_t kNearBytes = 256 << 10;
  bool reduces = false;
  loops::visit_stmts(p.body,
                     [&](const loops::Stmt& s) { reduces |= loops::as<loops::Accumulate>(s) != nullptr; });
  if (reduces) return;
  for (loops::Param& param : p.params) {
    const loops::BufferNode& b = *param.buffer;
    if (param.access == loops::Access::Read &&
        b.extent.int_value().value_or(0) * bits(b.dtype) / 8 > kNearBytes)
      param.access = loops::Access::Scan;
  }
}

// Of nothing there is no fast way: the definition's loops do not run.
bool is_empty(const Group& group) {
  return std::all_of(group.outputs.begin(), group.outputs.end(),
                     [](const Value& v) { return numel(v.shape()) == Dim(0); });
}

}  // namespace

std::span<const Way> ways() { return kWays; }

std::string precision_note(Precision asked, DType operands) {
  return asked == Precision::Fp32 ? "" : " in " + std::string(name(operands));
}

bool LoweringContext::allows(std::string_view way) const {
  return std::none_of(disabled.begin(), disabled.end(), [&](const std::string& name) {
    return way == name || (way.starts_with(name) && way[name.size()] == ' ');
  });
}

std::vector<PricedWay> priced_ways(const Group& group, const LoweringContext& context) {
  std::vector<PricedWay> result;
  if (is_empty(group)) return result;
  for (const Way& way : kWays)
    if (way.price && context.allows(way.name))
      if (const auto price = way.price(group, context))
        result.push_back({&way, *price, price->work + keeping(price->kept_bytes, context.target)});
  std::sort(result.begin(), result.end(), [](const PricedWay& a, const PricedWay& b) {
    return std::tie(a.cost, a.way) < std::tie(b.cost, b.way);
  });
  return result;
}

Lowered lower_group(const Group& group, const LoweringContext& context, const Way* way) {
  std::optional<Lowered> lowered;
  if (!way)
    if (const auto priced = priced_ways(group, context); !priced.empty()) way = priced.front().way;
  if (way) lowered = way->lower(group, context);
  for (const Way& other : kWays)
    if (!lowered && !other.price && (other.required || (!is_empty(group) && context.allows(other.name))))
      lowered = other.lower(group, context);
  if (!lowered) {
    const Node& n = *group.anchor;
    throw Error(Code::Unsupported, std::string(n.op_name()), n.source, "a way to compute it",
                "every way left out");
  }
  for (Call& c : lowered->calls) {
    if (context.target.gpu_mapped) {
      c.program = map_to_gpu(c.program);
      continue;
    }
    mark_streams(c.program, context.target);
    if (lowered->way == "map") mark_scans(c.program);
  }
  return *std::move(lowered);
}

}  // namespace deepseek::kernels
