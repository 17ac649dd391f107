"""What a forward pass keeps for its backward pass: which values, and in how many bits.

PyTorch's partitioner chooses what is computed again instead, by a minimal cut and, for a budget, a knapsack
of values by size and FLOPs. Under a budget it would draw random numbers again, others than the forward
pass drew: here draws are always kept, or what is made of them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
import torch._functorch.config
from functorch.compile import min_cut_rematerialization_partition
from torch import fx
from torch.utils.checkpoint import CheckpointPolicy

from deepseek.errors import invalid
from deepseek.torch.joint import rewrite
from deepseek.torch.partition import FREE_VIEWS

# Of the largest tensor that is kept: smaller ones, statistics for the most part, keep their precision.
FEW = 1 / 32

# What PyTorch's partitioner takes for "nothing" leaves draws out as well.
NEXT_TO_NOTHING = 1e-6
ATTEMPTS = 5
STEP = 1.2  # of what is kept beyond the budget, as the partitioner's sizes are estimates

# Of an image [N, C, H, W], and how channels come to lie innermost.
TO_LAST, FROM_LAST = [0, 2, 3, 1], [0, 3, 1, 2]
DENSE = {"memory_format": torch.contiguous_format}

aten = torch.ops.aten
convert = torch.ops.prims.convert_element_type.default
MAX_POOL = aten.max_pool2d_with_indices.default
IMAGE_TO_IMAGE = frozenset(
    {
        aten._native_batch_norm_legit_functional.default,
        aten._native_batch_norm_legit.no_stats,
        MAX_POOL,
    }
)
# Whatever these give, the elements are their first argument's.
SAME_VALUES = FREE_VIEWS | {aten.clone.default}
_Change: TypeAlias = tuple[Any, tuple[Any, ...], dict[str, Any]]
draw_and_keep = torch._prims.rng_prims.run_and_save_rng_state
draw_again = torch._prims.rng_prims.run_with_rng_state


def partition(
    joint: fx.GraphModule,
    inputs: Sequence[Any],
    *,
    storage: torch.dtype,
    budget: float | None,
    num_fwd_outputs: int,
    **rest: Any,
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The forward and the backward graph of a joint one. float32 is kept in `storage`.

    `budget`: bytes (int), or a part (float) of what is kept without one. Where what cannot be computed
    again takes more, that is kept for a part; bytes are refused with an Error.
    """
    rewrite(joint.graph)
    for node in joint.graph.nodes:
        tags = node.target.tags if isinstance(node.target, torch._ops.OpOverload) else ()
        # The order of a topk may be PyTorch's or ours.
        if torch.Tag.nondeterministic_seeded in tags or node.target is torch.ops.aten.topk.default:
            node.meta.setdefault("recompute", CheckpointPolicy.MUST_SAVE)

    def attempt(part: float) -> tuple[fx.GraphModule, fx.GraphModule, int]:
        with torch._functorch.config.patch(activation_memory_budget=max(part, NEXT_TO_NOTHING)):
            forward, backward = min_cut_rematerialization_partition(
                joint, inputs, compiler="inductor", num_fwd_outputs=num_fwd_outputs, **rest
            )
        for module in (forward, backward):
            _describe_draws(module.graph)
        _keep_as_computed(storage, forward, backward, num_fwd_outputs)
        return forward, backward, kept_bytes(forward, num_fwd_outputs)

    forward, backward, size = attempt(1.0)
    allowed = math.inf if budget is None else budget * size if isinstance(budget, float) else budget
    whole = size
    part = min(1.0, allowed / whole) if whole else 1.0
    for left in reversed(range(ATTEMPTS)):
        if size <= allowed:
            break
        forward, backward, size = attempt(part if left else 0.0)
        part -= STEP * (size - allowed) / whole
    if size > allowed and not isinstance(budget, float):
        raise invalid("memory_budget", f"{size} bytes, the least for this graph, or more", str(budget))
    return forward, backward


def kept_bytes(forward: fx.GraphModule, num_fwd_outputs: int) -> int:
    """Of what a forward graph hands to its backward graph; its inputs are kept by who owns them."""
    results: Any = forward.graph.output_node().args[0]
    kept = {node for node in results[num_fwd_outputs:] if isinstance(node, fx.Node)}
    return sum(
        count(node) * node.meta["val"].dtype.itemsize
        for node in kept - set(results[:num_fwd_outputs])
        if node.op == "call_function" and isinstance(node.meta["val"], torch.Tensor)
    )


def _describe_draws(graph: fx.Graph) -> None:
    """Gives types to draws that PyTorch's checkpointing repeats, which its partitioner leaves out."""
    for node in graph.nodes:
        if node.target is draw_and_keep:
            parts = {user.args[1]: user.meta["val"] for user in node.users if user.target is operator.getitem}
            node.meta["val"] = tuple(parts.get(i) for i in range(2))
        elif node.target is draw_again:
            op, arguments = node.args[1], fx.map_arg(node.args[2:], lambda source: source.meta["val"])
            with _fake_mode(graph.nodes):
                node.meta["val"] = op(*arguments, **node.kwargs)


def _fake_mode(nodes: Iterable[fx.Node]) -> Any:
    values = [node.meta.get("val") for node in nodes]
    return torch._guards.detect_fake_mode([value for value in values if isinstance(value, torch.Tensor)])


