"""Pooling and resizing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from deepseek import Value
from deepseek.torch.builder import Builder, rule
from deepseek.torch.rules.contractions import spread
from deepseek.torch.shapes import Dim, Unsupported, product

aten = torch.ops.aten


def window(
    x: Value,
    out: Sequence[Any],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> dict[str, list[int]]:
    """Attributes of a pool; the high padding is what makes its result as large as PyTorch's (ceil_mode)."""
    count = len(out)
    kernel = spread(kernel, count)
    stride = spread(stride, count) if stride else kernel
    padding, dilation = spread(padding, count), spread(dilation, count)
    high = []
    for size, length, k, s, p, d in zip(
        x.shape[-count:], out, kernel, stride, padding, dilation, strict=True
    ):
        if isinstance(size, int) and isinstance(length, int):
            high.append(max((length - 1) * s + d * (k - 1) + 1 - size - p, 0))
        else:
            high.append(p)
    return {"window": kernel, "strides": stride, "pad_low": padding, "pad_high": high, "dilation": dilation}


@rule(aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default)
def max_pool(
    b: Builder,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> tuple[Value | None, ...]:
    count = 2 if b.node is not None and b.node.target is aten.max_pool2d_with_indices.default else 3
    attrs = window(x, b.shape(0)[-count:], kernel, stride, padding, dilation)
    if ceil_mode and any(not isinstance(size, int) for size in x.shape[-count:]):
        raise Unsupported("ceil_mode over a symbolic dim")
    if not b.uses(1):
        return batched(b, x, count, "max_pool", attrs, b.shape(0)), None
    lacks_batch = len(x.shape) == count + 1
    y, indices = b.ops("max_pool_with_indices", b.reshape(x, [1, *x.shape]) if lacks_batch else x, **attrs)
    return b.reshape(y, b.shape(0)), b.reshape(indices, b.shape(1))


def batched(
    b: Builder, x: Value, count: int, name: str, attrs: dict[str, Any], shape: Sequence[Any]
) -> Value:
    """A pool of [N, C, ...] or [C, ...]."""
    lacks_batch = len(x.shape) == count + 1
    y = b.op(name, b.reshape(x, [1, *x.shape]) if lacks_batch else x, **attrs)
    return b.reshape(y, shape) if lacks_batch else y


def average_window(
    x: Value,
    out: Sequence[Any],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> tuple[str, dict[str, Any]]:
    """The pool, a sum where PyTorch divides by a number of its own, and its attributes."""
    attrs: dict[str, Any] = window(x, out, kernel, stride, padding, (1,))
    low = attrs["pad_low"]
    if ceil_mode:  # reaches beyond the padding; what lies there never counts
        attrs["pad_high"] = [max(high, p) for high, p in zip(attrs["pad_high"], low, strict=True)]
    else:
        attrs["pad_high"] = low
    if divisor is not None:
        return "sum_pool", attrs
    attrs["uncounted_high"] = [high - p for high, p in zip(attrs["pad_high"], low, strict=True)]
    return "avg_pool", attrs | {"count_include_pad": count_include_pad}


@rule(aten.avg_pool2d.default, aten.avg_pool3d.default)
def avg_pool(
    b: Builder,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Value:
    count = 2 if b.node is not None and b.node.target is aten.avg_pool2d.default else 3
    if ceil_mode and any(not isinstance(size, int) for size in x.shape[-count:]):
        raise Unsupported("ceil_mode over a symbolic dim")
    name, attrs = average_window(
        x, b.shape()[-count:], kernel, stride, padding, ceil_mode, count_include_pad, divisor
    )
    y = batched(b, x, count, name, attrs, b.shape())
    return y if divisor is None else b.op("div", y, b.constant(divisor, y.dtype))


@rule(aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default)
def adaptive_avg_pool(b: Builder, x: Value, size: Sequence[int]) -> Value:
    return b.op("adaptive_avg_pool", x, size=list(b.shape()[-len(size) :]))


@rule(aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default)
def adaptive_max_pool(b: Builder, x: Value, size: Sequence[int]) -> tuple[Value | None, ...]:
    out = list(b.shape(0)[-len(size) :])
    if not b.uses(1):
        return b.op("adaptive_max_pool", x, size=out), None
    return _adaptive_maxima(b, x, out)


def _adaptive_maxima(b: Builder, x: Value, out: Sequence[Dim]) -> tuple[Value, Value]:
    """Largest elements and their positions among the spatial axes: window by window, since they differ."""
    count = len(out)
    spatial, lead = x.shape[-count:], list(x.shape[:-count])
    if any(not isinstance(size, int) for size in [*spatial, *out]):
        raise Unsupported("indices of adaptive max pooling over symbolic dims")
    ends = [
        [(i * n // o, -(-(i + 1) * n // o)) for i in range(o)]
        for n, o in zip(map(int, spatial), map(int, out), strict=True)
    ]
    widest = [max((high - low for low, high in axis), default=1) for axis in ends]
    # Every window as rows of positions of the same length: the shorter ones repeat their first.
    rows = []
    for corner in itertools.product(*ends):
        box = itertools.product(*([*range(low, high)] for low, high in corner))
        flat = [int(np.ravel_multi_index(at, [int(n) for n in spatial])) for at in box]
        rows.append(flat + flat[:1] * (int(np.prod(widest)) - len(flat)))
    table = b.graph.constant(np.array(rows, "int64").reshape(len(rows), int(np.prod(widest))))
    flat_x = b.reshape(x, [*lead, product(spatial)])
    windows = b.op("gather", flat_x, table, axis=len(lead))  # [lead, windows, taps]
    rank = len(lead) + 2
    best = b.cast(b.op("argmax", windows, axis=rank - 1, keepdims=True), "int64")
    value = b.op("gather_elements", windows, best, axis=rank - 1)
    spread = b.broadcast(b.reshape(table, [*([1] * len(lead)), *table.shape]), windows.shape)
    index = b.op("gather_elements", spread, best, axis=rank - 1)
    return b.reshape(value, b.shape(0)), b.reshape(index, b.shape(1))
