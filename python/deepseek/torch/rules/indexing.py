"""Reads and writes at computed positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deepseek import Value
from deepseek.torch.builder import Builder, axis, rule
from deepseek.torch.shapes import Dim, Unsupported, product

aten = torch.ops.aten


@rule(aten.embedding.default)
def embedding(b: Builder, weight: Value, index: Value, *rest: object) -> Value:
    return b.op("gather", weight, index, axis=0)


@rule(aten.index_select.default)
def index_select(b: Builder, x: Value, along: int, index: Value) -> Value:
    if not x.shape:
        return x
    return b.op("gather", x, index, axis=axis(along, len(x.shape)))


@rule(aten.gather.default)
def gather(b: Builder, x: Value, along: int, index: Value, *, sparse_grad: bool = False) -> Value:
    return b.op("gather_elements", x, index, axis=axis(along, len(x.shape)))


@rule(aten.index.Tensor)
def index(b: Builder, x: Value, indices: Sequence[Value | None]) -> Value:
    at = [i for i, position in enumerate(indices) if position is not None]
    picks = [position for position in indices if position is not None]
    if not picks or at != list(range(at[0], at[0] + len(at))):
        raise Unsupported("indexing by tensors on axes that are not next to each other")
    if any(position.dtype == "bool" for position in picks):
        raise Unsupported("indexing by a mask")
    first, last = at[0], at[-1]
    if len(picks) == 1:
        return b.op("gather", x, picks[0], axis=first)
    position = _from_front(b, picks[0], x.shape[first])
    for i, pick in zip(at[1:], picks[1:], strict=True):
        size = x.shape[i]
        dtype = position.dtype
        position = b.op(
            "add", b.op("mul", position, b.tensor(size, dtype)), b.cast(_from_front(b, pick, size), dtype)
        )
    flat = product(x.shape[first : last + 1])
    x = b.reshape(x, [*x.shape[:first], flat, *x.shape[last + 1 :]])
    return b.op("gather", x, position, axis=first)


def _from_front(b: Builder, index: Value, size: Dim) -> Value:
    """Positions that may count from the end, counted from the front."""
    negative = b.op("less", index, b.constant(0, index.dtype))
    return b.op("select", negative, b.op("add", index, b.tensor(size, index.dtype)), index)


@rule(aten.scatter.src, aten.scatter.value, aten.scatter_add.default)
def scatter(b: Builder, x: Value, along: int, index: Value, source: Value | float) -> Value:
    assert b.node is not None
    updates = source if isinstance(source, Value) else b.broadcast(b.constant(source, x.dtype), index.shape)
    reduction = "add" if b.node.target is aten.scatter_add.default else "none"
    if reduction == "add" and x.dtype == "bool":
        raise Unsupported("a sum of bools")
    return b.op("scatter_elements", x, index, updates, axis=axis(along, len(x.shape)), reduction=reduction)
