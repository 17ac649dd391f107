"""Tensors out of nothing: constants, ranges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from deepseek import Value
from deepseek.torch.builder import Builder, Operand, rule
from deepseek.torch.shapes import Dim

aten = torch.ops.aten


def filled(b: Builder, shape: Sequence[Dim], value: Operand, dtype: str) -> Value:
    if not isinstance(value, (bool, int, float)) or (isinstance(value, int) and int(float(value)) != value):
        return b.broadcast(b.tensor(value, dtype), shape)  # not known yet, or no float64
    return b.op("full", shape=list(shape), value=float(value), dtype=dtype)


@rule(aten.full.default, aten.full_like.default)
def full(b: Builder, like: Any, value: Operand, **kwargs: Any) -> Value:
    return filled(b, b.shape(), value, b.dtype())


# What is in new memory is not defined: zeros are as good as anything.
@rule(
    aten.zeros.default,
    aten.zeros_like.default,
    aten.new_zeros.default,
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_permuted.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten._efficientzerotensor.default,
)
def zeros(b: Builder, *args: Any, **kwargs: Any) -> Value:
    return filled(b, b.shape(), 0, b.dtype())


@rule(aten.ones.default, aten.ones_like.default, aten.new_ones.default)
def ones(b: Builder, *args: Any, **kwargs: Any) -> Value:
    return filled(b, b.shape(), 1, b.dtype())


@rule(aten.scalar_tensor.default)
def scalar_tensor(b: Builder, value: Operand, **kwargs: Any) -> Value:
    return filled(b, [], value, b.dtype())


@rule(aten.arange.start_step)
def arange(b: Builder, start: Any, end: Any, step: Any = 1, **kwargs: Any) -> Value:
    return _steps(b, start, step)


@rule(torch.ops.prims.iota.default)
def iota(b: Builder, length: Any, *, start: Any, step: Any, **kwargs: Any) -> Value:
    return _steps(b, start, step)


def _steps(b: Builder, start: Any, step: Any) -> Value:
    dtype = b.dtype()
    steps = b.op("iota", shape=b.shape(), dtype=dtype, axis=0)
    if step != 1:
        steps = b.op("mul", steps, b.tensor(step, dtype))
    return steps if start == 0 else b.op("add", steps, b.tensor(start, dtype))


@rule(aten.tril.default, aten.triu.default)
def triangle(b: Builder, x: Value, diagonal: int = 0) -> Value:
    assert b.node is not None
    return b.op("triangular", x, upper=b.node.target is aten.triu.default, k=[diagonal])


@rule(aten.tril_indices.default, aten.triu_indices.default)
def triangle_indices(b: Builder, rows: int, columns: int, offset: int = 0, **kwargs: Any) -> Value:
    assert b.node is not None
    positions = np.tril_indices if b.node.target is aten.tril_indices.default else np.triu_indices
    return b.graph.constant(np.stack(positions(rows, offset, columns)).astype(b.dtype()))
