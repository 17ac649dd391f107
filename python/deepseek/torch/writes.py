"""Inputs that a graph writes, as an optimizer's step does its parameters.

AOT Autograd keeps such writes in a graph that needs no gradients, as copies at its end. Here each becomes a
last output, the input's new value; where nothing reads the old one later, the piece that computes it is
given the input's own memory for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import fx

from deepseek.torch.partition import Island, Step

aten = torch.ops.aten

Pairs = list[tuple[int, int]]  # numbers of an island's output and of its input


def may_stay(inputs: Sequence[Any]) -> bool:
    """Whether AOT Autograd may leave writes of inputs in the graph: not where gradients go through them."""
    needs = any(isinstance(x, torch.Tensor) and x.requires_grad for x in inputs)
    return not (needs and torch.is_grad_enabled())


def take_writes(graph: fx.Graph) -> list[fx.Node]:
    """Makes outputs of the values that inputs get, behind all others; returns these inputs."""
    output = graph.output_node()
    written: list[fx.Node] = []
    values = []
    for node in graph.find_nodes(op="call_function", target=aten.copy_.default):
        source, value = node.args[:2]
        assert isinstance(source, fx.Node)
        assert isinstance(value, fx.Node)
        if source.op != "placeholder" or source in written or set(node.users) - {output}:
            continue  # `_check_functional` tells
        written.append(source)
        values.append(value)
        node.replace_all_uses_with(source)  # returned: the input itself
        graph.erase_node(node)
    if written:
        returned: Any = output.args[0]
        output.args = ([*returned, *values],)
    return written


def places(graph: fx.Graph, steps: Sequence[Step], written: Sequence[fx.Node]) -> dict[int, Pairs]:
    """What islands (by id()) store in the memory of inputs; it adds inputs that they do not read."""
    results: Any = list(graph.output_node().args[0])  # type: ignore[arg-type]
    values = results[len(results) - len(written) :]
    found: dict[int, Pairs] = {}
    for source, value in zip(written, values, strict=True):
        makers = [i for i, step in enumerate(steps) if isinstance(step, Island) and value in step.outputs]
        if not makers or results.count(value) > 1 or source in values or not _is_plain(source):
            continue
        island = steps[makers[0]]
        assert isinstance(island, Island)
        inside = {*island.nodes, graph.output_node()}
        later = steps[makers[0] + 1 :]
        read = any(isinstance(step, Island) and source in step.inputs for step in later)
        seen = any(isinstance(step, fx.Node) and source in step.all_input_nodes for step in steps)
        if read or seen or set(value.users) - inside:
            continue
        if source not in island.inputs:
            island.inputs.append(source)
        pair = (island.outputs.index(value), island.inputs.index(source))
        found.setdefault(id(island), []).append(pair)
    return found


def _is_plain(source: fx.Node) -> bool:
    """Whether the input's memory is its elements in row-major order, each once."""
    fake = source.meta["val"]
    return bool(fake.is_contiguous() and not fake.is_neg() and not fake.is_conj())


def write(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Copies without counting a write: AOT Autograd counts those that it wants to."""
    counts = not tensor.is_inference()
    preserved = torch.autograd._unsafe_preserve_version_counter  # type: ignore[attr-defined]
    with preserved(tensor) if counts else nullcontext():
        tensor.copy_(value)
