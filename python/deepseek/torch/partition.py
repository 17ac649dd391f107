"""Splitting an FX graph into islands that deepseek compiles and nodes that run in PyTorch.

Every node gets a level: an island's node comes after the PyTorch nodes of lower levels, a PyTorch node
after the island of its own level. So there is one island per level and never more islands than the data
flow demands; what needs no compiled result has level -1 and runs first. So do draws of random numbers,
which come from PyTorch's generator: a seed gives what it gives in eager PyTorch.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, TypeAlias

import sympy
import torch
from torch import fx
from torch._prims.rng_prims import run_and_save_rng_state, run_with_rng_state
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from deepseek.torch.builder import rule_of
from deepseek.torch.counted import LENGTH
from deepseek.torch.shapes import DTYPE_NAMES, expression

aten = torch.ops.aten

# Views that PyTorch makes of compiled results and inputs where the graph returns them: free there.
FREE_VIEWS = frozenset(
    {
        aten.alias.default,
        aten.detach.default,
        aten.permute.default,
        aten.transpose.int,
        aten.t.default,
        aten.view.default,
        aten.unsqueeze.default,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.expand.default,
    }
)


# Checks of what tracing has settled and dims' binding checks again.
STATIC_CHECKS = frozenset(
    {
        aten._assert_tensor_metadata.default,
        aten._assert_scalar.default,
        aten.sym_constrain_range.default,
        aten.sym_constrain_range_for_size.default,
    }
)


# Checks of computed values that do nothing but raise PyTorch's own errors.
VALUE_CHECKS = frozenset(
    {aten._linalg_check_errors.default, aten._assert_async.default, aten._assert_async.msg}
)


# Random draws that take their first argument's shape and nothing else of it.
DRAWS_LIKE = frozenset(
    {
        aten.bernoulli.p,
        aten.cauchy.default,
        aten.exponential.default,
        aten.geometric.default,
        aten.log_normal.default,
        aten.normal_functional.default,
        aten.rand_like.default,
        aten.randint_like.default,
        aten.randint_like.low_dtype,
        aten.randn_like.default,
        aten.uniform.default,
    }
)


# Ops that call the op among their arguments, and where that stands; its own arguments come after it.
WRAPPERS: dict[Any, int] = {
    torch.ops.higher_order.with_effects: 1,
    run_and_save_rng_state: 0,
    run_with_rng_state: 1,
}


SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


@dataclass
class Island:
    """Nodes compiled together, the values that come in and those that others need."""

    nodes: list[fx.Node]
    inputs: list[fx.Node]
    outputs: list[fx.Node]


Step: TypeAlias = Island | fx.Node


def drop_checks(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.target in STATIC_CHECKS and not node.users:
            graph.erase_node(node)


def clean(graph: fx.Graph) -> None:
    """Drops what computes nothing that is needed."""
    drop_checks(graph)
    for node in list(graph.nodes):
        if op_of(node) in DRAWS_LIKE:
            first = WRAPPERS.get(node.target, -1) + 1
            node.meta["drawn into"] = node.args[first].meta["val"].stride()
            node.args = (*node.args[:first], None, *node.args[first + 1 :])
    graph.eliminate_dead_code(has_effect)


def is_draw(node: fx.Node) -> bool:
    """Whether the node draws random numbers without reading a tensor but the generator's state."""
    op, state = op_of(node), node.args[0] if node.target is run_with_rng_state else None
    return (
        isinstance(op, torch._ops.OpOverload)
        and torch.Tag.nondeterministic_seeded in op.tags
        and not any(tensors_of(s.meta.get("val")) for s in node.all_input_nodes if s is not state)
    )


def op_of(node: fx.Node) -> Any:
    """The node's op, also where PyTorch wraps it to order its effects or to draw the same numbers again."""
    place = WRAPPERS.get(node.target)
    return node.target if place is None else node.args[place]


def is_front(node: fx.Node) -> bool:
    """Whether the node reads the length of a result, or is a view of so much of one: see counted.py."""
    lengths = [source for source in node.all_input_nodes if source.target is LENGTH]
    return node.target is LENGTH or (node.target is aten.slice.Tensor and bool(lengths))


def has_effect(node: fx.Node) -> bool:
    """Whether the node does more than give a value."""
    return node.is_impure() or op_of(node) in VALUE_CHECKS


def is_size(node: fx.Node) -> bool:
    """Whether the node's value is a number that follows from input sizes."""
    value = node.meta.get("val")
    if isinstance(value, SYMBOLIC):
        return node.op == "placeholder" or not free_unbacked_symbols(value)
    return isinstance(value, (int, float, bool))


