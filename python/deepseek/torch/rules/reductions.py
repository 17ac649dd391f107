"""Sums, extremes, positions of extremes, sorting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from deepseek import Value
from deepseek.torch.builder import Builder, Scalar, axes, axis, rule
from deepseek.torch.partition import is_draw
from deepseek.torch.rules.creation import filled
from deepseek.torch.rules.elementwise import truth
from deepseek.torch.shapes import INTEGER_NAMES, Dim, Unsupported, product

aten = torch.ops.aten


def reduce(b: Builder, name: str, x: Value, along: Sequence[int], keepdim: bool = False) -> Value:
    return x if not along else b.op(name, x, axes=list(along), keepdims=keepdim)


def extreme(dtype: str, largest: bool) -> Scalar:
    """The largest or smallest value of a dtype."""
    if dtype == "bool":
        return largest
    if dtype in INTEGER_NAMES:
        return int(np.iinfo(dtype).max if largest else np.iinfo(dtype).min)
    return float("inf") if largest else float("-inf")


_OF_BOOLS = {"sum": "any", "prod": "all"}  # where truth values are asked for


def _cast_first(name: str) -> Callable[..., Value]:
    def translate(
        b: Builder, x: Value, along: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
    ) -> Value:
        found = _OF_BOOLS[name] if b.dtype() == "bool" else name
        return reduce(b, found, b.cast(x, b.dtype()), axes(along, len(x.shape)), keepdim)

    return translate


rule(aten.sum.dim_IntList, aten.sum.default)(_cast_first("sum"))
rule(aten.mean.dim, aten.mean.default)(_cast_first("mean"))
rule(aten.prod.default, aten.prod.dim_int)(_cast_first("prod"))


def extremes(b: Builder, name: str, x: Value, along: Sequence[int], keepdim: bool = False) -> Value:
    """max or min; of truth values any or all."""
    return reduce(b, {"max": "any", "min": "all"}[name] if x.dtype == "bool" else name, x, along, keepdim)


@rule(aten.amax.default, aten.max.default, aten.amin.default, aten.min.default)
def extreme_of(b: Builder, x: Value, along: Any = None, keepdim: bool = False) -> Value:
    assert b.node is not None
    name = "max" if b.node.target in (aten.amax.default, aten.max.default) else "min"
    return extremes(b, name, x, axes(along, len(x.shape)), keepdim)


@rule(aten.any.default, aten.any.dim, aten.any.dims)
def any_(b: Builder, x: Value, along: Any = None, keepdim: bool = False) -> Value:
    return b.cast(reduce(b, "any", truth(b, x), axes(along, len(x.shape)), keepdim), b.dtype())


@rule(aten.all.default, aten.all.dim, aten.all.dims)
def all_(b: Builder, x: Value, along: Any = None, keepdim: bool = False) -> Value:
    return b.cast(reduce(b, "all", truth(b, x), axes(along, len(x.shape)), keepdim), b.dtype())


@rule(aten.var.correction, aten.var_mean.correction)
def variance(
    b: Builder, x: Value, along: Any = None, *, correction: Scalar | None = None, keepdim: bool = False
) -> Value | tuple[Value, Value]:
    over = {"axes": axes(along, len(x.shape)), "keepdims": keepdim}
    result = b.op("var", x, correction=float(1 if correction is None else correction), **over)
    if b.node is not None and b.node.target is aten.var.correction:
        return result
    return result, b.op("mean", x, **over)


@rule(aten.argmax.default, aten.argmin.default)
def argmax(b: Builder, x: Value, along: int | None = None, keepdim: bool = False) -> Value:
    assert b.node is not None
    name = "argmax" if b.node.target is aten.argmax.default else "argmin"
    if along is None:
        x, along = b.reshape(x, [product(x.shape)]), 0
    if not x.shape:
        return filled(b, b.shape(), 0, "int64")
    position = b.op(name, sortable(b, x), axis=axis(along, len(x.shape)), keepdims=keepdim)
    return b.reshape(b.cast(position, "int64"), b.shape())


@rule(aten.max.dim, aten.min.dim)
def max_dim(b: Builder, x: Value, along: int, keepdim: bool = False) -> tuple[Value, Value | None]:
    assert b.node is not None
    largest = b.node.target is aten.max.dim
    if not x.shape:
        return x, filled(b, [], 0, "int64")
    at = axis(along, len(x.shape))
    value = extremes(b, "max" if largest else "min", x, [at], keepdim)
    index = None
    if b.uses(1):
        name = "argmax" if largest else "argmin"
        index = b.cast(b.op(name, sortable(b, x), axis=at, keepdims=keepdim), "int64")
    return value, index


def sortable(b: Builder, x: Value) -> Value:
    """x in a dtype that sorts: truth values as integers."""
    return b.cast(x, "uint8") if x.dtype == "bool" else x


@rule(aten.topk.default)
def topk(
    b: Builder, x: Value, k: Any, along: int = -1, largest: bool = True, ordered: bool = True
) -> tuple[Value, ...]:
    if not x.shape:
        return b.reshape(x, b.shape(0)), filled(b, b.shape(1), 0, "int64")
    assert b.node is not None
    if not ordered and any(map(is_draw, b.node.graph.nodes)):
        # A seed gives what it gives in PyTorch, so whichever meets a drawn number has to be the same.
        raise Unsupported("an order that is PyTorch's own, in a graph that draws random numbers")
    values, indices = b.ops("topk", sortable(b, x), k=[k], axis=axis(along, len(x.shape)), largest=largest)
    return b.cast(values, x.dtype), b.cast(indices, "int64")


def in_order(b: Builder, x: Value, along: int, descending: bool = False) -> tuple[Value, Value]:
    """x sorted along an axis, and where each element came from; equal elements keep their order."""
    if not x.shape:
        return x, filled(b, [], 0, "int64")
    values, indices = b.ops("sort", sortable(b, x), axis=axis(along, len(x.shape)), descending=descending)
    return b.cast(values, x.dtype), b.cast(indices, "int64")


@rule(aten.sort.default)
def sort(b: Builder, x: Value, along: int = -1, descending: bool = False) -> tuple[Value, ...]:
    return in_order(b, x, along, descending)


@rule(aten.sort.stable)
def stable_sort(
    b: Builder, x: Value, *, stable: bool | None, dim: int = -1, descending: bool = False
) -> tuple[Value, ...]:
    return in_order(b, x, dim, descending)


def _nth(
    b: Builder, x: Value, along: int, keepdim: bool, position: Value | None, skip_nan: bool = False
) -> tuple[Value, Value]:
    """The element of rank `position` (none: the lower median) along an axis, and where it is. NaN is the
    largest of all; a median with NaN is NaN unless they are skipped.
    """
    if not x.shape:
        return x, filled(b, [], 0, "int64")
    at = axis(along, len(x.shape))
    values, indices = in_order(b, x, at)
    one: list[Dim] = [*x.shape[:at], 1, *x.shape[at + 1 :]]
    size = b.tensor(x.shape[at], "int64")
    if position is None and x.dtype not in INTEGER_NAMES:
        nans = b.op("sum", b.cast(b.op("is_nan", x), "int64"), axes=[at], keepdims=True)
        count = b.op("sub", size, nans)
        lower = b.op("floor_div", b.op("sub", count, b.constant(1, "int64")), b.constant(2, "int64"))
        lower = b.op("maximum", lower, b.constant(0, "int64"))
        if not skip_nan:  # the first NaN, which is the median
            lower = b.op("select", b.op("greater", nans, b.constant(0, "int64")), count, lower)
        position = lower
    elif position is None:
        position = b.op("floor_div", b.op("sub", size, b.constant(1, "int64")), b.constant(2, "int64"))
    position = b.broadcast(position, one)
    shape: list[Dim] = one if keepdim else [*x.shape[:at], *x.shape[at + 1 :]]
    pick = [b.op("gather_elements", source, position, axis=at) for source in (values, indices)]
    return b.reshape(pick[0], shape), b.reshape(pick[1], shape)


@rule(aten.kthvalue.default)
def kthvalue(b: Builder, x: Value, k: int, along: int = -1, keepdim: bool = False) -> tuple[Value, ...]:
    return _nth(b, x, along, keepdim, b.constant(int(k) - 1, "int64"))


@rule(aten.median.dim, aten.nanmedian.dim)
def median_dim(b: Builder, x: Value, along: int = -1, keepdim: bool = False) -> tuple[Value, ...]:
    return _nth(b, x, along, keepdim, None, b.node is not None and b.node.target is aten.nanmedian.dim)


@rule(aten.median.default, aten.nanmedian.default)
def median(b: Builder, x: Value) -> Value:
    flat = b.reshape(x, [product(x.shape)])
    return _nth(b, flat, 0, False, None, b.node is not None and b.node.target is aten.nanmedian.default)[0]


@rule(aten.mode.default)
def mode(b: Builder, x: Value, along: int = -1, keepdim: bool = False) -> tuple[Value, ...]:
    """The most frequent element, the smallest of those; where its last one is."""
    if not x.shape:
        return x, filled(b, [], 0, "int64")
    at = axis(along, len(x.shape))
    values, indices = in_order(b, x, at)
    rank = len(x.shape)
    across: list[Dim] = [*x.shape[:at], 1, *x.shape[at:]]
    same = b.op(
        "equal",
        b.reshape(values, [*x.shape[: at + 1], 1, *x.shape[at + 1 :]]),
        b.reshape(values, across),
    )
    counts = b.op("sum", b.cast(same, "int64"), axes=[at + 1], keepdims=False)
    first = b.cast(b.op("argmax", counts, axis=at, keepdims=True), "int64")
    most = b.op("gather_elements", counts, first, axis=at)
    last = b.op("sub", b.op("add", first, most), b.constant(1, "int64"))
    shape: list[Dim] = [s for i, s in enumerate(x.shape) if keepdim or i != at]
    if keepdim:
        shape[at] = 1
    assert rank == len(last.shape)
    value = b.op("gather_elements", values, last, axis=at)
    return b.reshape(value, shape), b.reshape(b.op("gather_elements", indices, last, axis=at), shape)


def _running(name: str) -> Callable[..., Value]:
    def translate(b: Builder, x: Value, along: int, *, dtype: torch.dtype | None = None) -> Value:
        x = b.cast(x, b.dtype())
        return b.op(name, x, axis=axis(along, len(x.shape))) if x.shape else x

    return translate


rule(aten.cumsum.default)(_running("cumsum"))
rule(aten.cumprod.default)(_running("cumprod"))
rule(aten.logcumsumexp.default)(_running("logcumsumexp"))


@rule(aten.cummax.default, aten.cummin.default)
def running_extreme(b: Builder, x: Value, along: int) -> tuple[Value, ...]:
    assert b.node is not None
    if not x.shape:
        return x, filled(b, [], 0, "int64")
    name = "cummax" if b.node.target is aten.cummax.default else "cummin"
    values, indices = b.ops(name, sortable(b, x), axis=axis(along, len(x.shape)))
    return b.cast(values, x.dtype), indices


@rule(aten._softmax.default, aten._log_softmax.default)
def softmax(b: Builder, x: Value, along: int, half_to_float: bool = False) -> Value:
    assert b.node is not None
    name = "softmax" if b.node.target is aten._softmax.default else "log_softmax"
    if not x.shape:  # PyTorch takes a number for a row of one
        return b.reshape(b.op(name, b.reshape(b.cast(x, b.dtype()), [1]), axis=0), [])
    return b.op(name, b.cast(x, b.dtype()), axis=axis(along, len(x.shape)))
