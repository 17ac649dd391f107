"""Reductions of segments, and histograms."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deepseek.torch.decompositions import decomposition

aten = torch.ops.aten

# -- segments


def _segment_bounds(lengths: Tensor | None, offsets: Tensor | None) -> tuple[Tensor, Tensor]:
    if offsets is None:
        assert lengths is not None
        ends = lengths.cumsum(-1)
        return ends - lengths, ends
    return offsets[..., :-1], offsets[..., 1:]


def _in_segment(x: Tensor, axis: int, lengths: Tensor | None, offsets: Tensor | None) -> Tensor:
    """[batch axes ..., segments, x's axis, 1 ...]: whether a position lies in a segment."""
    begin, end = _segment_bounds(lengths, offsets)
    position = torch.arange(x.shape[axis])
    inside = (begin.unsqueeze(-1) <= position) & (position < end.unsqueeze(-1))
    return inside.reshape(*inside.shape, *([1] * (x.dim() - axis - 1)))


@decomposition(aten.segment_reduce.default)
def _segment_reduce(
    x: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    indices: Tensor | None = None,
    offsets: Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Any:
    if indices is not None:
        return NotImplemented
    inside = _in_segment(x, axis, lengths, offsets)
    start = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "max": -float("inf"), "min": float("inf")}[reduce]
    parts = torch.where(inside, x.unsqueeze(axis), torch.full((), start, dtype=x.dtype))
    along = axis + 1
    count = inside.to(torch.int64).sum(along)
    if reduce in ("sum", "mean"):
        total = parts.sum(along) if initial is None else parts.sum(along) + initial
        if reduce == "sum":
            return total
        if initial is None:
            return total / count
        return torch.where(count == 0, total, total / torch.clamp(count, min=1))
    if reduce == "prod":
        return parts.prod(along) if initial is None else parts.prod(along) * initial
    total = parts.amax(along) if reduce == "max" else parts.amin(along)
    if initial is None:
        return total
    bound = torch.full((), initial, dtype=x.dtype)
    return torch.maximum(total, bound) if reduce == "max" else torch.minimum(total, bound)


@decomposition(aten._segment_reduce_backward.default)
def _segment_reduce_backward(
    dy: Tensor,
    y: Tensor,
    x: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    offsets: Tensor | None = None,
    axis: int = 0,
    initial: float | None = None,
) -> Tensor:
    inside = _in_segment(x, axis, lengths, offsets)
    wide_dy, wide_y, wide_x = dy.unsqueeze(axis + 1), y.unsqueeze(axis + 1), x.unsqueeze(axis)
    nothing = torch.zeros((), dtype=x.dtype)
    if reduce in ("max", "min"):
        chosen = inside & ((wide_x == wide_y) | wide_x.isnan())
        share = wide_dy / torch.clamp(chosen.to(torch.int64).sum(axis + 1, keepdim=True), min=1)
        return torch.where(chosen, share, nothing).sum(axis)
    if reduce == "mean":
        wide_dy = wide_dy / torch.clamp(inside.to(torch.int64).sum(axis + 1, keepdim=True), min=1)
    if reduce == "prod":
        one = torch.ones((), dtype=x.dtype)
        parts = torch.where(inside, wide_x, one)
        before = _exclusive_products(parts, axis + 1)
        after = _exclusive_products(parts.flip(axis + 1), axis + 1).flip(axis + 1)
        wide_dy = wide_dy * before * after * (1.0 if initial is None else initial)
    return torch.where(inside, wide_dy, nothing).sum(axis)


def _exclusive_products(x: Tensor, axis: int) -> Tensor:
    first = torch.ones_like(x.narrow(axis, 0, min(1, x.shape[axis])))
    rest = x.narrow(axis, 0, max(x.shape[axis] - 1, 0))
    return torch.cat([first, rest], axis).cumprod(axis)


# -- histograms


def _edges(flat: Tensor, bins: int, range: Sequence[float] | None) -> Tensor:
    """bins + 1 numbers, evenly spaced over the range or, without one, over what there is."""
    if range is not None:
        low, high = (torch.full((), float(end), dtype=flat.dtype) for end in range)
    elif flat.shape[0] == 0:
        low, high = torch.zeros((), dtype=flat.dtype), torch.ones((), dtype=flat.dtype)
    else:
        low, high = flat.min(), flat.max()
    same = low == high
    low, high = torch.where(same, low - 0.5, low), torch.where(same, high + 0.5, high)
    return torch.linspace(low, high, bins + 1, dtype=flat.dtype)


def _bin_of(x: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """The bin of each element between sorted edges, and whether it has one; the last bin holds its end."""
    bins = edges.shape[0] - 1
    position = torch.searchsorted(edges, x, right=True) - 1
    position = torch.where(x == edges[-1], bins - 1, position)
    inside = (x >= edges[0]) & (x <= edges[-1])
    return torch.clamp(position, 0, bins - 1), inside


def _weights(x: Tensor, weight: Tensor | None, inside: Tensor) -> Tensor:
    return inside.to(x.dtype) if weight is None else weight.reshape(-1) * inside


def _histogram_with(x: Tensor, edges: Tensor, weight: Tensor | None, density: bool) -> tuple[Tensor, Tensor]:
    flat = x.reshape(-1)
    place, inside = _bin_of(flat, edges)
    total = torch.zeros(edges.shape[0] - 1, dtype=x.dtype)
    total = total.index_add(0, place, _weights(flat, weight, inside))
    return (total / total.sum() / edges.diff() if density else total), edges


@decomposition(aten.histogram.bin_ct)
def _histogram(
    x: Tensor,
    bins: int = 100,
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    return _histogram_with(x, _edges(x.reshape(-1), bins, range), weight, density)


@decomposition(aten.histogram.bins_tensor)
def _histogram_of_edges(
    x: Tensor, bins: Tensor, *, weight: Tensor | None = None, density: bool = False
) -> Any:
    return _histogram_with(x, bins, weight, density)


def _all_edges(x: Tensor, bins: Sequence[int], range: Sequence[float] | None) -> list[Tensor]:
    rows = x.reshape(-1, x.shape[-1])
    pairs = [None if range is None else range[2 * i : 2 * i + 2] for i in builtins.range(len(bins))]
    return [_edges(rows[:, i], count, pair) for i, (count, pair) in enumerate(zip(bins, pairs, strict=True))]


@decomposition(aten._histogramdd_bin_edges.default)
def _histogram_edges(
    x: Tensor,
    bins: Sequence[int],
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    return _all_edges(x, bins, range)


@decomposition(aten._histogramdd_from_bin_cts.default)
def _histogram_of_vectors(
    x: Tensor,
    bins: Sequence[int],
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    rows = x.reshape(-1, x.shape[-1])
    edges = _all_edges(x, bins, range)
    place, within = torch.zeros(rows.shape[0], dtype=torch.int64), torch.ones(rows.shape[0], dtype=torch.bool)
    for i, (count, ends) in enumerate(zip(bins, edges, strict=True)):
        position, inside = _bin_of(rows[:, i], ends)
        place, within = place * count + position, within & inside
    total = torch.zeros(math.prod(bins), dtype=x.dtype).index_add(0, place, _weights(x, weight, within))
    total = total.reshape(list(bins))
    if not density:
        return total
    total = total / total.sum()
    for i, ends in enumerate(edges):
        total = total / ends.diff().reshape([-1 if k == i else 1 for k in builtins.range(len(bins))])
    return total


@decomposition(aten.histc.default)
def _histc(x: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    flat = x.reshape(-1)
    low, high = torch.full((), float(min), dtype=x.dtype), torch.full((), float(max), dtype=x.dtype)
    if min == max and flat.shape[0] > 0:
        low, high = flat.min(), flat.max()
    same = low == high
    low, high = torch.where(same, low - 1, low), torch.where(same, high + 1, high)
    place = ((flat - low) * bins / (high - low)).to(torch.int64)
    place = torch.where(flat == high, bins - 1, place)
    inside = (flat >= low) & (flat <= high)
    place = torch.clamp(place, 0, bins - 1)
    return torch.zeros(bins, dtype=x.dtype).index_add(0, place, inside.to(x.dtype))