def float_numbers(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """Floats that follow from input sizes (h / w) and that these nodes compute with, by first use."""
    found: dict[fx.Node, None] = {}
    for node in nodes:
        found |= {s: None for s in node.all_input_nodes if isinstance(s.meta.get("val"), torch.SymFloat)}
    return list(found)


def tensors_of(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for item in value for t in tensors_of(item)] if isinstance(value, (list, tuple)) else []


def refusal(node: fx.Node) -> str | None:
    """Why deepseek cannot take this node, by op and types alone; None when a translation may be tried."""
    if node.target is operator.getitem:
        return None
    if rule_of(node.target) is None:
        return "no translation"
    if any(isinstance(arg.meta.get("val"), SYMBOLIC) and not is_size(arg) for arg in node.all_input_nodes):
        return "a number known only while running"
    if not tensors_of(node.meta.get("val")):
        return "no tensor result"
    for value in [node.meta["val"], *(arg.meta.get("val") for arg in node.all_input_nodes)]:
        for tensor in tensors_of(value):
            if tensor.dtype not in DTYPE_NAMES:
                return f"dtype {tensor.dtype}"
            if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
                return f"device {tensor.device}, layout {tensor.layout}"
            if any(free_unbacked_symbols(size) for size in tensor.shape):
                return "a size known only while running"
    return None


def _is_alias(node: fx.Node, results: AbstractSet[fx.Node]) -> bool:
    """Whether the node is a view of an input or of another result. AOT Autograd may ask such a result where
    in that memory it begins.
    """
    while node.target is operator.getitem or (
        isinstance(node.target, torch._ops.OpOverload) and node.target.is_view
    ):
        node = node.all_input_nodes[0]
        if node.op == "placeholder" or node in results:
            return True
    return False


def free_view_tail(results: Sequence[fx.Node]) -> list[fx.Node]:
    """The views, in graph order, that PyTorch makes at the end for these results."""
    tail: dict[fx.Node, None] = {}
    bases = set(results)

    def visit(node: fx.Node) -> None:
        if node in tail or node.op != "call_function":
            return
        if node.target in FREE_VIEWS or _is_alias(node, bases):
            visit(node.all_input_nodes[0])
            tail[node] = None

    for node in results:
        visit(node)
    return list(tail)


def split(graph: fx.Graph, refused: dict[fx.Node, str]) -> list[Step]:
    """The steps in order of execution, up to the graph's outputs. Nodes that nothing needs are left out."""
    output = next(node for node in graph.nodes if node.op == "output")
    tail = free_view_tail(output.all_input_nodes)
    roots = [n for n in output.all_input_nodes if n not in tail] + [
        n for view in tail for n in view.all_input_nodes
    ]
    effects = [node for node in graph.nodes if node.op == "call_function" and has_effect(node)]
    needed = _needed(graph, [root for root in roots + effects if root not in tail])
    levels: dict[fx.Node, int] = {}
    compiled: dict[int, list[fx.Node]] = {}
    eager: dict[int, list[fx.Node]] = {}
    for node in graph.nodes:
        if node not in needed or node.op != "call_function" or is_size(node):
            continue
        sources = [source for source in node.all_input_nodes if source in levels]
        if node in refused:
            level = max((levels[source] for source in sources), default=-1)
            eager.setdefault(level, []).append(node)
        else:
            level = max((levels[source] + (source in refused) for source in sources), default=0)
            level = max(level, 0)
            compiled.setdefault(level, []).append(node)
        levels[node] = level
    _delay_views(compiled, levels, roots)
    steps: list[Step] = []
    wanted = set(roots) | {
        source for nodes in eager.values() for node in nodes for source in node.all_input_nodes
    }
    for level in sorted(compiled.keys() | eager.keys()):
        if level in compiled:
            steps.append(_island(compiled[level], wanted))
        steps += eager.get(level, [])
    return steps + list(tail)


def _delay_views(
    compiled: dict[int, list[fx.Node]], levels: dict[fx.Node, int], roots: list[fx.Node]
) -> None:
    """Moves views to the island of their first user: no island has to store one for another."""
    for level in sorted(compiled, reverse=True):
        for node in reversed(compiled[level]):
            first = min((levels[user] for user in node.users if user in levels), default=level)
            if node.target in FREE_VIEWS and node not in roots and first > level and first in compiled:
                levels[node] = first
                compiled[level].remove(node)
                compiled[first].insert(0, node)
        if not compiled[level]:
            del compiled[level]


def _needed(graph: fx.Graph, roots: Iterable[fx.Node]) -> set[fx.Node]:
    needed = set(roots)
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return needed


def _island(nodes: list[fx.Node], wanted: set[fx.Node]) -> Island:
    inside = set(nodes)
    inputs: dict[fx.Node, None] = {}
    outputs = []
    for node in nodes:
        for source in node.all_input_nodes:
            if source not in inside and not is_size(source) and source.op != "get_attr":
                inputs[source] = None
        if isinstance(node.meta.get("val"), torch.Tensor) and (
            node in wanted or any(user not in inside and user.op == "call_function" for user in node.users)
        ):
            outputs.append(node)
    return Island(nodes, list(inputs), outputs)


def mark_refused(graph: fx.Graph) -> dict[fx.Node, str]:
    """Nodes that PyTorch has to run, each with the reason."""
    refused: dict[fx.Node, str] = {}
    for node in graph.nodes:
        if node.op != "call_function" or is_size(node):
            continue
        reason = refusal(node)
        if node.target is operator.getitem and node.args[0] in refused:
            reason = refused[node.args[0]]
        if reason is not None:
            refused[node] = reason
    return refused


def refuse(node: fx.Node, reason: str, refused: dict[fx.Node, str]) -> None:
    """Gives a node, and what unpacks its results, to PyTorch."""
    refused[node] = reason
    for user in node.users:
        if user.target is operator.getitem:
            refused[user] = reason


def settle_numbers(node: fx.Node, graph: fx.Graph) -> bool:
    """Takes numbers of the user's that are arguments of the node, as strides, for constants: Dynamo compiles
    anew for others. Sizes of tensors stay symbolic. Returns whether there were any.
    """
    sizes: set[sympy.Symbol] = set()
    for source in graph.find_nodes(op="placeholder"):
        for tensor in tensors_of(source.meta.get("val")):
            sizes.update(*(expression(size).free_symbols for size in tensor.shape))
    settled = False
    for source in node.all_input_nodes:
        value = source.meta.get("val")
        if not isinstance(value, (torch.SymInt, torch.SymFloat)) or not is_size(source):
            continue
        symbols = value.node.expr.free_symbols
        if not symbols & sizes and not (symbols and value.node.shape_env.frozen):
            source.meta["val"] = int(value) if isinstance(value, torch.SymInt) else float(value)
            settled = True
    return settled
