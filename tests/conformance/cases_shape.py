"""Cases of ops that move, join and make elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from case import Array, Case, Draw, case

ANY = ["float32", "float32", "float16", "bfloat16", "float64", "int8", "int64", "uint8"]


def values(d: Draw, shape: list[int], dtype: str | None = None) -> Array:
    dtype = dtype or d.one(ANY)
    return d.integers(shape, dtype) if "int" in dtype else d.floats(shape, dtype)


def refactored(d: Draw, count: int) -> list[int]:
    """A shape of that many elements."""
    shape = []
    for p in [2, 3, 5, 7, 2, 3, 2]:
        if count and count % p == 0 and d.flag():
            shape.append(p)
            count //= p
    shape.insert(d.integer(0, len(shape)), count)
    if d.flag():
        shape.insert(d.integer(0, len(shape)), 1)
    return shape


@case("reshape")
def reshape(d: Draw) -> Case:
    x = values(d, d.shape())
    if x.ndim and x.shape[0] and d.flag():
        rest = refactored(d, x.size // x.shape[0])
        shape = [x.shape[0], *rest]
        return Case(
            [x],
            {"shape": shape},
            lambda t: t.reshape(shape),
            symbolic=[(0, 0)],
            symbolic_attrs={"shape": ["N", *rest]},
        )
    shape = refactored(d, x.size)
    return Case([x], {"shape": shape}, lambda t: t.reshape(shape))


@case("squeeze")
def squeeze(d: Draw) -> Case:
    x = values(d, [1 if d.flag() else s for s in d.shape()])
    ones = [i for i, s in enumerate(x.shape) if s == 1]
    axes = [i for i in ones if d.flag()]
    chosen = axes or ones
    shape = [s for i, s in enumerate(x.shape) if i not in chosen]
    kept = [i for i in range(x.ndim) if i not in chosen and x.shape[i] != 1]
    return Case([x], {"axes": axes}, lambda t: t.reshape(shape), symbolic=[(0, kept[0])] if kept else [])


@case("unsqueeze")
def unsqueeze(d: Draw) -> Case:
    x = values(d, d.shape((0, 1, 2, 3)))
    rank = x.ndim + d.integer(1, 2)
    axes = d.permutation(rank)[: rank - x.ndim]
    shape = list(x.shape)
    for a in sorted(axes):
        shape.insert(a, 1)
    negative = [a - rank if d.flag() else a for a in axes]
    return Case([x], {"axes": negative}, lambda t: t.reshape(shape), symbolic=[(0, 0)] if x.ndim else [])


@case("flatten")
def flatten(d: Draw) -> Case:
    x = values(d, d.shape())
    axis = d.integer(0, x.ndim)
    shape = [int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))]
    return Case([x], {"axis": axis}, lambda t: t.reshape(shape), symbolic=[(0, 0)] if x.ndim else [])


@case("transpose")
def transpose(d: Draw) -> Case:
    x = values(d, d.shape())
    perm = d.permutation(x.ndim)
    return Case([x], {"perm": perm}, lambda t: t.permute(perm), symbolic=[(0, 0)] if x.ndim else [])


@case("broadcast_to")
def broadcast_to(d: Draw) -> Case:
    shape = d.shape()
    own = [1 if d.flag() else s for s in shape][d.integer(0, len(shape)) :]
    symbolic = [(0, len(own) - 1)] if own and own[-1] == shape[-1] and shape[-1] > 1 else []
    named = {"shape": [*shape[:-1], "N"]} if symbolic else {}
    return Case(
        [values(d, own)], {"shape": shape}, lambda t: t.expand(shape), symbolic=symbolic, symbolic_attrs=named
    )


@case("slice")
def slice_(d: Draw) -> Case:
    x = values(d, d.shape())
    starts, limits, steps = [], [], []
    for size in x.shape:
        step = d.one([1, 1, 2, 3, -1, -2]) if size else 1
        if step > 0:
            start = d.integer(0, size)
            limit = d.integer(start, size)
        else:
            start = d.integer(0, size - 1)
            limit = d.integer(-1, start)
        starts.append(start)
        limits.append(limit)
        steps.append(step)

    def expect(t: torch.Tensor) -> torch.Tensor:
        for axis, (start, limit, step) in enumerate(zip(starts, limits, steps, strict=True)):
            t = t.index_select(axis, torch.arange(start, limit, step))
        return t

    return Case(
        [x], {"starts": starts, "limits": limits, "steps": steps}, expect, symbolic=[(0, 0)] if x.ndim else []
    )


@case("reverse")
def reverse(d: Draw) -> Case:
    x = values(d, d.shape())
    axes = d.axes(x.ndim)
    return Case([x], {"axes": axes}, lambda t: torch.flip(t, axes), symbolic=[(0, 0)] if x.ndim else [])


@case("concat")
def concat(d: Draw) -> Case:
    shape = d.shape((1, 2, 3))
    axis = d.axis(len(shape))
    dtype = d.one(ANY)
    parts = []
    for _ in range(d.integer(1, 4)):
        own = list(shape)
        own[axis] = d.size(most=8)
        parts.append(values(d, own, dtype))
    other = next((i for i in range(len(shape)) if i != axis % len(shape)), None)
    symbolic = [] if other is None else [(i, other) for i in range(len(parts))]
    return Case(parts, {"axis": axis}, lambda *ts: torch.cat(ts, axis), symbolic=symbolic)


@case("stack")
def stack(d: Draw) -> Case:
    shape, dtype = d.shape((0, 1, 2, 3)), d.one(ANY)
    parts = [values(d, shape, dtype) for _ in range(d.integer(1, 3))]
    axis = d.axis(len(shape) + 1)
    symbolic = [(i, 0) for i in range(len(parts))] if shape else []
    return Case(parts, {"axis": axis}, lambda *ts: torch.stack(ts, axis), symbolic=symbolic)


@case("split")
def split(d: Draw) -> Case:
    x = values(d, d.shape((1, 2, 3)))
    axis = d.axis(x.ndim)
    sizes, left = [], x.shape[axis]
    for _ in range(d.integer(0, 2)):
        sizes.append(d.integer(0, left))
        left -= sizes[-1]
    sizes.append(left)
    return Case([x], {"sizes": sizes, "axis": axis}, lambda t: torch.split(t, sizes, axis), symbolic=[(0, 0)])


def folded(mode: str, i: int, size: int) -> int:
    """Which element numpy.pad's mode has at position i of an axis."""
    if mode == "edge":
        return min(max(i, 0), size - 1)
    if mode == "wrap":
        return i % size
    period = max(1, 2 * size - 2) if mode == "reflect" else 2 * size
    at = i % period
    return at if at < size else (period if mode == "reflect" else period - 1) - at


