"""Determinants, inverses, systems of equations and the like, from factors of matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepseek.torch.decompositions import decomposition

aten = torch.ops.aten


def _matrix(x: Tensor) -> Tensor:
    return x.transpose(-2, -1)


@decomposition(aten.linalg_lu.default)
def _lu(x: Tensor, *, pivot: bool = True) -> Any:
    if not pivot:
        return NotImplemented
    factors, pivots, _ = aten.linalg_lu_factor_ex.default(x)
    return aten.lu_unpack.default(factors, pivots)


@decomposition(aten.linalg_lu_solve.default)
def _lu_solve(
    factors: Tensor, pivots: Tensor, right: Tensor, *, left: bool = True, adjoint: bool = False
) -> Any:
    if factors.is_complex():
        return NotImplemented
    if not left:
        return _matrix(_lu_solve(factors, pivots, _matrix(right), adjoint=not adjoint))
    permutation, _, _ = aten.lu_unpack.default(factors, pivots, False, True)
    solve = aten.linalg_solve_triangular.default
    if adjoint:
        middle = solve(_matrix(factors), right, upper=False)
        return permutation @ solve(_matrix(factors), middle, upper=True, unitriangular=True)
    middle = solve(factors, _matrix(permutation) @ right, upper=False, unitriangular=True)
    return solve(factors, middle, upper=True)


def _factors(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    factors, pivots, info = aten.linalg_lu_factor_ex.default(x)
    return factors, pivots, info


@decomposition(aten._linalg_solve_ex.default)
def _solve(a: Tensor, right: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    if check_errors or a.is_complex():
        return NotImplemented
    vector = right.dim() == 1 or (a.dim() - 1 == right.dim() and right.shape == a.shape[:-1])
    matrix = right.unsqueeze(-1) if vector else right
    factors, pivots, info = _factors(a)
    batch = torch.broadcast_shapes(a.shape[:-2], matrix.shape[:-2])  # type: ignore[no-untyped-call]
    solution = _lu_solve(
        factors.expand(*batch, *a.shape[-2:]),
        pivots.expand(*batch, a.shape[-1]),
        matrix.expand(*batch, *matrix.shape[-2:]),
        left=left or vector,
    )
    return solution.squeeze(-1) if vector else solution, factors, pivots, info


def _parity(pivots: Tensor, dtype: torch.dtype) -> Tensor:
    """The sign of the permutation."""
    own = torch.arange(1, pivots.shape[-1] + 1, dtype=pivots.dtype)
    swaps = (pivots != own).to(torch.int64).sum(-1)
    return (1 - 2 * (swaps % 2)).to(dtype)


def _of_determinant(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ATen factors the transpose of a matrix that lies in rows, and its backward reckons with that."""
    return _factors(_matrix(x) if x.is_contiguous() else x)


@decomposition(aten._linalg_det.default)
def _det(x: Tensor) -> Any:
    if x.is_complex():
        return NotImplemented
    factors, pivots, _ = _of_determinant(x)
    diagonal = factors.diagonal(dim1=-2, dim2=-1)
    return diagonal.prod(-1) * _parity(pivots, x.dtype), factors, pivots


@decomposition(aten._linalg_slogdet.default)
def _slogdet(x: Tensor) -> Any:
    if x.is_complex():
        return NotImplemented
    factors, pivots, _ = _of_determinant(x)
    diagonal = factors.diagonal(dim1=-2, dim2=-1)
    sign = diagonal.sign().prod(-1) * _parity(pivots, x.dtype)
    return sign, diagonal.abs().log().sum(-1), factors, pivots


@decomposition(aten.linalg_inv_ex.default)
def _inverse(x: Tensor, *, check_errors: bool = False) -> Any:
    if check_errors or x.is_complex():
        return NotImplemented
    factors, pivots, info = _factors(x)
    unit = torch.eye(x.shape[-1], dtype=x.dtype).expand(x.shape)
    return _lu_solve(factors, pivots, unit), info


@decomposition(aten.cholesky.default)
def _cholesky(x: Tensor, upper: bool = False) -> Any:
    if x.is_complex():
        return NotImplemented
    factor, info = aten.linalg_cholesky_ex.default(x, upper=upper)
    aten._linalg_check_errors.default(info, "cholesky", is_matrix=x.dim() == 2)
    return factor


@decomposition(aten.cholesky_solve.default)
def _cholesky_solve(right: Tensor, factor: Tensor, upper: bool = False) -> Any:
    if factor.is_complex():
        return NotImplemented
    solve = aten.linalg_solve_triangular.default
    lower = _matrix(factor) if upper else factor
    return solve(_matrix(lower), solve(lower, right, upper=False), upper=True)


@decomposition(aten.cholesky_inverse.default)
def _cholesky_inverse(factor: Tensor, upper: bool = False) -> Any:
    unit = torch.eye(factor.shape[-1], dtype=factor.dtype).expand(factor.shape)
    return _cholesky_solve(unit, factor, upper)


@decomposition(aten.linalg_qr.default)
def _qr(x: Tensor, mode: str = "reduced") -> Any:
    if x.is_complex() or any(not isinstance(size, int) for size in x.shape):  # geqrf has no such shapes
        return NotImplemented
    vectors, scales = aten.geqrf.default(x)
    rows, columns = x.shape[-2:]
    least = min(rows, columns)
    width = rows if mode == "complete" else least
    triangle = vectors[..., :width, :].triu()
    if mode == "r":
        return x.new_empty([0]), triangle
    unit = torch.eye(rows, width, dtype=x.dtype).expand(*x.shape[:-2], rows, width)
    return aten.ormqr.default(vectors, scales, unit), triangle


@decomposition(aten.linalg_pinv.atol_rtol_tensor)
def _pseudo_inverse(
    x: Tensor, *, atol: Tensor | None = None, rtol: Tensor | None = None, hermitian: bool = False
) -> Any:
    if x.is_complex():
        return NotImplemented
    rows, columns = x.shape[-2:]
    if x.numel() == 0:
        return x.new_zeros(*x.shape[:-2], columns, rows)
    if hermitian:
        values, right = torch.linalg.eigh(x)
        left, sizes = right, values.abs()
        across = _matrix(right)
    else:
        left, values, across = torch.linalg.svd(x, full_matrices=False)
        sizes = values
    largest = sizes.amax(-1, keepdim=True)
    absolute = torch.zeros((), dtype=x.dtype) if atol is None else atol.to(x.dtype)
    if rtol is None:
        relative = torch.full((), max(rows, columns) * torch.finfo(x.dtype).eps, dtype=x.dtype)
        if atol is not None:
            relative = torch.where(absolute > 0, torch.zeros((), dtype=x.dtype), relative)
    else:
        relative = rtol.to(x.dtype)
    limit = torch.maximum(absolute.unsqueeze(-1), relative.unsqueeze(-1) * largest)
    inverse = torch.where(sizes > limit, values.reciprocal(), torch.zeros((), dtype=x.dtype))
    return _matrix(across) @ (inverse.unsqueeze(-1) * _matrix(left))


@decomposition(aten.addbmm.default)
def _addbmm(x: Tensor, left: Tensor, right: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """In x's dtype, factors too: PyTorch's own decomposition widens sums of small integers."""
    if not x.is_floating_point() and not x.is_complex():
        beta, alpha = int(beta), int(alpha)
    total: Tensor = torch.bmm(left, right).sum(0, dtype=x.dtype) * alpha
    return total if beta == 0 else total + x * beta
