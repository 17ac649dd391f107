"""Factors of matrices and systems of equations."""

from __future__ import annotations

from typing import Any

import torch

from deepseek import Value
from deepseek.torch.builder import Builder, rule
from deepseek.torch.shapes import Dim, Unsupported, dims

aten = torch.ops.aten


def identity_matrix(b: Builder, batch: list[Dim], rows: Dim, columns: Dim, dtype: str) -> Value:
    shape: list[Dim] = [rows, columns]
    row, column = (b.op("iota", shape=shape, dtype="int64", axis=axis) for axis in (0, 1))
    return b.broadcast(b.cast(b.op("equal", row, column), dtype), [*batch, rows, columns])


def known(*sizes: Dim) -> None:
    if any(not isinstance(size, int) for size in sizes):
        raise Unsupported("matrices of symbolic size")


@rule(aten.linalg_lu_factor_ex.default)
def lu_factor(
    b: Builder, x: Value, *, pivot: bool = True, check_errors: bool = False
) -> tuple[Value | None, ...]:
    known(*x.shape[-2:])
    if not pivot or check_errors:
        raise Unsupported("LU factors without pivots, or with a check")
    return b.ops("lu", x)


@rule(aten.lu_unpack.default)
def lu_unpack(
    b: Builder, factors: Value, pivots: Value, unpack_data: bool = True, unpack_pivots: bool = True
) -> tuple[Value | None, ...]:
    batch, (rows, columns) = list(factors.shape[:-2]), factors.shape[-2:]
    known(rows, columns)
    assert isinstance(rows, int)
    assert isinstance(columns, int)
    least = min(rows, columns)
    if not unpack_data:
        lower = upper = b.op("full", shape=[0], value=0.0, dtype=factors.dtype)
    else:
        left = _corner(b, factors, rows, least)
        below = b.op("triangular", left, upper=False, k=[-1])
        lower = b.op("add", below, identity_matrix(b, batch, rows, least, factors.dtype))
        upper = b.op("triangular", _corner(b, factors, least, columns), upper=True, k=[0])
    if not unpack_pivots:
        return b.op("full", shape=[0], value=0.0, dtype=factors.dtype), lower, upper
    order = b.op("permutation_of_pivots", pivots, size=[rows])
    from_row = b.op("iota", shape=[rows, 1], dtype="int64", axis=0)
    permutation = b.op("equal", b.reshape(order, [*batch, 1, rows]), from_row)
    return b.cast(permutation, factors.dtype), lower, upper


def _corner(b: Builder, x: Value, rows: int, columns: int) -> Value:
    limits: list[Dim] = [*x.shape[:-2], rows, columns]
    rank = len(limits)
    if list(x.shape) == limits:
        return x
    return b.op("slice", x, starts=[0] * rank, limits=limits, steps=[1] * rank)


@rule(aten.linalg_solve_triangular.default)
def solve_triangular(
    b: Builder, a: Value, right: Value, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Value:
    batch = b.shape()[:-2]
    a = b.broadcast(a, [*batch, *a.shape[-2:]])
    right = b.broadcast(right, [*batch, *right.shape[-2:]])
    if left:
        return b.op("triangular_solve", a, right, upper=upper, unit=unitriangular)
    solved = b.op("triangular_solve", b.swap(a), b.swap(right), upper=not upper, unit=unitriangular)
    return b.swap(solved)


@rule(aten.triangular_solve.default)
def triangular_solve(
    b: Builder, right: Value, a: Value, upper: bool = True, transpose: bool = False, unit: bool = False
) -> tuple[Value, ...]:
    batch = b.shape(0)[:-2]
    a = b.broadcast(a, [*batch, *a.shape[-2:]])
    right = b.broadcast(right, [*batch, *right.shape[-2:]])
    matrix = b.swap(a) if transpose else a
    solved = b.op("triangular_solve", matrix, right, upper=upper != transpose, unit=unit)
    return solved, a


@rule(aten.linalg_cholesky_ex.default)
def cholesky_ex(
    b: Builder, x: Value, *, upper: bool = False, check_errors: bool = False
) -> tuple[Value | None, ...]:
    if check_errors:
        raise Unsupported("Cholesky factors with a check")
    lower, info = b.ops("cholesky", b.swap(x) if upper else x)
    return b.swap(lower) if upper else lower, info


@rule(aten.geqrf.default)
def geqrf(b: Builder, x: Value) -> tuple[Value | None, ...]:
    known(*x.shape[-2:])
    return b.ops("householder", x)


@rule(aten.linalg_householder_product.default)
def householder_product(b: Builder, vectors: Value, scales: Value) -> Value:
    batch, (rows, columns) = list(vectors.shape[:-2]), vectors.shape[-2:]
    unit = identity_matrix(b, batch, rows, columns, vectors.dtype)
    return b.op("apply_householder", vectors, scales, unit)


@rule(aten.ormqr.default)
def ormqr(
    b: Builder, vectors: Value, scales: Value, other: Value, left: bool = True, transpose: bool = False
) -> Value:
    if left:
        return b.op("apply_householder", vectors, scales, other, transpose=transpose)
    return b.swap(b.op("apply_householder", vectors, scales, b.swap(other), transpose=not transpose))


@rule(aten._linalg_eigh.default)
def eigh(b: Builder, x: Value, uplo: str = "L", compute_v: bool = True) -> tuple[Value | None, ...]:
    values, vectors = b.ops("symmetric_eigen", b.swap(x) if uplo.upper() == "U" else x)
    return values, vectors if compute_v else b.op("full", shape=[0], value=0.0, dtype=x.dtype)


@rule(aten._linalg_svd.default)
def svd(
    b: Builder, x: Value, full_matrices: bool = False, compute_uv: bool = True, *, driver: Any = None
) -> tuple[Value | None, ...]:
    rows, columns = x.shape[-2:]
    known(rows, columns)
    wide = int(rows) < int(columns)
    values, left, right = b.ops("jacobi_svd", b.swap(x) if wide else x)
    if not compute_uv:
        shapes = [dims(b.fake(i).shape) for i in (0, 2)]
        nothing = [b.op("full", shape=shape, value=0.0, dtype=x.dtype) for shape in shapes]
        return nothing[0], values, nothing[1]
    left = _completed(b, left, full_matrices)
    return (right, values, b.swap(left)) if wide else (left, values, b.swap(right))


def _completed(b: Builder, columns: Value, full: bool) -> Value:
    """Orthonormal columns with those that are 0 replaced and, if `full`, more until they span everything."""
    batch, (rows, count) = list(columns.shape[:-2]), columns.shape[-2:]
    vectors, scales = b.ops("householder", columns)
    unit = identity_matrix(b, batch, rows, rows if full else count, columns.dtype)
    basis = b.op("apply_householder", vectors, scales, unit)
    # The columns up to their signs, which lie on the diagonal of the triangular factor.
    width = rows if full else count
    diagonal = b.op("mul", vectors, identity_matrix(b, [], rows, count, columns.dtype))
    total = b.op("sum", diagonal, axes=[len(batch)], keepdims=True)  # [..., 1, count]
    negative = b.op("less", total, b.constant(0, total.dtype))
    signs = b.op("select", negative, b.constant(-1, total.dtype), b.constant(1, total.dtype))
    if width != count:
        extra = [0] * (len(batch) + 1) + [int(width) - int(count)]
        signs = b.op("pad", signs, low=[0] * len(extra), high=extra, value=1.0)
    return b.op("mul", basis, signs)
