"""Ops that move elements and compute nothing: views, slices, joins, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
import torch

from deepseek import Value
from deepseek.torch.builder import Builder, Scalar, axis, rule
from deepseek.torch.shapes import Dim, dim, expression

aten = torch.ops.aten


@rule(
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten._reshape_copy.default,
    aten.view_copy.default,
)
def reshape(b: Builder, x: Value, *sizes: Any) -> Value:
    return b.reshape(x, b.shape())


@rule(aten.expand.default)
def expand(b: Builder, x: Value, sizes: Sequence[Dim], implicit: bool = False) -> Value:
    return b.broadcast(x, b.shape())


@rule(aten.permute.default)
def permute(b: Builder, x: Value, perm: Sequence[int]) -> Value:
    return b.transpose(x, [axis(i, len(x.shape)) for i in perm])


@rule(aten.transpose.int)
def transpose(b: Builder, x: Value, first: int, second: int) -> Value:
    return b.swap(x, first, second)


@rule(aten.t.default)
def t(b: Builder, x: Value) -> Value:
    return b.swap(x) if len(x.shape) == 2 else x


def slice_axis(b: Builder, x: Value, along: int, start: Dim, limit: Dim, step: int = 1) -> Value:
    """Elements start, start + step, ... below limit of one axis."""
    rank = len(x.shape)
    starts: list[Dim] = [0] * rank
    limits: list[Dim] = list(x.shape)
    steps = [1] * rank
    starts[along], limits[along], steps[along] = start, limit, step
    return b.op("slice", x, starts=starts, limits=limits, steps=steps)


@rule(aten.slice.Tensor)
def slice_tensor(
    b: Builder, x: Value, along: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Value:
    result, source = b.fake(), b.argument(0)
    along = axis(along, len(x.shape))
    size, length = expression(source.shape[along]), expression(result.shape[along])
    if size == length and step == 1:
        return x
    first = b.size_argument(2)
    begin = sympy.Integer(0) if first is None else first
    if begin.is_Integer and int(begin) < 0:
        begin = size + begin
    if begin.is_Integer and size.is_Integer:
        begin = sympy.Integer(min(int(begin), int(size)))
    span = length if step == 1 or length == 0 else (length - 1) * step + 1
    return slice_axis(b, x, along, dim(begin), dim(begin + span), step)


@rule(aten.select.int)
def select(b: Builder, x: Value, along: int, index: Any) -> Value:
    along = axis(along, len(x.shape))
    position = b.size_argument(2)
    assert position is not None
    if position.is_Integer and int(position) < 0:
        position = expression(b.argument(0).shape[along]) + position
    return b.reshape(slice_axis(b, x, along, dim(position), dim(position + 1)), b.shape())


@rule(aten.split_with_sizes.default)
def split_with_sizes(b: Builder, x: Value, sizes: Sequence[Any], along: int = 0) -> tuple[Value, ...]:
    along = axis(along, len(x.shape))
    assert b.node is not None
    start, parts = sympy.Integer(0), []
    for part in b.node.meta["val"]:
        end = sympy.expand(start + expression(part.shape[along]))
        parts.append(slice_axis(b, x, along, dim(start), dim(end)))
        start = end
    return tuple(parts)


@rule(aten.cat.default)
def cat(b: Builder, xs: Sequence[Value], along: int = 0) -> Value:
    rank, dtype = len(b.shape()), b.dtype()
    parts = [
        b.cast(x, dtype) for x in xs if len(x.shape) == rank
    ]  # cat ignores empty vectors, whatever the rank
    return parts[0] if len(parts) == 1 else b.op("concat", *parts, axis=axis(along, rank))


@rule(aten.constant_pad_nd.default)
def constant_pad_nd(b: Builder, x: Value, pads: Sequence[Dim], value: Scalar = 0) -> Value:
    rank = len(x.shape)
    low: list[Dim] = [0] * rank
    high: list[Dim] = [0] * rank
    for i in range(len(pads) // 2):
        low[rank - 1 - i], high[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    return b.op("pad", x, low=low, high=high, value=float(value))


@rule(aten.flip.default)
def flip(b: Builder, x: Value, along: Sequence[int]) -> Value:
    return b.op("reverse", x, axes=sorted(axis(i, len(x.shape)) for i in along))


@rule(aten.repeat.default)
def repeat(b: Builder, x: Value, repeats: Sequence[Any]) -> Value:
    shape: list[Dim] = [*([1] * (len(repeats) - len(x.shape))), *x.shape]
    return b.op("tile", b.reshape(x, shape), repeats=list(repeats))
