// The ways to each kind of group, best first, the definition last.
#include <algorithm>

#include "kernels/gpu_map.h"
#include "kernels/lowered.h"
#include "ops/op.h"

namespace deepseek::kernels {

namespace {

constexpr Way kWays[] = {
    {"winograd", lower_winograd, false},   {"gemm", lower_gemm, false},
    {"depthwise", lower_depthwise, false}, {"rows", lower_rows, false},
    {"concat", lower_concat, false},       {"map", lower_map, true},
    {"program", lower_program, true},
};

}  // namespace

std::span<const Way> ways() { return kWays; }

std::string precision_note(Precision asked, DType operands) {
  return asked == Precision::Fp32 ? "" : " in " + std::string(name(operands));
}

bool LoweringContext::allows(std::string_view way) const {
  return std::find(disabled.begin(), disabled.end(), way) == disabled.end();
}

Lowered lower_group(const Group& group, const LoweringContext& context) {
  for (const Way& way : kWays) {
    if (!way.required && !context.allows(way.name)) continue;
    auto lowered = way.lower(group, context);
    if (!lowered) continue;
    if (context.target.gpu_mapped)
      for (Call& c : lowered->calls) c.program = map_to_gpu(c.program);
    return *std::move(lowered);
  }
  const Node& n = *group.anchor;
  throw Error(Code::Unsupported, std::string(n.op_name()), n.source, "a way to compute it",
              "every way left out");
}

}  // namespace deepseek::kernels