def padded(t: torch.Tensor, axis: int, low: int, high: int, value: float) -> torch.Tensor:
    """Negative amounts crop, down to nothing (which torch's own pad refuses)."""
    size = t.shape[axis]
    wanted = size + low + high
    first, last = max(0, -low), min(size, wanted - low)
    out = torch.full([*t.shape[:axis], wanted, *t.shape[axis + 1 :]], value, dtype=t.dtype)
    if first >= last:
        return out
    return out.index_copy(axis, torch.arange(first + low, last + low), t.narrow(axis, first, last - first))


@case("pad")
def pad(d: Draw) -> Case:
    mode = d.one(["constant", "constant", "reflect", "symmetric", "edge", "wrap"])
    x = values(d, d.shape((1, 2, 3), least=0 if mode == "constant" else 1, elements=500))
    low, high = [], []
    for size in x.shape:
        low.append(d.integer(-size if mode == "constant" else 0, 4))
        high.append(d.integer(max(-(size + low[-1]), -2) if mode == "constant" else 0, 4))
    attrs: dict[str, Any] = {"low": low, "high": high, "mode": mode}
    if mode == "constant":
        attrs["value"] = float(d.integer(0, 3))
        inner = [d.integer(0, 2) if min(lo, hi) >= 0 else 0 for lo, hi in zip(low, high, strict=True)]
        if d.flag():
            attrs["inner"] = inner

    def expect(t: torch.Tensor) -> torch.Tensor:
        for axis in range(t.ndim):
            if mode == "constant":
                gap = attrs.get("inner", [0] * t.ndim)[axis]
                size = t.shape[axis]
                if gap and size > 1:
                    wide = torch.full(
                        [*t.shape[:axis], (size - 1) * (gap + 1) + 1, *t.shape[axis + 1 :]],
                        attrs["value"],
                        dtype=t.dtype,
                    )
                    t = wide.index_copy(axis, torch.arange(size) * (gap + 1), t)
                t = padded(t, axis, low[axis], high[axis], attrs["value"])
            else:
                size = t.shape[axis]
                picks = [folded(mode, i, size) for i in range(-low[axis], size + high[axis])]
                t = t.index_select(axis, torch.tensor(picks, dtype=torch.int64))
        return t

    return Case([x], attrs, expect, slack=4, symbolic=[(0, 0)])


