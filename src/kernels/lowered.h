// What lowering a group gives: loop programs to compile, and what each is called with.
#pragma once

#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "loops/ir.h"
#include "passes/groups.h"
#include "targets/target.h"

namespace deepseek::kernels {

// A parameter's argument: a value of the graph, a temporary of the group (index), or memory for the call
// alone.
struct TempArg {
  int index;
};
struct WorkspaceArg {};
using Arg = std::variant<Value, TempArg, WorkspaceArg>;

struct Call {
  loops::Program program;
  std::vector<Arg> args;  // one per program parameter
  Dim flops = 0;          // of a contraction
};

struct Lowered {
  std::vector<Type> temps;
  std::vector<Call> calls;  // in order
  // Not empty: the first call writes their values (I64) to temps[0]; the later ones need them.
  std::vector<std::string> defines;
  std::string way;  // which way was taken: "gemm", "map", ...
};

constexpr double kDefaultRtol = 1e-5;

// What fp32 contractions may be computed in; sums, and everything else, stay in fp32.
enum class Precision : std::uint8_t { Fp32, Bf16, Int8 };
// Says what a contraction runs in, behind the name of its way, where the user asked for less than fp32.
std::string precision_note(Precision asked, DType operands);

struct LoweringContext {
  const TargetInfo& target;
  // Names of ways to leave out.
  std::span<const std::string> disabled;
  // Nodes whose results are known before a run: what a way makes of them costs nothing later.
  const std::set<const Node*>& fixed;
  Precision precision = Precision::Fp32;
  // How far results may be from exact ones, relative to the largest: ways that round more are not taken.
  double rtol = kDefaultRtol;
  int threads = 1;                          // that will run it
  bool allows(std::string_view way) const;  // "winograd" left out leaves out "winograd 2x2"
};

// The symbols in a node's result shapes that neither its inputs nor its attributes have.
std::vector<std::string> defined_symbols(const Node& n);

// What a way costs: a run's time in multiply-adds of full tiles, and how much memory what it prepares keeps.
struct Price {
  double work, kept_bytes = 0;
};

// What a byte that is kept between runs is worth in each of them: a quarter of the time to read it from memory, at 12.5
// GB/s. A way that keeps less may take so much longer; a megabyte is worth 20 us.
constexpr double kSecondsPerKeptByte = 0.25 / 12.5e9;

// A way gives nothing for a group that it does not take.
struct Way {
  std::string_view name;
  // Null: the group's parts, each by itself (passes/cascade.h).
  std::optional<Lowered> (*lower)(const Group&, const LoweringContext&);
  bool required = false;  // a definition's generic schedule: cannot be disabled
  // Null: the way is taken wherever it can be.
  std::optional<Price> (*price)(const Group&, const LoweringContext&) = nullptr;
};
// Best first; the definitions last.
std::span<const Way> ways();

struct PricedWay {
  const Way* way;
  Price price;
  double cost;  // all of it, in multiply-adds
};
// The ways with a price that take the group, cheapest first.
std::vector<PricedWay> priced_ways(const Group& group, const LoweringContext& context);

// By `way`, else by the cheapest way, else by the first that takes it; a definition under a generic schedule takes any
// group of its kind.
Lowered lower_group(const Group& group, const LoweringContext& context, const Way* way = nullptr);

template <int Outputs, bool AtUse>
std::optional<Lowered> lower_winograd(const Group& group, const LoweringContext& context);
template <int Outputs, bool AtUse>
std::optional<Price> price_winograd(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_gemm(const Group& group, const LoweringContext& context);
std::optional<Price> price_gemm(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_inner_products(const Group& group, const LoweringContext& context);
std::optional<Price> price_inner_products(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_gemm_windows(const Group& group, const LoweringContext& context);
std::optional<Price> price_gemm_windows(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_winograd_gradient(const Group& group, const LoweringContext& context);
std::optional<Price> price_winograd_gradient(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_conv_gradient(const Group& group, const LoweringContext& context);
std::optional<Price> price_conv_gradient(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_depthwise(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_attention(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_cascade(const Group& group, const LoweringContext& context);
std::optional<Price> price_cascade(const Group& group, const LoweringContext& context);
std::optional<Price> price_apart(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_long_rows(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_rows(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_turned(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_columns(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_map(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_concat(const Group& group, const LoweringContext& context);
std::optional<Lowered> lower_program(const Group& group, const LoweringContext& context);

}  // namespace deepseek::kernels