def _keep_as_computed(
    storage: torch.dtype, forward: fx.GraphModule, backward: fx.GraphModule, num_fwd_outputs: int
) -> None:
    """Keeps float32 in `storage`, positions of maxima in 32 bits, images with channels innermost, as both
    passes compute them, and of views what they are views of: the backward pass reads through views, and
    several of one value are kept as one.
    """
    output = forward.graph.output_node()
    results: Any = output.args[0]
    visible = set(results[:num_fwd_outputs])
    images = _images(forward.graph) - visible
    positions = _positions(forward.graph) - visible
    kept = {
        node.name: node for node in results[num_fwd_outputs:] if _is_activation(node) or node in positions
    }
    least = FEW * max(map(count, filter(_is_activation, kept.values())), default=0)
    stored: dict[fx.Node, fx.Node] = {}
    changed: dict[fx.Node, fx.Node] = {}
    for node in backward.graph.find_nodes(op="placeholder"):
        seen = kept.get(node.name)
        if seen is None:
            continue
        source, views = _viewed(seen, visible | images)
        forth: list[_Change] = []
        back: list[_Change] = []
        if source in positions:
            forth.append((convert, (torch.int32,), {}))
            back.append((convert, (torch.int64,), {}))
        elif storage != torch.float32 and count(source) >= least:
            forth.append((convert, (storage,), {}))
            back.append((convert, (torch.float32,), {}))
        if source in images:
            forth += [(aten.permute.default, (TO_LAST,), {}), (aten.clone.default, (), DENSE)]
            back.insert(0, (aten.permute.default, (FROM_LAST,), {}))
        if not forth and not views:
            continue
        if source not in changed:
            with forward.graph.inserting_before(output):
                changed[source] = _changed(forward.graph, source, forth)
        stored[seen] = changed[source]
        _read_changed(backward.graph, node, stored[seen].meta["val"], back + views)
    output.args = (
        (*results[:num_fwd_outputs], *(stored.get(node, node) for node in results[num_fwd_outputs:])),
    )
    forward.recompile()
    backward.recompile()


def _viewed(node: fx.Node, apart: set[fx.Node]) -> tuple[fx.Node, list[_Change]]:
    """What the node is a view or a copy of, and the ops between; itself and none where sizes are not known.

    `apart`: not kept in a view's stead, as what the user sees, which may be written to.
    """
    views: list[_Change] = []
    source = node
    while source.target in SAME_VALUES and len(source.all_input_nodes) == 1:
        views.insert(0, (source.target, source.args[1:], dict(source.kwargs)))
        source = source.all_input_nodes[0]
    if source.op != "call_function" or source in apart or not _is_activation(source):
        return node, []
    return source, views


def _images(graph: fx.Graph) -> set[fx.Node]:
    """Values computed with channels innermost: convolutions', and what is elementwise on those."""
    images: set[fx.Node] = set()
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, torch.Tensor) or value.dim() != len(TO_LAST):
            continue
        sources = [source for source in node.all_input_nodes if source in images]
        if node.target is operator.getitem:
            producer, results = node.args[0], 2 if node.args[0].target is MAX_POOL else 1
            is_image = (
                producer.target in IMAGE_TO_IMAGE and producer.args[0] in images and node.args[1] < results
            )
        elif isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags:
            is_image = any(source.meta["val"].shape == value.shape for source in sources)
        else:
            is_image = node.target is aten.convolution.default
        if is_image:
            images.add(node)
    return images


def _positions(graph: fx.Graph) -> set[fx.Node]:
    """Where maxima stand within planes of known size, each of fewer elements than 32 bits number."""
    return {
        node
        for node in graph.nodes
        if node.target is operator.getitem
        and node.args[1] == 1
        and node.args[0].target is MAX_POOL
        and all(isinstance(size, int) for size in node.args[0].args[0].meta["val"].shape[-2:])
        and math.prod(node.args[0].args[0].meta["val"].shape[-2:]) < 2**31
    }


def _is_activation(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, fx.Node) and node.op == "call_function" else None
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def count(node: fx.Node) -> int:
    """Elements of a tensor; those of the example where sizes are symbolic."""
    return math.prod(
        size if isinstance(size, int) else size.node.hint or 1 for size in node.meta["val"].shape
    )


def _changed(graph: fx.Graph, node: fx.Node, changes: Sequence[_Change]) -> fx.Node:
    for target, args, kwargs in changes:
        new = graph.call_function(target, (node, *args), kwargs)
        new.meta = {
            key: value for key, value in node.meta.items() if key in ("stack_trace", "nn_module_stack")
        }
        new.meta["val"] = target(node.meta["val"], *args, **kwargs)
        node = new
    return node


def _read_changed(graph: fx.Graph, node: fx.Node, value: torch.Tensor, changes: Sequence[_Change]) -> None:
    """Makes the placeholder `node` one of `value`, whose users see it after the changes."""
    users = list(node.users)
    node.meta["val"] = value
    node.meta.pop("tensor_meta", None)
    first = next(other for other in graph.nodes if other.op != "placeholder")
    with graph.inserting_before(first):
        seen = _changed(graph, node, changes)
    for user in users:
        user.replace_input_with(node, seen)
