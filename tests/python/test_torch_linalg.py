"""Factors that are known up to signs, checked by what defines them: products and orthogonality."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepseek.torch as bridge
import pytest
import torch

SHAPES = [(1, 1), (5, 5), (7, 3), (3, 7), (2, 6, 4), (3, 2, 5, 5), (0, 4, 3), (40, 33)]


def compiled(function: Callable[..., Any], *args: Any) -> Any:
    """The results of a function that is compiled whole."""
    torch._dynamo.reset()
    bridge.reset()
    results = torch.compile(function, backend="deepseek")(*args)
    assert not bridge.explain().eager_ops, bridge.explain()
    return results


def matrix(shape: tuple[int, ...], rank: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    if rank is None:
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    left, right = (*shape[:-1], rank), (*shape[:-2], rank, shape[-1])
    return torch.randn(left, generator=generator, dtype=torch.float64) @ torch.randn(
        right, generator=generator, dtype=torch.float64
    )


def assert_orthonormal(columns: torch.Tensor) -> None:
    unit = torch.eye(columns.shape[-1], dtype=columns.dtype).expand(
        *columns.shape[:-2], columns.shape[-1], columns.shape[-1]
    )
    torch.testing.assert_close(columns.mT @ columns, unit)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("rank", [None, 1, 0])
@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_and_vectors(shape: tuple[int, ...], rank: int | None, full: bool) -> None:
    x = matrix(shape, rank)
    u, s, vh = compiled(lambda t: torch.linalg.svd(t, full_matrices=full), x)
    assert_orthonormal(u)
    assert_orthonormal(vh.mT)
    count = s.shape[-1]
    torch.testing.assert_close((u[..., :count] * s.unsqueeze(-2)) @ vh[..., :count, :], x)
    torch.testing.assert_close(s, torch.linalg.svdvals(x))


@pytest.mark.parametrize("shape", [(1, 1), (6, 6), (2, 5, 5), (0, 3, 3), (30, 30)])
@pytest.mark.parametrize("uplo", ["L", "U"])
def test_eigenvectors(shape: tuple[int, ...], uplo: str) -> None:
    x = matrix(shape)
    symmetric = x.tril() + x.tril(-1).mT if uplo == "L" else x.triu() + x.triu(1).mT
    w, v = compiled(lambda t: torch.linalg.eigh(t, uplo), x)
    assert_orthonormal(v)
    torch.testing.assert_close((v * w.unsqueeze(-2)) @ v.mT, symmetric)
    torch.testing.assert_close(w, torch.linalg.eigvalsh(symmetric))


def test_eigenvalues_of_opposite_sign() -> None:
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    w, v = compiled(torch.linalg.eigh, x)
    torch.testing.assert_close(w, torch.tensor([-1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(x @ v, v * w)


@pytest.mark.parametrize("mode", ["reduced", "complete"])
@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_and_triangular_factors(shape: tuple[int, ...], mode: str) -> None:
    x = matrix(shape)
    q, r = compiled(lambda t: torch.linalg.qr(t, mode), x)
    assert_orthonormal(q)
    torch.testing.assert_close(q @ r, x)
    torch.testing.assert_close(r, r.triu())


@pytest.mark.parametrize("left", [False, True])
def test_system_with_exchanged_rows(left: bool) -> None:
    a = torch.tensor([[0.0, 2.0, 1.0], [1.0, 0.0, 3.0], [4.0, 1.0, 0.0]])
    right = torch.arange(6.0).reshape(3, 2) if left else torch.arange(6.0).reshape(2, 3)
    solution, _, _, info = compiled(lambda x, y: torch.ops.aten._linalg_solve_ex(x, y, left=left), a, right)
    torch.testing.assert_close(a @ solution if left else solution @ a, right)
    assert int(info) == 0


def test_what_has_no_factors_is_told() -> None:
    _, info = compiled(torch.linalg.cholesky_ex, torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    assert int(info) == 2
    _, _, info = compiled(torch.linalg.lu_factor_ex, torch.tensor([[1.0, 2.0], [2.0, 4.0]]))
    assert int(info) == 2


def test_a_singular_matrix_raises_pytorchs_error() -> None:
    torch._dynamo.reset()  # of other sizes before, which would make this one symbolic
    inverse = torch.compile(torch.linalg.inv, backend="deepseek")
    bridge.reset()
    x = matrix((4, 4))
    torch.testing.assert_close(inverse(x), torch.linalg.inv(x))
    explanation = bridge.explain()
    assert not explanation.eager_ops
    assert "checked by PyTorch: 1 x aten._linalg_check_errors" in str(explanation)
    with pytest.raises(torch.linalg.LinAlgError, match=r"linalg.inv: .* singular"):
        inverse(torch.zeros_like(x))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.float32])
def test_sums_of_products_keep_their_dtype(dtype: torch.dtype) -> None:
    left, right = (torch.arange(24).reshape(2, *shape).to(dtype) for shape in ((3, 4), (4, 3)))
    x = torch.ones(3, 3, dtype=dtype)
    for factors in ({"beta": 2, "alpha": 3}, {"beta": 1.7, "alpha": 0.6}):  # integers take whole ones
        got = compiled(lambda *args, factors=factors: torch.addbmm(*args, **factors), x, left, right)
        torch.testing.assert_close(got, torch.addbmm(x, left, right, **factors))
    a, b, weight = (torch.arange(12).reshape(shape).to(dtype) for shape in ((4, 3), (4, 3), (2, 2, 3)))
    got = compiled(torch.nn.functional.bilinear, a, b[:, :2], weight.mT)
    torch.testing.assert_close(got, torch.nn.functional.bilinear(a, b[:, :2], weight.mT))


def test_factors_of_symbolic_size() -> None:
    """What has no translation there runs in PyTorch, in one graph with the rest."""

    def function(x: torch.Tensor) -> torch.Tensor:
        q, r = torch.linalg.qr(x)
        return (q @ r).exp() + torch.linalg.inv(x @ x.mT + torch.eye(x.shape[0]))

    torch._dynamo.reset()
    run = torch.compile(function, backend="deepseek", dynamic=True, fullgraph=True)
    for size in (3, 5):
        x = torch.randn(size, size)
        torch.testing.assert_close(run(x), function(x), rtol=1e-3, atol=1e-4)

    def norm(x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(x).sum()  # of min(rows, columns) values

    run = torch.compile(norm, backend="deepseek", dynamic=True, fullgraph=True)
    for rows, columns in ((3, 5), (6, 4)):
        x = torch.randn(rows, columns)
        torch.testing.assert_close(run(x), norm(x))
