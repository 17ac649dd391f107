"""Cases of ops whose positions are computed: gathers, scatters, dynamic slices, recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from case import Array, Case, Draw, case

DTYPES = ["float32", "float32", "float64", "float16", "int32", "int64"]


def values(d: Draw, shape: list[int], dtype: str) -> Array:
    return d.integers(shape, dtype) if "int" in dtype else d.floats(shape, dtype)


def wrapped(index: torch.Tensor, size: int) -> torch.Tensor:
    index = index.long()
    return torch.where(index < 0, index + size, index)


@case("gather")
def gather(d: Draw) -> Case:
    x = values(d, d.shape((1, 2, 3), least=1), d.one(DTYPES))
    axis = d.axis(x.ndim)
    index = d.indices(d.shape((0, 1, 2), elements=60), x.shape[axis])

    def expect(t: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        at = axis % t.ndim
        flat = torch.index_select(t, at, wrapped(i, t.shape[at]).reshape(-1))
        return flat.reshape([*t.shape[:at], *i.shape, *t.shape[at + 1 :]])

    return Case([x, index], {"axis": axis}, expect, 10, symbolic=[(1, 0)] if index.ndim else [(0, 0)])


@case("gather_elements")
def gather_elements(d: Draw) -> Case:
    x = values(d, d.shape((1, 2, 3), least=1), d.one(DTYPES))
    axis = d.axis(x.ndim)
    shape = [d.size(most=8) if i == axis % x.ndim else d.integer(0, s) for i, s in enumerate(x.shape)]
    index = d.indices(shape, x.shape[axis])
    return Case(
        [x, index],
        {"axis": axis},
        lambda t, i: torch.gather(t, axis, wrapped(i, t.shape[axis])),
        10,
        symbolic=[(0, axis % x.ndim)],
    )


@case("gather_nd")
def gather_nd(d: Draw) -> Case:
    x = values(d, d.shape((1, 2, 3), least=1), d.one(DTYPES))
    batch = d.integer(0, x.ndim - 1)
    count = d.integer(0, x.ndim - batch)
    leading = [*x.shape[:batch], *[d.size(most=5) for _ in range(d.integer(0, 2))]]
    columns = [d.indices(leading, x.shape[batch + k]).astype("int64") for k in range(count)]
    index = np.stack(columns, -1) if columns else np.zeros([*leading, 0], "int64")

    def expect(t: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        rank = i.ndim - 1
        picks: list[Any] = []
        for axis in range(batch):
            view = [1] * rank
            view[axis] = -1
            picks.append(torch.arange(t.shape[axis]).reshape(view).expand(leading))
        picks += [wrapped(i[..., k], t.shape[batch + k]) for k in range(count)]
        return t[tuple(picks)] if picks else t.expand([*leading, *t.shape])

    return Case([x, index], {"batch_dims": batch}, expect, symbolic=[(0, x.ndim - 1)], differentiable=[])


def combine(
    t: torch.Tensor, at: tuple[torch.Tensor, ...], updates: torch.Tensor, reduction: str
) -> torch.Tensor:
    """Applies updates one by one, in row-major order."""
    if reduction == "none":
        return t.index_put(at, updates)
    if reduction == "add":
        return t.index_put(at, updates, accumulate=True)
    y = t.clone()
    rows = torch.stack([a.reshape(-1) for a in at], -1) if at else torch.zeros((1, 0), dtype=torch.int64)
    parts = updates.reshape(len(rows), *updates.shape[updates.ndim - (t.ndim - len(at)) :])
    for row, part in zip(rows, parts, strict=True):
        place = tuple(row.tolist())
        fn = {"mul": torch.mul, "max": torch.maximum, "min": torch.minimum}[reduction]
        y[place] = fn(y[place], part)
    return y


REDUCTIONS = ["none", "add", "mul", "max", "min"]


@case("scatter_elements")
def scatter_elements(d: Draw) -> Case:
    dtype, reduction = d.one(DTYPES), d.one(REDUCTIONS)
    x = values(d, d.shape((1, 2, 3), least=1, elements=200), dtype)
    axis = d.axis(x.ndim)
    shape = [d.integer(0, s) for s in x.shape]
    if reduction == "none":  # where two updates meet one element torch does not say which one wins
        index = np.argsort(
            d.floats([*shape[: axis % x.ndim], x.shape[axis], *shape[axis % x.ndim + 1 :]]), axis
        )
        index = np.take(index, np.arange(shape[axis]), axis)
    else:
        index = d.indices(shape, x.shape[axis]).astype("int64")
    updates = values(d, shape, dtype)

    def expect(t: torch.Tensor, i: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        i = wrapped(i, t.shape[axis])
        if reduction == "none":
            return t.scatter(axis, i, u)
        name = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}[reduction]
        return t.scatter_reduce(axis, i, u, name)

    return Case(
        [x, index, updates],
        {"axis": axis, "reduction": reduction},
        expect,
        10,
        symbolic=[(0, 0)],
        differentiable=[0, 2] if reduction in ("none", "add") else [],
    )


@case("scatter_nd")
def scatter_nd(d: Draw) -> Case:
    dtype, reduction = d.one(DTYPES), d.one(REDUCTIONS)
    x = values(d, d.shape((1, 2, 3), least=1, elements=200), dtype)
    count = d.integer(1, x.ndim)
    index = d.unique_rows(x.shape[:count], d.integer(0, 6))
    if reduction != "none" and len(index) > 1:
        index[0] = index[1]
    updates = values(d, [len(index), *x.shape[count:]], dtype)

    def expect(t: torch.Tensor, i: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        at = tuple(wrapped(i[..., k], t.shape[k]) for k in range(count))
        return combine(t, at, u, reduction)

    return Case(
        [x, index, updates],
        {"reduction": reduction},
        expect,
        10,
        symbolic=[(1, 0), (2, 0)],
        differentiable=[0, 2] if reduction in ("none", "add") else [],
    )


@case("index_add")
def index_add(d: Draw) -> Case:
    x = values(d, d.shape((1, 2, 3), least=1), d.one(DTYPES))
    axis, size = d.axis(x.ndim), d.size(1, 17)
    index = d.indices([x.shape[axis]], size)

    def expect(t: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        shape = list(t.shape)
        shape[axis] = size
        return torch.zeros(shape, dtype=t.dtype).index_add(axis, wrapped(i, size), t)

    symbolic = [(0, axis % x.ndim), (1, 0)]
    return Case([x, index], {"axis": axis, "size": size}, expect, 10, symbolic=symbolic)


@case("dynamic_slice", "dynamic_update_slice")
def dynamic(d: Draw) -> Case:
    dtype = d.one(DTYPES)
    x = values(d, d.shape((1, 2, 3), least=1), dtype)
    sizes = [d.integer(0, s) for s in x.shape]
    starts = np.array([d.integer(-2, s + 2) for s in x.shape], d.one(["int32", "int64"]))
    held = [min(max(int(a), 0), s - n) for a, s, n in zip(starts, x.shape, sizes, strict=True)]
    box = tuple(slice(a, a + n) for a, n in zip(held, sizes, strict=True))
    if d.op == "dynamic_slice":
        return Case([x, starts], {"sizes": sizes}, lambda t, _: t[box], symbolic=[(0, 0)])

    def expect(t: torch.Tensor, u: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        y = t.clone()
        y[box] = u
        return y

    return Case([x, values(d, sizes, dtype), starts], {}, expect, symbolic=[(0, 0)])


# -- recurrent ---------------------------------------------------------------------------------------------


@case("lstm", "gru", "rnn")
def recurrent(d: Draw) -> Case:
    time, batch, inputs, size = d.size(1, 7), d.integer(1, 3), d.integer(1, 5), d.integer(1, 5)
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[d.op]
    direction = d.one(["forward", "reverse", "bidirectional"])
    ways = 2 if direction == "bidirectional" else 1
    x = d.floats([time, batch, inputs])
    w, r = d.floats([ways, gates * size, inputs]), d.floats([ways, gates * size, size])
    bias = d.floats([ways, 2 * gates * size]) if d.flag() else None
    lengths = d.integers([batch], "int32", 0, time) if d.flag() else None
    hidden = d.floats([ways, batch, size]) if d.flag() else None
    cell = d.floats([ways, batch, size]) if d.op == "lstm" and d.flag() else None
    peepholes = d.floats([ways, 3 * size]) if d.op == "lstm" and d.flag() else None
    parts: list[Array | None] = [x, w, r, bias, lengths, hidden]
    if d.op == "lstm":
        parts += [cell, peepholes]
    while parts[-1] is None:
        parts.pop()
    attrs: dict[str, Any] = {"direction": direction}
    linear = d.flag()
    if d.op == "gru":
        attrs["linear_before_reset"] = linear

    def step(
        g: torch.Tensor, h: torch.Tensor, c: torch.Tensor, way: int, a: list[Any]
    ) -> tuple[torch.Tensor, ...]:
        zeros = torch.zeros(gates * size, dtype=torch.float64)
        of_state = zeros if a[3] is None else a[3][way, gates * size :]
        if d.op == "rnn":
            return torch.tanh(g + h @ a[2][way].T + of_state), c
        if d.op == "gru":
            z, reset, n = torch.split(g, size, -1)
            rz, rr, rn = torch.split(a[2][way], size)
            bz, br, bn = torch.split(of_state, size)
            z, reset = torch.sigmoid(z + h @ rz.T + bz), torch.sigmoid(reset + h @ rr.T + br)
            n = torch.tanh(n + (reset * (h @ rn.T + bn) if linear else (reset * h) @ rn.T + bn))
            return (1 - z) * n + z * h, c
        i, o, f, n = torch.split(g + h @ a[2][way].T + of_state, size, -1)
        p = torch.zeros(3 * size, dtype=torch.float64) if a[7] is None else a[7][way]
        pi, po, pf = torch.split(p, size)
        c = torch.sigmoid(f + pf * c) * c + torch.sigmoid(i + pi * c) * torch.tanh(n)
        return torch.sigmoid(o + po * c) * torch.tanh(c), c

    def expect(*given: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        a = [*given, *[None] * (8 - len(given))]
        ys, hs, cs = [], [], []
        for way in range(ways):
            zeros = torch.zeros(batch, size, dtype=torch.float64)
            h = zeros if a[5] is None else a[5][way]
            c = zeros if a[6] is None else a[6][way]
            rows = [zeros] * time
            back = direction == "reverse" or way == 1
            for t in reversed(range(time)) if back else range(time):
                g = a[0][t] @ a[1][way].T
                if a[3] is not None:
                    g = g + a[3][way, : gates * size]
                nh, nc = step(g, h, c, way, a)
                inside = torch.ones(batch, 1, dtype=torch.bool) if a[4] is None else (t < a[4]).unsqueeze(1)
                rows[t] = torch.where(inside, nh, 0.0)
                h, c = torch.where(inside, nh, h), torch.where(inside, nc, c)
            ys.append(torch.stack(rows))
            hs.append(h)
            cs.append(c)
        results = (torch.stack(ys, 1), torch.stack(hs), torch.stack(cs))
        return results if d.op == "lstm" else results[:2]

    return Case(parts, attrs, expect, 30, symbolic=[(0, 0)], differentiable=[])
