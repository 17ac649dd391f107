"""Cases of factors of matrices and systems of equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from case import Array, Case, Draw, case

FLOAT = ["float32", "float32", "float64"]


def matrices(d: Draw, rows: int, columns: int, dtype: str, batch: list[int] | None = None) -> Array:
    lead = d.one([[], [], [2], [0], [2, 3]]) if batch is None else batch
    return d.floats([*lead, rows, columns], dtype)


def stacked(*inputs: Array) -> list[tuple[int, int]]:
    """The axes, one for each input, over which matrices (or what belongs to them) are stacked."""
    return [(i, 0) for i in range(len(inputs))] if inputs[0].ndim > 2 else []


def steady(x: Array) -> Array:
    """The same with a large diagonal: well conditioned."""
    size = min(x.shape[-2:])
    return (x + 3 * size * np.eye(*x.shape[-2:])).astype(x.dtype)


@case("lu")
def lu(d: Draw) -> Case:
    x = steady(matrices(d, d.size(1, 13), d.size(1, 13), d.dtype(FLOAT)))[..., ::-1, :]

    def expect(t: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.linalg.lu_factor_ex(t))

    return Case([x], {}, expect, 50, symbolic=stacked(x), differentiable=[])


@case("permutation_of_pivots")
def permutation(d: Draw) -> Case:
    rows, steps = d.size(1, 8), d.size(0, 8)
    steps = min(rows, steps)
    count = d.size(0, 3)
    exchanges = [[d.integer(k, rows) for k in range(1, steps + 1)] for _ in range(count)]
    pivots = np.array(exchanges, d.one(["int32", "int64"])).reshape(count, steps)

    def expect(t: torch.Tensor) -> torch.Tensor:
        orders = []
        for exchange in t.tolist():
            order = list(range(rows))
            for k, other in enumerate(exchange):
                order[k], order[other - 1] = order[other - 1], order[k]
            orders.append(order)
        return torch.tensor(orders).reshape(count, rows)

    return Case([pivots], {"size": rows}, expect, symbolic=[(0, 0)], differentiable=[])


@case("triangular_solve")
def triangular_solve(d: Draw) -> Case:
    size, dtype, batch = d.size(0, 13), d.dtype(FLOAT), d.one([[], [2], [2, 3]])
    a = steady(matrices(d, size, size, dtype, batch))
    right = matrices(d, size, d.size(0), dtype, batch)
    attrs: dict[str, Any] = {"upper": d.flag(), "unit": d.flag()}
    if attrs["unit"]:
        a = (a / (4 * max(size, 1))).astype(dtype)

    def expect(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.linalg.solve_triangular(t, y, upper=attrs["upper"], unitriangular=attrs["unit"])

    return Case([a, right], attrs, expect, 50, symbolic=stacked(a, right))


@case("cholesky")
def cholesky(d: Draw) -> Case:
    size = d.size(0, 13)
    x = matrices(d, size, size, d.dtype(FLOAT))
    x = steady((x @ np.swapaxes(x, -1, -2)).astype(x.dtype))

    def expect(t: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.linalg.cholesky_ex(t))

    return Case([x], {}, expect, 50, symbolic=stacked(x), differentiable=[])


@case("householder")
def householder(d: Draw) -> Case:
    x = matrices(d, d.size(1, 13), d.size(1, 13), d.dtype(FLOAT), d.one([[], [2]]))
    return Case([x], {}, lambda t: tuple(torch.geqrf(t)), 100, symbolic=stacked(x), differentiable=[])


@case("apply_householder")
def apply_householder(d: Draw) -> Case:
    rows, dtype, batch = d.size(1, 13), d.dtype(FLOAT), d.one([[], [2]])
    vectors = matrices(d, rows, d.integer(1, rows), dtype, batch)
    scales = d.floats([*batch, vectors.shape[-1]], dtype, 0.1, 0.5)
    other = matrices(d, rows, d.size(1), dtype, batch)
    transpose = d.flag()

    def expect(v: torch.Tensor, s: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return torch.ormqr(v, s, c, transpose=transpose)

    inputs = [vectors, scales, other]
    return Case(inputs, {"transpose": transpose}, expect, 200, symbolic=stacked(*inputs), differentiable=[])


@case("jacobi_svd")
def jacobi_svd(d: Draw) -> Case:
    """The values alone: vectors are known up to their signs (tests/python/test_torch_linalg.py has them)."""
    rows = d.size(1, 13)
    x = matrices(d, rows, d.integer(1, rows), d.dtype(FLOAT))
    return Case([x], {}, torch.linalg.svdvals, 50, results=1, symbolic=stacked(x), differentiable=[])


@case("symmetric_eigen")
def symmetric_eigen(d: Draw) -> Case:
    size = d.size(1, 13)
    x = matrices(d, size, size, d.dtype(FLOAT))
    return Case([x], {}, torch.linalg.eigvalsh, 50, results=1, symbolic=stacked(x), differentiable=[])
