"""Sampling images and volumes at the points of a grid, forward and backward.

A point has a coordinate in [-1, 1] for each axis, the last axis first. Along one axis it reads one, two or
four elements, its taps: a sample is the sum over combinations of taps of the product of their weights with
the element there. Conventions: ATen's GridSampler.h; the cubic convolution is that of resample.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deepseek.torch.decompositions import decomposition
from deepseek.torch.resample import CUBIC

aten = torch.ops.aten

BILINEAR, NEAREST, BICUBIC = 0, 1, 2
ZEROS, BORDER, REFLECTION = 0, 1, 2


@dataclass
class Tap:
    """An element that points read along one axis, each value [batch, points]."""

    index: Tensor  # int64, within the axis
    inside: Tensor  # whether there is such an element; what lies outside is 0
    weight: Tensor
    slope: Tensor  # of the weight for the coordinate


def _clipped(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The coordinate within the axis, and the slope of that."""
    last = float(size - 1)
    moves = (x > 0) & (x < last)
    return torch.where(x.isnan(), 0, x.clamp(0.0, last)), moves.to(x.dtype)


def _reflected(x: Tensor, size: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """The coordinate mirrored at the axis's ends until it lies between them, and the slope of that."""
    low, span = (0.0, float(size - 1)) if align_corners else (-0.5, float(size))
    if span == 0:
        return torch.zeros_like(x), torch.zeros_like(x)
    distance = (x - low).abs()
    turns = (distance / span).floor()
    rest = torch.fmod(distance, span)
    odd = torch.remainder(turns, 2) != 0
    sign = torch.where((x < low) != odd, -1.0, 1.0).to(x.dtype)
    return torch.where(odd, span - rest, rest) + low, sign


def _padded(x: Tensor, size: int, padding: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    if padding == ZEROS:
        return x, torch.ones_like(x)
    if padding == BORDER:
        return _clipped(x, size)
    mirrored, sign = _reflected(x, size, align_corners)
    inside, moves = _clipped(mirrored, size)
    return inside, sign * moves


def _cubic(t: Tensor, tap: int) -> tuple[Tensor, Tensor]:
    """The weight of the element `tap` after the point's left neighbour, t beyond which the point lies."""
    a, d = CUBIC, t - tap
    sign, d = d.sign(), d.abs()
    if tap in (0, 1):
        return ((a + 2) * d - (a + 3)) * d * d + 1, sign * (3 * (a + 2) * d - 2 * (a + 3)) * d
    return ((d - 5) * d + 8) * d * a - 4 * a, sign * ((3 * d - 10) * d + 8) * a


def _tap(place: Tensor, size: int, weight: Tensor, slope: Tensor) -> Tap:
    inside = (place >= 0) & (place <= size - 1)
    return Tap(torch.where(inside, place, 0).to(torch.int64), inside, weight, slope)


def _taps(x: Tensor, size: int, mode: int, padding: int, align_corners: bool) -> list[Tap]:
    """What the points at x, in [-1, 1], read along an axis."""
    scale = (size - 1) / 2 if align_corners else size / 2
    x = (x + 1) * scale if align_corners else ((x + 1) * size - 1) / 2
    if mode == BICUBIC:
        left = x.floor()
        taps = []
        for i in range(-1, 3):
            weight, slope = _cubic(x - left, i)
            place, _ = _padded(left + i, size, padding, align_corners)
            taps.append(_tap(place, size, weight, slope * scale))
        return taps
    x, moves = _padded(x, size, padding, align_corners)
    if mode == NEAREST:
        return [_tap(x.round(), size, torch.ones_like(x), torch.zeros_like(x))]
    left = x.floor()
    t, slope = x - left, moves * scale
    return [_tap(left, size, 1 - t, -slope), _tap(left + 1, size, t, slope)]


def _combinations(
    grid: Tensor, sizes: Sequence[int], mode: int, padding: int, align_corners: bool
) -> Iterator[tuple[Tensor, Tensor, Sequence[Tap]]]:
    """For each combination of taps: the position in the flat volume, whether there is one, the taps."""
    rank = len(sizes)
    points = grid.reshape(grid.shape[0], -1, rank)
    axes = [
        _taps(points[..., rank - 1 - i], size, mode, padding, align_corners) for i, size in enumerate(sizes)
    ]
    for taps in itertools.product(*axes):
        position, inside = taps[0].index, taps[0].inside
        for tap, size in zip(taps[1:], sizes[1:], strict=True):
            position, inside = position * size + tap.index, inside & tap.inside
        yield position, inside, taps


def _product(taps: Sequence[Tap], steep: int | None = None) -> Tensor:
    """The product of the weights; of the slope for axis `steep`."""
    factors = [tap.slope if i == steep else tap.weight for i, tap in enumerate(taps)]
    return math.prod(factors[1:], start=factors[0])


@decomposition(aten.grid_sampler_2d.default, aten.grid_sampler_3d.default)
def _sample(x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool) -> Tensor:
    batch, channels, *sizes = x.shape
    flat = x.reshape(batch, channels, -1)
    y = torch.zeros((), dtype=x.dtype)
    for position, inside, taps in _combinations(grid, sizes, mode, padding, align_corners):
        read = flat.gather(2, position.unsqueeze(1).expand(-1, channels, -1))
        weight = torch.where(inside, _product(taps), 0)
        y = y + torch.where(inside.unsqueeze(1), read, 0) * weight.unsqueeze(1)
    return y.reshape(batch, channels, *grid.shape[1:-1])


@decomposition(aten.grid_sampler_2d_backward.default, aten.grid_sampler_3d_backward.default)
def _sample_backward(
    dy: Tensor,
    x: Tensor,
    grid: Tensor,
    mode: int,
    padding: int,
    align_corners: bool,
    output_mask: Sequence[bool],
) -> Any:
    batch, channels, *sizes = x.shape
    flat, dy = x.reshape(batch, channels, -1), dy.reshape(batch, channels, -1)
    dx = torch.zeros_like(flat)
    slopes = [torch.zeros((), dtype=grid.dtype)] * len(sizes)
    for position, inside, taps in _combinations(grid, sizes, mode, padding, align_corners):
        position = position.unsqueeze(1).expand(-1, channels, -1)
        if output_mask[0]:
            weight = torch.where(inside, _product(taps), 0)
            dx = dx.scatter_add(2, position, dy * weight.unsqueeze(1))
        if output_mask[1]:
            agreement = (flat.gather(2, position) * dy).sum(1)
            agreement = torch.where(inside, agreement, 0)
            slopes = [total + agreement * _product(taps, i) for i, total in enumerate(slopes)]
    dgrid = torch.stack(slopes[::-1], -1).reshape(grid.shape) if output_mask[1] else None
    return dx.reshape(x.shape) if output_mask[0] else None, dgrid
