// Puts a Call together: parameters for the group's values in memory, statements, checks.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "kernels/lowered.h"
#include "kernels/nest.h"
#include "kernels/scope.h"

namespace deepseek::kernels {

class Assembly {
 public:
  // Binds the group's inputs that stand in memory in `scope`.
  explicit Assembly(const Group& group);

  Scope& scope() { return scope_; }
  // The parameter for a value (added when first asked for).
  loops::Buffer input(Value v);
  loops::Buffer output(Value v);
  loops::Buffer output_read_back(Value v);  // one that the kernel also reads
  loops::Buffer temp(int index, const Type& type, loops::Access access);
  loops::Buffer workspace(std::string name, DType t, Expr extent);
  void phase(loops::Stmt s);

  Call finish(std::string name);

 private:
  loops::Buffer param(const std::string& hint, DType t, Expr extent, loops::Access access, Arg arg);
  Scope scope_;
  loops::Program program_;
  std::vector<Arg> args_;
  std::map<ValueKey, loops::Buffer> inputs_, outputs_;
  std::vector<loops::Stmt> phases_;
};

// One stored result of a Map: value `v` of the group; where its element at the domain's coordinates goes.
// Views joined to the group (transposes) permute: `coords` are the domain's.
struct Stored {
  Value value;            // to compute, at the domain's coordinates
  Value memory;           // the value whose memory is written
  std::vector<int> perm;  // memory coordinate k is domain coordinate perm[k]; empty: the same
  int axis = 0;           // of `memory`, along which `value` begins at `offset`: a piece of a concatenation
  Dim offset = 0;
};
// The outputs of a group whose members share a domain.
std::vector<Stored> stored_outputs(const Group& group);

// Where the element of s.value at `coords` goes in memory.
Expr stored_index(const Stored& s, std::span<const Expr> coords);
// The stores of every output of the group at the anchor's coordinates, after the checks that they need.
std::vector<Stmt> store_outputs(Assembly& a, const Group& group, std::span<const Expr> coords);

// Loops over `domain` that store every output of `stored`: merged axes, the innermost a Vector loop, the
// others one Parallel loop. `index_shift` is added to every store index (concatenation).
loops::Stmt map_phase(Assembly& a, const Shape& domain, std::span<const Stored> stored,
                      const std::function<Expr(const Stored&, std::span<const Expr>)>& index);

// One Parallel loop over the box of `axes`; `body` sees their variables.
loops::Stmt parallel_over(std::span<const Axis> axes, loops::Stmt body);

}  // namespace deepseek::kernels
