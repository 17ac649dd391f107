#include "passes/alike.h"

#include <algorithm>
#include <string>
#include <unordered_map>

#include "runtime/in_parallel.h"

namespace deepseek {

namespace {

// What lowering depends on of the parts that a group is joined of: where one ends and the next begins.
std::string parts_text(const Group& g) {
  std::string text = g.name();
  for (const Group& part : g.parts) text += "|" + parts_text(part);
  return text;
}

// Sizes that a group finds have names of their own.
bool defines_sizes(const Group& g) {
  return std::any_of(g.members.begin(), g.members.end(),
                     [](const Node* n) { return !kernels::defined_symbols(*n).empty(); });
}

}  // namespace

Alike::Alike(std::span<const Group> groups, std::span<const Choice> choices,
             const kernels::LoweringContext& context)
    : first_(groups.size()), values_(groups.size()) {
  std::vector<std::string> texts(groups.size());
  in_parallel(
      groups.size(),
      [&](std::size_t i) {
        const Group& g = groups[i];
        if (g.kind == GroupKind::Control || defines_sizes(g)) return;
        Piece piece = piece_of(g, context.fixed);
        const kernels::Way* way = choices[i].way;
        texts[i] = std::string(way ? way->name : "") + " " + std::to_string(static_cast<int>(g.kind)) + " " +
                   parts_text(g) + "\n" + piece.graph.str();
        values_[i] = std::move(piece.values);
      },
      true);
  std::unordered_map<std::string, std::size_t> found;
  for (std::size_t i = 0; i < groups.size(); ++i)
    first_[i] = texts[i].empty() ? i : found.emplace(std::move(texts[i]), i).first->second;
}

std::optional<kernels::Lowered> Alike::renamed(const kernels::Lowered& lowered, std::size_t i) const {
  const std::vector<Value>&of = values_[first_[i]], &to = values_[i];
  kernels::Lowered result = lowered;
  for (kernels::Call& call : result.calls)
    for (kernels::Arg& arg : call.args) {
      auto* value = std::get_if<Value>(&arg);
      if (!value) continue;
      const auto at = std::find(of.begin(), of.end(), *value);
      if (at == of.end()) return std::nullopt;
      *value = to[static_cast<std::size_t>(at - of.begin())];
    }
  return result;
}

}  // namespace deepseek
