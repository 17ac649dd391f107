"""Cases of reductions, scans and sorts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from case import FLOATS, Case, Draw, case

REAL = ["float32", "float32", "float64", "float16", "int32", "int64", "int8"]


def over(d: Draw, rank: int) -> tuple[list[int], list[int], bool]:
    """The attribute axes, the axes meant, keepdims."""
    axes = d.axes(rank)
    meant = axes or list(range(rank))
    return [a - rank if d.flag() else a for a in axes], meant, d.flag()


@case("sum", "mean", "prod", "max", "min")
def reduction(d: Draw) -> Case:
    dtype = d.one(REAL if d.op != "mean" else FLOATS)
    least = 1 if d.op in ("max", "min", "mean") else 0
    shape = d.shape(least=least)
    if "int" in dtype:
        x = d.integers(shape, dtype, -2, 2)
    else:
        x = (
            d.floats(shape, dtype, 0.5, 1.2)
            if d.op == "prod"
            else d.floats(shape, dtype, special=d.op in ("max", "min"))
        )
    axes, meant, keepdims = over(d, x.ndim)

    def expect(t: torch.Tensor) -> torch.Tensor:
        if not meant:
            return t
        if d.op == "prod":
            for a in sorted(meant, reverse=True):
                t = torch.prod(t, a, keepdim=True, dtype=t.dtype)
            return t if keepdims else t.reshape([s for i, s in enumerate(t.shape) if i not in meant])
        if d.op in ("max", "min"):
            return getattr(torch, "a" + d.op)(t, meant, keepdim=keepdims)
        wide = t if t.is_floating_point() else t.long()
        y = getattr(torch, d.op)(wide, meant, keepdim=keepdims)
        return y if t.is_floating_point() else y.to(t.dtype)

    return Case(
        [x], {"axes": axes, "keepdims": keepdims}, expect, slack=30, symbolic=[(0, 0)] if x.ndim else []
    )


@case("any", "all")
def truth(d: Draw) -> Case:
    x = d.bools(d.shape())
    axes, meant, keepdims = over(d, x.ndim)

    def expect(t: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(
            np.asarray(getattr(np, d.op)(t.numpy(), axis=tuple(meant), keepdims=keepdims))
        )

    return Case([x], {"axes": axes, "keepdims": keepdims}, expect, symbolic=[(0, 0)] if x.ndim else [])


@case("var", "logsumexp", "norm")
def statistic(d: Draw) -> Case:
    x = d.floats(d.shape(least=2 if d.op == "var" else 1), d.dtype(), -2, 2)
    axes, meant, keepdims = over(d, x.ndim)
    attrs: dict[str, object] = {"axes": axes, "keepdims": keepdims}
    if d.op == "var":
        attrs["correction"] = correction = float(d.integer(0, 1)) if x.ndim else 0.0
        return Case(
            [x],
            attrs,
            lambda t: (
                torch.var(t, meant, correction=correction, keepdim=keepdims) if meant else torch.zeros_like(t)
            ),
            30,
            symbolic=[(0, 0)] if x.ndim else [],
        )
    if d.op == "logsumexp":
        return Case(
            [x],
            attrs,
            lambda t: torch.logsumexp(t, meant, keepdim=keepdims) if meant else t,
            30,
            symbolic=[(0, 0)] if x.ndim else [],
        )
    attrs["p"] = p = d.one([1.0, 2.0, 3.0, float("inf")])
    return Case(
        [x],
        attrs,
        lambda t: torch.linalg.vector_norm(t, p, meant, keepdim=keepdims) if meant else t.abs(),
        30,
        symbolic=[(0, 0)] if x.ndim else [],
    )


@case("argmax", "argmin")
def arg(d: Draw) -> Case:
    shape = d.shape((1, 2, 3), least=1)
    x = d.integers(shape, "int32", -3, 3) if d.flag() else d.floats(shape, d.dtype(), special=True)
    axis, keepdims, last = d.axis(x.ndim), d.flag(), d.flag()

    def expect(t: torch.Tensor) -> torch.Tensor:
        a = t.numpy()
        fn = getattr(np, d.op)
        if last:
            y = a.shape[axis] - 1 - fn(np.flip(a, axis), axis=axis, keepdims=keepdims)
        else:
            y = fn(a, axis=axis, keepdims=keepdims)
        return torch.from_numpy(np.asarray(y))

    attrs = {"axis": axis, "keepdims": keepdims, "select_last_index": last}
    return Case([x], attrs, expect, symbolic=[(0, 0)], differentiable=[])


@case("cumsum", "cumprod")
def scan(d: Draw) -> Case:
    shape, dtype = d.shape((1, 2, 3)), d.one(REAL)
    x = d.integers(shape, dtype, -2, 2) if "int" in dtype else d.floats(shape, dtype, 0.8, 1.2)
    axis, exclusive, reverse = d.axis(x.ndim), d.flag(), d.flag()

    def expect(t: torch.Tensor) -> torch.Tensor:
        if reverse:
            t = torch.flip(t, [axis])
        y = getattr(torch, d.op)(t, axis, dtype=t.dtype)
        if exclusive and t.shape[axis]:
            start = torch.full_like(t.narrow(axis, 0, 1), 0 if d.op == "cumsum" else 1)
            y = torch.cat([start, y.narrow(axis, 0, t.shape[axis] - 1)], axis)
        return torch.flip(y, [axis]) if reverse else y

    attrs = {"axis": axis, "exclusive": exclusive, "reverse": reverse}
    return Case([x], attrs, expect, slack=30, symbolic=[(0, 0)])


@case("cummax", "cummin", "logcumsumexp")
def running(d: Draw) -> Case:
    dtype = d.one(["float32", "float64"] if d.op == "logcumsumexp" else REAL)
    shape = d.shape((1, 2, 3))
    x = d.integers(shape, dtype, -2, 2) if "int" in dtype else d.floats(shape, dtype, special=True)
    axis = d.axis(x.ndim)

    def expect(t: torch.Tensor) -> Any:
        y = getattr(torch, d.op)(t, axis)
        return y if isinstance(y, torch.Tensor) else tuple(y)

    return Case([x], {"axis": axis}, expect, slack=10, symbolic=[(0, 0)], differentiable=[])


@case("sort", "topk")
def order(d: Draw) -> Case:
    shape = d.shape((1, 2, 3), least=0 if d.op == "sort" else 1)
    axis = d.axis(len(shape))
    dtype = d.one(["int32", "int8", "float32", "float64", "float16"])
    x = d.integers(shape, dtype, -3, 3) if "int" in dtype else d.floats(shape, dtype, special=True)
    descending = d.flag()
    kept = x.shape[axis] if d.op == "sort" else d.integer(0, x.shape[axis])
    attrs = (
        {"axis": axis, "descending": descending}
        if d.op == "sort"
        else {"axis": axis, "largest": descending, "k": kept}
    )

    def expect(t: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, index = torch.sort(t, dim=axis, descending=descending, stable=True)
        return y.narrow(axis, 0, kept), index.narrow(axis, 0, kept)

    other = next((i for i in range(len(shape)) if i != axis % len(shape)), None)
    return Case([x], attrs, expect, symbolic=[] if other is None else [(0, other)])


@case("nonzero")
def nonzero(d: Draw) -> Case:
    x = d.integers(d.shape((0, 1, 2, 3)), d.one(["int8", "int64"]), -1, 1) if d.flag() else d.bools(d.shape())
    return Case(
        [x],
        {},
        lambda t: torch.from_numpy(
            np.stack(np.atleast_1d(t.numpy()).nonzero())
            if x.ndim
            else np.zeros((0, int(t.item() != 0)), "int64")
        ),
        symbolic=[(0, 0)] if x.ndim else [],
    )