@case("tile")
def tile(d: Draw) -> Case:
    x = values(d, d.shape((0, 1, 2, 3), elements=300))
    repeats = [d.integer(0, 3) for _ in x.shape]
    return Case(
        [x],
        {"repeats": repeats},
        lambda t: t.repeat(repeats) if repeats else t,
        slack=4,
        symbolic=[(0, 0)] if x.ndim else [],
    )


@case("roll")
def roll(d: Draw) -> Case:
    x = values(d, d.shape((1, 2, 3)))
    axes = [d.axis(x.ndim) for _ in range(d.integer(0, 3))]
    shifts = [d.integer(-20, 20) for _ in axes]

    def expect(t: torch.Tensor) -> torch.Tensor:
        for shift, axis in zip(shifts, axes, strict=True):
            t = torch.roll(t, shift, axis)
        return t

    return Case([x], {"shifts": shifts, "axes": axes}, expect, symbolic=[(0, 0)])


# -- made --------------------------------------------------------------------------------------------------


@case("full")
def full(d: Draw) -> Case:
    shape, dtype, value = d.shape(), d.one([*ANY, "bool"]), d.integer(0, 1)
    return Case(
        [], {"shape": shape, "value": float(value), "dtype": dtype}, lambda: torch.full(shape, float(value))
    )


@case("iota")
def iota(d: Draw) -> Case:
    shape = d.shape((1, 2, 3))
    axis, dtype = d.axis(len(shape)), d.one([t for t in ANY if t != "bfloat16"])

    def expect() -> torch.Tensor:
        view = [1] * len(shape)
        view[axis] = -1 if shape[axis] else 0
        return torch.arange(shape[axis]).reshape(view).expand(shape).double()

    return Case([], {"shape": shape, "axis": axis, "dtype": dtype}, expect)


@case("dim_value")
def dim_value(d: Draw) -> Case:
    size, dtype = d.size(), d.one(["int64", "int32", "float32"])
    return Case([], {"dim": [size], "dtype": dtype}, lambda: torch.tensor(size).double())


@case("shape_of")
def shape_of(d: Draw) -> Case:
    x = values(d, d.shape())
    return Case(
        [x], {}, lambda t: torch.tensor(list(t.shape), dtype=torch.int64), symbolic=[(0, 0)] if x.ndim else []
    )


@case("one_hot")
def one_hot(d: Draw) -> Case:
    depth = d.size(1, 16)
    x = d.integers(d.shape((0, 1, 2, 3), elements=300), "int64", -depth - 2, depth + 1)
    axis = d.axis(x.ndim + 1)
    on, off = float(d.integer(1, 3)), float(d.integer(-1, 0))

    def expect(t: torch.Tensor) -> torch.Tensor:
        index = torch.where(t < 0, t + depth, t).unsqueeze(axis)
        view = [1] * index.ndim
        view[axis] = depth
        hit = index == torch.arange(depth).reshape(view)
        return torch.where(hit, on, off).double()

    return Case(
        [x],
        {"depth": depth, "axis": axis, "on": on, "off": off},
        expect,
        differentiable=[],
        symbolic=[(0, 0)] if x.ndim else [],
    )


@case("triangular")
def triangular(d: Draw) -> Case:
    x = values(d, d.shape((2, 3)))
    upper, k = d.flag(), d.integer(-4, 4)
    fn = torch.triu if upper else torch.tril
    return Case([x], {"upper": upper, "k": k}, lambda t: fn(t, k), symbolic=[(0, 0)])
