"""What a forward pass keeps for its backward pass: which values, and in how many bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch._functorch.config
from functorch.compile import min_cut_rematerialization_partition
from torch import fx

# Of the largest tensor that is kept: smaller ones, statistics for the most part, keep their precision.
FEW = 1 / 32

convert = torch.ops.prims.convert_element_type.default


def partition(
    joint: fx.GraphModule,
    inputs: Sequence[Any],
    *,
    storage: torch.dtype,
    budget: float | None,
    num_fwd_outputs: int,
    **rest: Any,
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The forward and the backward graph of a joint one. float32 is kept in `storage`."""
    with torch._functorch.config.patch(activation_memory_budget=1.0 if budget is None else budget):
        forward, backward = min_cut_rematerialization_partition(
            joint, inputs, compiler="inductor", num_fwd_outputs=num_fwd_outputs, **rest
        )
    if storage != torch.float32:
        _keep_in(storage, forward, backward, num_fwd_outputs)
    return forward, backward


def _keep_in(
    storage: torch.dtype, forward: fx.GraphModule, backward: fx.GraphModule, num_fwd_outputs: int
) -> None:
    output = forward.graph.output_node()
    results: Any = output.args[0]
    kept = {node.name: node for node in results[num_fwd_outputs:] if _is_activation(node)}
    least = FEW * max(map(count, kept.values()), default=0)
    narrow: dict[fx.Node, fx.Node] = {}
    for node in backward.graph.find_nodes(op="placeholder"):
        source = kept.get(node.name)
        if source is None or count(source) < least:
            continue
        with forward.graph.inserting_before(output):
            narrow[source] = _converted(forward.graph, source, storage)
        _widen(backward.graph, node, narrow[source].meta["val"])
    output.args = (
        (*results[:num_fwd_outputs], *(narrow.get(node, node) for node in results[num_fwd_outputs:])),
    )
    forward.recompile()
    backward.recompile()


def _is_activation(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, fx.Node) and node.op == "call_function" else None
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def count(node: fx.Node) -> int:
    """Elements of a tensor; those of the example where sizes are symbolic."""
    return math.prod(
        size if isinstance(size, int) else size.node.hint or 1 for size in node.meta["val"].shape
    )


def _converted(graph: fx.Graph, node: fx.Node, dtype: torch.dtype) -> fx.Node:
    new = graph.call_function(convert, (node, dtype))
    new.meta = {key: value for key, value in node.meta.items() if key in ("stack_trace", "nn_module_stack")}
    new.meta["val"] = node.meta["val"].to(dtype)
    return new


def _widen(graph: fx.Graph, node: fx.Node, narrow: torch.Tensor) -> None:
    """Makes the placeholder `node` a narrow one, which its users see widened."""
    users = list(node.users)
    wide = node.meta["val"].dtype
    node.meta["val"] = narrow
    node.meta.pop("tensor_meta", None)
    first = next(other for other in graph.nodes if other.op != "placeholder")
    with graph.inserting_before(first):
        widened = _converted(graph, node, wide)
    for user in users:
        user.replace_input_with(node, widened)
