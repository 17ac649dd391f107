"""Writes to where a mask is true (x[mask] = value), in the graph that Dynamo traced.

Autograd counts the mask's true elements for the gradient of the value, which no graph of known sizes can
hold. Where the value does not depend on that number, `torch.where` says the same.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx


def rewrite(graph: fx.Graph) -> None:
    for node in list(graph.find_nodes(op="call_function", target=operator.setitem)):
        x, mask, value = node.args
        fakes = [_fake(argument) for argument in (x, mask, value)]
        if node.users or not _fits(*fakes):
            continue
        with graph.inserting_before(node):
            shape = [*fakes[1].shape, *[1] * (fakes[0].dim() - fakes[1].dim())]
            if len(shape) > fakes[1].dim():
                sizes = [_size(graph, mask, axis) for axis in range(fakes[1].dim())]
                mask = graph.call_method("reshape", (mask, [*sizes, *shape[len(sizes) :]]))
            if fakes[2].dim() > fakes[0].dim() - fakes[1].dim():  # one row for all
                value = graph.call_method("squeeze", (value, 0))
            written = graph.call_function(torch.where, (mask, value, x))
            graph.call_method("copy_", (x, written))
        _erase(node)


def _erase(node: fx.Node) -> None:
    """What stands in its place comes from the same line of the user's."""
    before = node.prev
    while before.meta == {} and before.op != "root":
        before.meta = {key: value for key, value in node.meta.items() if key != "example_value"}
        before = before.prev
    node.graph.erase_node(node)


def _fake(argument: Any) -> Any:
    return argument.meta.get("example_value") if isinstance(argument, fx.Node) else argument


def _size(graph: fx.Graph, x: Any, axis: int) -> Any:
    size = _fake(x).shape[axis]
    return size if isinstance(size, int) else graph.call_method("size", (x, axis))


def _fits(x: Any, mask: Any, value: Any) -> bool:
    """Whether the value is one for all elements, or all rows, that a mask of the first axes chooses."""
    if not all(isinstance(each, torch.Tensor) for each in (x, mask, value)):
        return False
    rest = x.dim() - mask.dim()
    if mask.dtype is not torch.bool or rest < 0 or value.dtype is not x.dtype or value.device != x.device:
        return False
    return bool(value.dim() <= rest or (value.dim() == rest + 1 and value.shape[0] == 1))
