"""Bags of embeddings: sums, means and maxima of rows of a table, forward and backward.

Bag i takes the indices from offsets[i] to offsets[i + 1]; an index equal to `padding_idx` does not count. An
empty bag gives 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepseek.torch.decompositions import decomposition

aten = torch.ops.aten

SUM, MEAN, MAX = 0, 1, 2


def _bag_of(offsets: Tensor, count: int) -> Tensor:
    """The bag of each of `count` positions: the last one that starts there or before."""
    position = torch.arange(count, dtype=offsets.dtype)
    return (position.unsqueeze(1) >= offsets).to(torch.int64).sum(1) - 1


def _sums(rows: Tensor, bag: Tensor, bags: int) -> Tensor:
    return torch.zeros([bags, *rows.shape[1:]], dtype=rows.dtype).index_add(0, bag, rows)


def _largest(rows: Tensor, bag: Tensor, kept: Tensor, bags: int) -> tuple[Tensor, Tensor]:
    """The largest elements of each bag's rows and where they are first, `len(rows)` in an empty bag."""
    count = rows.shape[0]
    place = torch.where(kept, bag, bags).unsqueeze(1).expand(rows.shape)  # a further bag for what is left out
    empty = torch.zeros([bags + 1, rows.shape[1]], dtype=rows.dtype)
    best = empty.scatter_reduce(0, place, rows, "amax", include_self=False)
    position = torch.arange(count).unsqueeze(1).expand(rows.shape)
    attains = (rows == best.gather(0, place)) | rows.isnan()
    first = torch.full([bags + 1, rows.shape[1]], count, dtype=torch.int64)
    first = first.scatter_reduce(0, place, torch.where(attains, position, count), "amin")
    return best[:bags], first[:bags]


@decomposition(aten._embedding_bag.default, aten._embedding_bag_forward_only.default)
def _embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = SUM,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    starts = offsets[:-1] if include_last_offset else offsets
    bags = starts.shape[0]
    bag = _bag_of(starts, indices.shape[0])
    kept = indices != padding_idx
    rows = weight[indices]
    size = _sums(kept.to(torch.int64), bag, bags)
    if mode == MAX:
        largest, first = _largest(rows, bag, kept, bags)
        table = torch.cat([indices.to(torch.int64), torch.full([1], -1, dtype=torch.int64)])
        return largest, bag, size, table[first]
    wide = rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows
    if per_sample_weights is not None:
        wide = wide * per_sample_weights.unsqueeze(1)
    total = _sums(torch.where(kept.unsqueeze(1), wide, 0), bag, bags)
    if mode == MEAN:
        total = total / size.clamp(min=1).unsqueeze(1)
    return total.to(weight.dtype), bag, size, size


@decomposition(aten._embedding_bag_backward.default)
def _embedding_bag_backward(
    dy: Tensor,
    indices: Tensor,
    offsets: Tensor,
    bag: Tensor,
    size: Tensor,
    maxima: Tensor,
    count: int,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: Tensor | None,
    padding_idx: int = -1,
) -> Any:
    if sparse or scale_grad_by_freq:  # by frequency, PyTorch's results differ from its documentation
        return NotImplemented
    dweight = torch.zeros([count, dy.shape[1]], dtype=dy.dtype)
    if mode == MAX:
        row = maxima.clamp(min=0)
        return dweight.scatter_add(0, row, torch.where(maxima < 0, 0, dy).to(dy.dtype))
    if mode == MEAN:
        dy = dy / size.clamp(min=1).unsqueeze(1)
    drows = dy[bag]
    if per_sample_weights is not None:
        drows = drows * per_sample_weights.unsqueeze(1)
    drows = torch.where((indices == padding_idx).unsqueeze(1), 0, drows).to(dy.dtype)
    return dweight.index_add(0, indices, drows)


@decomposition(aten._embedding_bag_per_sample_weights_backward.default)
def _weights_backward(
    dy: Tensor,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    bag: Tensor,
    mode: int,
    padding_idx: int = -1,
) -> Tensor:
    products = (dy[bag] * weight[indices]).sum(1)
    return torch.where(indices == padding_idx, 0, products).to(dy.dtype)


@decomposition(aten.embedding_renorm.default)
def _embedding_renorm(weight: Tensor, indices: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """The rows that indices name, made no longer than `max_norm`."""
    named = torch.zeros([weight.shape[0]], dtype=torch.bool).scatter(0, indices.reshape(-1), True)
    norm = torch.linalg.vector_norm(weight, norm_type, 1)
    shrink = torch.where(named & (norm > max_norm), max_norm / (norm + 1e-7), 1)
    return weight * shrink.to(weight.dtype).unsqueeze(1)
