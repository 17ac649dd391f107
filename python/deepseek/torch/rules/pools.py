"""Pooling and resizing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from deepseek import Value
from deepseek.torch.builder import Builder, rule
from deepseek.torch.rules.contractions import spread
from deepseek.torch.shapes import Unsupported

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
    if ceil_mode or divisor is not None:
        raise Unsupported("average pooling with ceil_mode or a divisor of its own")
    count = 2 if b.node is not None and b.node.target is aten.avg_pool2d.default else 3
    attrs: dict[str, Any] = window(x, b.shape()[-count:], kernel, stride, padding, (1,))
    attrs["pad_high"] = attrs["pad_low"]
    attrs["count_include_pad"] = count_include_pad
    return batched(b, x, count, "avg_pool", attrs, b.shape())


@rule(aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default)
def adaptive_avg_pool(b: Builder, x: Value, size: Sequence[int]) -> Value:
    return b.op("adaptive_avg_pool", x, size=list(b.shape()[-len(size) :]))


@rule(aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default)
def adaptive_max_pool(b: Builder, x: Value, size: Sequence[int]) -> tuple[Value | None, ...]:
    if b.uses(1):
        raise Unsupported("indices of adaptive max pooling")
    return b.op("adaptive_max_pool", x, size=list(b.shape(0)[-len(size) :])), None
