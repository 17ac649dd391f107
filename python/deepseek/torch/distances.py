"""Distances between vectors, and products of three tensors, in ops that we have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepseek.torch.decompositions import decomposition

aten = torch.ops.aten

# -- distances


def _differences(x: Tensor, y: Tensor) -> Tensor:
    return x.unsqueeze(-2) - y.unsqueeze(-3)


def _norm_of(difference: Tensor, p: float) -> Tensor:
    size = difference.abs()
    if p == 0:
        return (size != 0).to(size.dtype).sum(-1)
    if p == 1:
        return size.sum(-1)
    if p == 2:
        return (size * size).sum(-1).sqrt()
    if p == float("inf"):
        if size.shape[-1] == 0:
            return size.new_zeros(size.shape[:-1])
        return size.amax(-1)
    return size.pow(p).sum(-1).pow(1 / p)


def _norm_slope(difference: Tensor, distance: Tensor, p: float) -> Tensor:
    """The gradient of the norm for its difference; 0 where the distance is 0."""
    distance = distance.unsqueeze(-1)
    nothing = torch.zeros((), dtype=difference.dtype)
    if p == 0:
        return torch.zeros_like(difference)
    if p == 1:
        return difference.sign()
    if p == float("inf"):
        return difference.sign() * (difference.abs() == distance)
    unit = difference / distance
    slope = unit if p == 2 else difference.sign() * unit.abs().pow(p - 1)
    flat = distance == 0
    return torch.where(flat | (difference == 0) if p < 1 else flat, nothing, slope)


@decomposition(aten._cdist_forward.default)
def _cdist(x: Tensor, y: Tensor, p: float, mode: int | None) -> Tensor:
    return _norm_of(_differences(x, y), p)


@decomposition(aten._cdist_backward.default)
def _cdist_backward(dy: Tensor, x: Tensor, y: Tensor, p: float, distance: Tensor) -> Tensor:
    return (dy.unsqueeze(-1) * _norm_slope(_differences(x, y), distance, p)).sum(-2)


def _pairs(count: int) -> tuple[Tensor, Tensor]:
    first, second = torch.triu_indices(count, count, 1)
    return first, second


@decomposition(aten._pdist_forward.default)
def _pdist(x: Tensor, p: float = 2) -> Tensor:
    first, second = _pairs(x.shape[0])
    return _norm_of(x[first] - x[second], p)


@decomposition(aten._pdist_backward.default)
def _pdist_backward(dy: Tensor, x: Tensor, p: float, distance: Tensor) -> Tensor:
    first, second = _pairs(x.shape[0])
    slope = dy.unsqueeze(-1) * _norm_slope(x[first] - x[second], distance, p)
    return torch.zeros_like(x).index_add(0, first, slope).index_add(0, second, -slope)


# -- products


@decomposition(aten.addbmm.default)
def _addbmm(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = torch.bmm(a, b).sum(0)
    if alpha != 1:
        product = product * alpha
    return product if beta == 0 else x * beta + product


@decomposition(aten._trilinear.default)
def _trilinear(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Tensor:
    for axes, name in ((expand1, "a"), (expand2, "b"), (expand3, "c")):
        for axis in sorted(axes):
            if name == "a":
                a = a.unsqueeze(axis)
            elif name == "b":
                b = b.unsqueeze(axis)
            else:
                c = c.unsqueeze(axis)
    product = a * b * c
    return product.sum(list(sumdim), dtype=product.dtype) if sumdim else product
