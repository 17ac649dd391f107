"""Maxima over windows whose places are drawn: fractional max pooling (Graham, 2014), at ATen's places."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deepseek.torch.decompositions import decomposition

aten = torch.ops.aten


def _starts(sample: Tensor, size: int, window: int, count: int) -> Tensor:
    """Where the windows along one axis begin, [batch, channels, count]."""
    step = torch.arange(count, dtype=sample.dtype)
    ratio = (size - window) / (count - 1) if count > 1 else 0.0
    sample = sample.unsqueeze(-1)
    start = ((step + sample) * ratio).to(torch.int64) - (sample * ratio).to(torch.int64)
    return torch.where(torch.arange(count) == count - 1, size - window, start)


def _pool(
    x: Tensor, kernel: Sequence[int], counts: Sequence[int], samples: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """`samples`: for each axis, [batch, channels]; an image without a batch takes the first ones."""
    rank = len(kernel)
    batched = x.dim() == rank + 2
    if not batched:
        x, samples = x.unsqueeze(0), [sample[:1] for sample in samples]
    position = torch.zeros((), dtype=torch.int64)
    for i, (window, count, sample) in enumerate(zip(kernel, counts, samples, strict=True)):
        start = _starts(sample, x.shape[2 + i], window, count)
        place = start.unsqueeze(-1) + torch.arange(window)  # [batch, channels, count, window]
        shape = [*place.shape[:2], *([1] * (2 * rank))]
        shape[2 + i], shape[2 + rank + i] = count, window
        position = position * x.shape[2 + i] + place.reshape(shape)
    position = position.reshape(*x.shape[:2], *counts, math.prod(kernel))
    read = x.flatten(2).gather(2, position.flatten(2)).reshape(position.shape)
    values, best = read.max(-1, keepdim=True)
    indices = position.gather(-1, best)
    values, indices = values.squeeze(-1), indices.squeeze(-1)
    return (values, indices) if batched else (values.squeeze(0), indices.squeeze(0))


@decomposition(aten.fractional_max_pool2d.default)
def _pool2d(
    x: Tensor, kernel: Sequence[int], counts: Sequence[int], samples: Tensor
) -> tuple[Tensor, Tensor]:
    return _pool(x, kernel, counts, [samples[..., 1], samples[..., 0]])


@decomposition(aten.fractional_max_pool3d.default)
def _pool3d(
    x: Tensor, kernel: Sequence[int], counts: Sequence[int], samples: Tensor
) -> tuple[Tensor, Tensor]:
    return _pool(x, kernel, counts, [samples[..., i] for i in range(3)])


@decomposition(aten.fractional_max_pool2d_backward.default, aten.fractional_max_pool3d_backward.default)
def _pool_backward(
    dy: Tensor, x: Tensor, kernel: Sequence[int], counts: Sequence[int], indices: Tensor
) -> Tensor:
    first = x.dim() - len(kernel)
    dx = torch.zeros_like(x).flatten(first)
    return dx.scatter_add(-1, indices.flatten(first), dy.flatten(first)).reshape(x.shape)
