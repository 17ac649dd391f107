"""Rewrites of a training step's joint graph, before it is parted into forward and backward.

Both are about logits, by far the largest tensors of a language model: how often they are in memory.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx
from torch.utils.checkpoint import CheckpointPolicy

aten = torch.ops.aten

TRANSPOSED = [1, 0]
DENSE = {"memory_format": torch.contiguous_format}


def rewrite(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.target is aten._log_softmax.default:
            _keep_logits(graph, node)
        elif node.target is aten.slice.Tensor:
            _multiply_what_is_read(graph, node)
        elif node.target is aten.slice_scatter.default:
            _multiply_what_is_not_zero(graph, node)
    graph.eliminate_dead_code()


class _Builder:
    """Adds nodes before one, as part of what that one does."""

    def __init__(self, graph: fx.Graph, place: fx.Node) -> None:
        self.graph, self.place = graph, place

    def __call__(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        with self.graph.inserting_before(self.place):
            node = self.graph.call_function(target, args, kwargs)
        node.meta = {key: value for key, value in self.place.meta.items() if key != "tensor_meta"}
        values, named = fx.map_arg((args, kwargs), lambda source: source.meta["val"])
        with self.place.meta["val"].fake_mode:
            node.meta["val"] = target(*values, **named)
        return node

    def view(self, node: fx.Node, shape: Sequence[int]) -> fx.Node:
        if not node.meta["val"].is_contiguous():
            node = self(aten.clone.default, node, **DENSE)
        return self(aten.view.default, node, list(shape))


def _readers(node: fx.Node) -> Iterator[fx.Node]:
    for user in node.users:
        if user.target in (aten.alias.default, aten.detach.default):
            yield from _readers(user)
        else:
            yield user


def _keep_logits(graph: fx.Graph, node: fx.Node) -> None:
    """A loss that takes one element of each row of log_softmax takes it of the logits, and the backward pass
    has the rest from those and two numbers of each row: the logits alone are in memory.
    """
    x, axis, widened = node.args
    if not isinstance(x, fx.Node) or widened or x.meta["val"].dim() == 0:
        return
    taken, backward = [], []
    for user in _readers(node):
        if user.target is aten.gather.default and user.args[1] == axis:
            taken.append(user)
        elif user.target is aten._log_softmax_backward_data.default:
            backward.append(user)
        else:
            return
    if not taken or not backward:
        return
    add = _Builder(graph, node)
    most = add(aten.amax.default, x, [axis], True)
    less = add(aten.sub.Tensor, x, most)
    less.meta["recompute"] = CheckpointPolicy.PREFER_RECOMPUTE
    log = add(aten.log.default, add(aten.sum.dim_IntList, add(aten.exp.default, less), [axis], True))
    for user in taken:
        at = _Builder(graph, user)
        found = at(aten.sub.Tensor, at(aten.gather.default, x, axis, user.args[2]), most)
        user.replace_all_uses_with(at(aten.sub.Tensor, found, log))
    for user in backward:
        at = _Builder(graph, user)
        whole = at(aten.sub.Tensor, less, log)
        whole.meta["recompute"] = CheckpointPolicy.PREFER_RECOMPUTE
        user.args = (user.args[0], whole, *user.args[2:])


def _is_size(shape: Sequence[Any]) -> bool:
    return all(isinstance(size, int) for size in shape)


def _part(node: fx.Node, first: int) -> tuple[int, Any, Any, Any]:
    """Axis, begin, end and step of a slice or slice_scatter."""
    given = (*node.args[first:], *(0, None, None, 1)[len(node.args) - first :])
    return operator.index(given[0]), given[1], given[2], given[3]  # type: ignore[arg-type]


def _rows_of(at: _Builder, x: fx.Node, lead: Sequence[int], part: tuple[int, Any, Any, Any]) -> fx.Node:
    """Of a matrix whose rows are those of [*lead, width] the rows that a slice takes, as a matrix."""
    width = x.meta["val"].shape[1]
    taken = at(aten.slice.Tensor, at.view(x, [*lead, width]), *part)
    return at.view(taken, [math.prod(taken.meta["val"].shape[:-1]), width])


def _multiply_what_is_read(graph: fx.Graph, node: fx.Node) -> None:
    """slice(x @ w) is slice(x) @ w where no other rows are read."""
    rows, part = node.args[0], _part(node, 1)
    if not isinstance(rows, fx.Node) or rows.target is not aten.view.default or len(rows.users) > 1:
        return
    product, shape = rows.args[0], rows.meta["val"].shape
    if not isinstance(product, fx.Node) or product.target is not aten.mm.default or len(product.users) > 1:
        return
    x, w = product.args
    assert isinstance(x, fx.Node)
    depth, width = w.meta["val"].shape  # type: ignore[union-attr]
    if not _is_size((*shape, depth, width)) or shape[-1] != width or width < depth:
        return
    if part[0] % len(shape) == len(shape) - 1:
        return
    at = _Builder(graph, node)
    short = at(aten.mm.default, _rows_of(at, x, shape[:-1], part), w)
    node.replace_all_uses_with(at.view(short, node.meta["val"].shape))


def _multiply_what_is_not_zero(graph: fx.Graph, node: fx.Node) -> None:
    """The gradient of that: rows of zeros around a gradient are no part of its products."""
    zeros, slopes, part = node.args[0], node.args[1], _part(node, 2)
    assert isinstance(zeros, fx.Node)
    assert isinstance(slopes, fx.Node)
    shape, short = zeros.meta["val"].shape, slopes.meta["val"].shape
    if zeros.target is not aten.full.default or zeros.args[1] != 0 or not _is_size((*shape, *short)):
        return
    lead, width = shape[:-1], shape[-1]
    if part[0] % len(shape) == len(shape) - 1 or len(node.users) != 1:
        return
    rows = next(iter(node.users))
    if rows.target is not aten.view.default or tuple(rows.meta["val"].shape) != (math.prod(lead), width):
        return
    products: list[tuple[fx.Node, fx.Node | None]] = []  # each with the transpose that it reads
    for user in rows.users:
        if user.target is aten.mm.default and user.args[0] is rows and user.args[1] is not rows:
            products.append((user, None))
        elif user.target is aten.permute.default and list(user.args[1]) == TRANSPOSED:  # type: ignore[arg-type]
            if not all(
                m.target is aten.mm.default and m.args[0] is user is not m.args[1] for m in user.users
            ):
                return
            products += [(m, user) for m in user.users]
        else:
            return
    for product, transpose in products:
        at, other = _Builder(graph, product), product.args[1]
        assert isinstance(other, fx.Node)
        dense = at.view(slopes, [math.prod(short[:-1]), width])
        if transpose is None:
            depth = other.meta["val"].shape[1]
            found = at.view(at(aten.mm.default, dense, other), [*short[:-1], depth])
            around = at(aten.full.default, [*lead, depth], 0, **zeros.kwargs)
            result = at.view(at(aten.slice_scatter.default, around, found, *part), [math.prod(lead), depth])
        else:
            turned = at(aten.permute.default, dense, TRANSPOSED)
            result = at(aten.mm.default, turned, _rows_of(at, other, lead, part))
        product.replace_all_uses_with(result)
