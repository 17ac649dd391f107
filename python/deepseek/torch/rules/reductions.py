"""Sums, extremes, positions of extremes, sorting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from deepseek import Value
from deepseek.torch.builder import Builder, Scalar, axes, axis, rule
from deepseek.torch.rules.creation import filled
from deepseek.torch.rules.elementwise import truth
from deepseek.torch.shapes import product

aten = torch.ops.aten


def reduce(b: Builder, name: str, x: Value, along: Sequence[int], keepdim: bool = False) -> Value:
    return x if not along else b.op(name, x, axes=list(along), keepdims=keepdim)


def _cast_first(name: str) -> Callable[..., Value]:
    def translate(
        b: Builder, x: Value, along: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
    ) -> Value:
        return reduce(b, name, b.cast(x, b.dtype()), axes(along, len(x.shape)), keepdim)

    return translate


rule(aten.sum.dim_IntList, aten.sum.default)(_cast_first("sum"))
rule(aten.mean.dim, aten.mean.default)(_cast_first("mean"))
rule(aten.amax.default, aten.max.default)(_cast_first("max"))
rule(aten.amin.default, aten.min.default)(_cast_first("min"))


@rule(aten.prod.default, aten.prod.dim_int)
def prod(
    b: Builder, x: Value, along: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Value:
    return reduce(b, "prod", b.cast(x, b.dtype()), axes(along, len(x.shape)), keepdim)


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
    position = b.op(name, x, axis=axis(along, len(x.shape)), keepdims=keepdim)
    return b.reshape(b.cast(position, "int64"), b.shape())


@rule(aten.max.dim, aten.min.dim)
def max_dim(b: Builder, x: Value, along: int, keepdim: bool = False) -> tuple[Value, Value | None]:
    assert b.node is not None
    largest = b.node.target is aten.max.dim
    if not x.shape:
        return x, filled(b, [], 0, "int64")
    at = axis(along, len(x.shape))
    value = reduce(b, "max" if largest else "min", x, [at], keepdim)
    index = None
    if b.uses(1):
        index = b.cast(b.op("argmax" if largest else "argmin", x, axis=at, keepdims=keepdim), "int64")
    return value, index


@rule(aten.topk.default)
def topk(
    b: Builder, x: Value, k: Any, along: int = -1, largest: bool = True, ordered: bool = True
) -> tuple[Value, ...]:
    values, indices = b.ops("topk", x, k=[k], axis=axis(along, len(x.shape)), largest=largest)
    return values, b.cast(indices, "int64")


def _stable_sort(b: Builder, x: Value, dim: int, descending: bool) -> tuple[Value, ...]:
    values, indices = b.ops("sort", x, axis=axis(dim, len(x.shape)), descending=descending)
    return values, b.cast(indices, "int64")


@rule(aten.sort.default)
def sort(b: Builder, x: Value, along: int = -1, descending: bool = False) -> tuple[Value, ...]:
    return _stable_sort(b, x, along, descending)


@rule(aten.sort.stable)
def stable_sort(
    b: Builder, x: Value, *, stable: bool | None, dim: int = -1, descending: bool = False
) -> tuple[Value, ...]:
    return _stable_sort(b, x, dim, descending)


@rule(aten.cumsum.default)
def cumsum(b: Builder, x: Value, along: int, *, dtype: torch.dtype | None = None) -> Value:
    x = b.cast(x, b.dtype())
    return b.op("cumsum", x, axis=axis(along, len(x.shape))) if x.shape else x


@rule(aten._softmax.default, aten._log_softmax.default)
def softmax(b: Builder, x: Value, along: int, half_to_float: bool = False) -> Value:
    assert b.node is not None
    name = "softmax" if b.node.target is aten._softmax.default else "log_softmax"
    return b.op(name, b.cast(x, b.dtype()), axis=axis(along, len(x.shape)))
