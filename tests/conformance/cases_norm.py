"""Cases of normalisations."""

from __future__ import annotations

from typing import Any

import torch
from case import Array, Case, Draw, case
from torch.nn import functional as F

EPSILON = 1e-3


@case("softmax", "log_softmax")
def softmax(d: Draw) -> Case:
    x = d.floats(d.shape((1, 2, 3)), d.dtype(), -9, 9)
    axis = d.axis(x.ndim)
    return Case([x], {"axis": axis}, lambda t: getattr(torch, d.op)(t, axis), 10, symbolic=[(0, 0)])


def optional(d: Draw, shape: list[int], dtype: str) -> list[Array | None]:
    """Scale and bias, either of which may be absent."""
    parts = [d.floats(shape, dtype) if d.flag() else None, d.floats(shape, dtype) if d.flag() else None]
    while parts and parts[-1] is None:
        parts.pop()
    return parts


def affine(y: torch.Tensor, scale: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


@case("layer_norm", "rms_norm")
def layer_norm(d: Draw) -> Case:
    dtype = d.one(["float32", "float32", "float64", "bfloat16"])
    x = d.floats(d.shape((1, 2, 3), least=1), dtype, -2, 2)
    axis = d.axis(x.ndim)
    over = list(range(axis % x.ndim, x.ndim))
    parts = optional(d, [x.shape[i] for i in over], dtype)
    centred = d.op == "layer_norm"
    if not centred:
        parts = parts[:1]

    def expect(t: torch.Tensor, scale: Any = None, bias: Any = None) -> tuple[torch.Tensor, ...]:
        mean = t.mean(over, keepdim=True)
        rest = t - mean if centred else t
        r = torch.rsqrt((rest * rest).mean(over, keepdim=True) + EPSILON)
        y = affine(rest * r, scale, bias)
        return (y, mean, r) if centred else (y, r)

    return Case(
        [x, *parts],
        {"axis": axis, "epsilon": EPSILON},
        expect,
        20,
        symbolic=[(0, 0)] if axis % x.ndim > 0 else [],
    )


def by_channel(v: torch.Tensor | None, rank: int, axis: int) -> torch.Tensor | None:
    if v is None:
        return None
    view = [1] * rank
    view[axis] = -1
    return v.reshape(view)


@case("batch_norm", "batch_norm_training")
def batch_norm(d: Draw) -> Case:
    dtype = d.one(["float32", "float32", "float64", "bfloat16"])
    x = d.floats(d.shape((2, 3, 4), least=2, elements=2000), dtype, -2, 2)
    axis = d.integer(0, x.ndim - 1)
    channels = x.shape[axis]
    over = [i for i in range(x.ndim) if i != axis]
    parts = optional(d, [channels], dtype)
    attrs = {"axis": axis, "epsilon": EPSILON}
    symbolic = [(0, over[0])]

    def normalize(
        t: torch.Tensor, scale: Any, bias: Any, mean: torch.Tensor, variance: torch.Tensor
    ) -> torch.Tensor:
        m, v = by_channel(mean, t.ndim, axis), by_channel(variance, t.ndim, axis)
        y = (t - m) * torch.rsqrt(v + EPSILON)
        return affine(y, by_channel(scale, t.ndim, axis), by_channel(bias, t.ndim, axis))

    if d.op == "batch_norm":
        parts = [*parts, None, None][:2]
        return Case(
            [x, *parts, d.floats([channels], dtype), d.floats([channels], dtype, 0.5, 2)],
            attrs,
            normalize,
            20,
            symbolic=symbolic,
        )

    def training(t: torch.Tensor, scale: Any = None, bias: Any = None) -> tuple[torch.Tensor, ...]:
        mean, variance = t.mean(over), t.var(over, correction=0)
        return normalize(t, scale, bias, mean, variance), mean, variance, torch.rsqrt(variance + EPSILON)

    return Case([x, *parts], attrs, training, 40, symbolic=symbolic)


@case("group_norm", "instance_norm")
def group_norm(d: Draw) -> Case:
    groups, each = d.integer(1, 3), d.integer(1, 4)
    shape = [d.integer(1, 2), groups * each, *[d.integer(2, 5) for _ in range(d.integer(1, 2))]]
    dtype = d.one(["float32", "float32", "float64", "bfloat16"])
    x = d.floats(shape, dtype, -2, 2)
    attrs: dict[str, Any] = {"epsilon": EPSILON}
    if d.op == "group_norm":
        attrs["groups"] = groups
    count = groups if d.op == "group_norm" else shape[1]

    def expect(t: torch.Tensor, scale: Any = None, bias: Any = None) -> tuple[torch.Tensor, ...]:
        rows = t.reshape(t.shape[0], count, -1)
        mean, variance = rows.mean(-1), rows.var(-1, correction=0)
        return F.group_norm(t, count, scale, bias, EPSILON), mean, torch.rsqrt(variance + EPSILON)

    return Case([x, *optional(d, [shape[1]], dtype)], attrs, expect, 40, symbolic=[(0, d.one([0, 2]))])


@case("lrn")
def lrn(d: Draw) -> Case:
    x = d.floats([d.integer(1, 2), d.integer(1, 9), *[d.integer(1, 4) for _ in range(d.integer(0, 2))]])
    size, alpha, beta, k = d.integer(1, 5), 0.5, 0.75, 1.0

    def expect(t: torch.Tensor) -> torch.Tensor:
        squares = F.pad((t * t).transpose(1, -1), [(size - 1) // 2, size // 2]).unfold(-1, size, 1).sum(-1)
        return t / (k + alpha / size * squares.transpose(1, -1)) ** beta

    return Case([x], {"size": size, "alpha": alpha, "beta": beta, "k": k}, expect, 10, symbolic=[(0, 0)])
