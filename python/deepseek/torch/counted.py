"""Ops whose results are as long as the data say: results of the greatest length, and views of their fronts.

The views are PyTorch's, of a length that is read from a result; what they are views of is computed by pieces.
Dynamo hands such ops over with `torch._dynamo.config.capture_dynamic_output_shape_ops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deepseek.torch.decompositions import decomposition

aten = torch.ops.aten

MOST_COMPARED = 1 << 24  # elements of rows that are compared, all with all


@torch.library.custom_op("deepseek::length", mutates_args=())
def _length(count: torch.Tensor, most: int) -> int:
    """Reads a length from a result of a piece."""
    return int(count)


@_length.register_fake
def _length_fake(count: torch.Tensor, most: int) -> Any:
    return torch.library.get_ctx().new_dynamic_size(min=0, max=most)


LENGTH = torch.ops.deepseek.length.default


def _symbolic(*tensors: Tensor) -> bool:
    """Whether the most that there may be is not known: PyTorch runs the op then."""
    return any(isinstance(size, torch.SymInt) for x in tensors for size in x.shape)


def _front(x: Tensor, count: Tensor) -> Tensor:
    """The first `count` elements of x, which has two or more: PyTorch takes so many to be possible."""
    y: Tensor = aten.slice.Tensor(x, 0, 0, LENGTH(count, x.shape[0]))
    return y


# -- elements that hold


def _compacted(holds: Tensor, values: Tensor) -> Tensor:
    """Those of `values` where the mask holds, first ones first; one or more others after them. Both have one
    axis.
    """
    size = holds.shape[0]
    order = holds.to(torch.int64).cumsum(0) - 1
    row = torch.where(holds, order, size)
    return torch.zeros([size + 1], dtype=values.dtype).scatter(0, row, values)


@decomposition(aten.nonzero.default)
def _nonzero(x: Tensor) -> Any:
    if _symbolic(x):
        return NotImplemented
    if x.numel() == 0:
        return torch.zeros([0, x.dim()], dtype=torch.int64)
    holds = x.reshape(-1) != 0
    if x.dim() == 0:
        return _front(torch.zeros([2, 0], dtype=torch.int64), holds.sum())
    rest = _compacted(holds, torch.arange(x.numel()))
    columns = []
    for extent in reversed(x.shape):
        columns.append(rest % extent)
        rest = rest // extent
    return _front(torch.stack(columns[::-1], 1), holds.sum())


@decomposition(aten.masked_select.default)
def _masked_select(x: Tensor, mask: Tensor) -> Any:
    if _symbolic(x, mask):
        return NotImplemented
    x, mask = aten.broadcast_tensors.default([x, mask])
    if x.numel() == 0:
        return NotImplemented  # PyTorch takes the length to be unknown
    holds = mask.reshape(-1)
    return _front(_compacted(holds, x.reshape(-1)), holds.sum())


# -- elements that differ


def _groups(
    values: Tensor, group: Tensor, place: Tensor, inverse: bool, counts: bool, axis: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """One of each group's elements, groups in order along `axis`; the group of each place; the groups' sizes.

    The elements of `values` lie along its first axis.
    """
    size = values.shape[0]
    length = LENGTH(group.amax() + 1, size)
    index = group.reshape(-1, *([1] * (values.dim() - 1))).expand(values.shape)
    firsts = torch.zeros_like(values).scatter(0, index, values)
    sizes = torch.zeros([size], dtype=torch.int64).scatter_add(0, group, torch.ones_like(group))
    firsts = aten.slice.Tensor(firsts.movedim(0, axis), axis, 0, length)
    sizes = aten.slice.Tensor(sizes, 0, 0, length)
    nothing = torch.zeros([0], dtype=torch.int64)
    of_place = torch.zeros_like(group).scatter(0, place, group) if inverse else nothing
    return firsts, of_place, sizes if counts else nothing


def _nothing(x: Tensor, places: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """The groups of no elements."""
    of_place, sizes = torch.zeros(list(places), dtype=torch.int64), torch.zeros([0], dtype=torch.int64)
    return x.new_zeros([0]), of_place, sizes


def _numbered(differs: Tensor) -> Tensor:
    """Numbers groups of equal neighbours; `differs` tells each element but the first from the one before."""
    return torch.cat([torch.zeros([1], dtype=torch.int64), differs.to(torch.int64).cumsum(0)])


@decomposition(aten._unique2.default)
def _unique(x: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False) -> Any:
    if _symbolic(x):
        return NotImplemented
    if x.numel() == 0:
        return _nothing(x, x.shape if return_inverse else [0])
    values, order = x.reshape(-1).sort(stable=True)
    group = _numbered(values[1:] != values[:-1])
    firsts, of_place, sizes = _groups(values, group, order, return_inverse, return_counts)
    return firsts, of_place.reshape(x.shape) if return_inverse else of_place, sizes


@decomposition(aten.unique_consecutive.default)
def _unique_consecutive(
    x: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    if _symbolic(x):
        return NotImplemented
    if x.numel() == 0:
        return _nothing(x, x.shape if return_inverse else [0]) if dim is None else NotImplemented
    if dim is not None:
        values = x.movedim(dim, 0)
        rows = values.reshape(values.shape[0], -1)
        group = _numbered((rows[1:] != rows[:-1]).any(1))
        return _groups(values, group, torch.arange(rows.shape[0]), True, True, axis=dim % x.dim())
    values = x.reshape(-1)
    group = _numbered(values[1:] != values[:-1])
    place = torch.arange(values.shape[0])
    firsts, of_place, sizes = _groups(values, group, place, return_inverse, return_counts)
    return firsts, of_place.reshape(x.shape) if return_inverse else of_place, sizes


@decomposition(aten.unique_dim.default)
def _unique_dim(
    x: Tensor, dim: int, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False
) -> Any:
    """A row's group is how many of the rows that are first of their kind are less than it."""
    if _symbolic(x):
        return NotImplemented
    values = x.movedim(dim, 0)
    if x.numel() == 0 or values.shape[0] > MOST_COMPARED // x.numel():
        return NotImplemented
    rows = values.reshape(values.shape[0], -1)
    size, width = rows.shape
    differ = rows.unsqueeze(0) != rows.unsqueeze(1)  # [row, other, column]
    column = torch.where(differ, torch.arange(width), width).amin(2).clamp(max=width - 1)
    other = rows.unsqueeze(0).expand(size, size, width).gather(2, column.unsqueeze(2)).squeeze(2)
    less = other < rows.gather(1, column)  # whether the other row is less
    earlier = torch.arange(size).unsqueeze(0) < torch.arange(size).unsqueeze(1)
    first = ~(~differ.any(2) & earlier).any(1)
    group = (less & first.unsqueeze(0)).to(torch.int64).sum(1)
    return _groups(values, group, torch.arange(size), True, True, axis=dim % x.dim())
