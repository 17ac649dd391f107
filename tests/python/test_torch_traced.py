"""Functions that look at values while they are traced: whole graphs, eager PyTorch's results and refusals."""

from collections.abc import Callable
from typing import Any

import deepseek.torch as bridge
import pytest
import torch
from torch.nn import functional


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()
    bridge.reset()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    whole: Callable[..., Any] = torch.compile(function, backend="deepseek", fullgraph=True)
    return whole


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(4, 5), (4,), (4, 1)])
def test_gaussian_nll_loss(shape: tuple[int, ...], reduction: str) -> None:
    torch.manual_seed(0)
    x, target = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5)
    var = torch.rand(shape)
    var[0], var[1] = 0, float("inf")
    var.requires_grad_()

    def loss(x: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        return functional.gaussian_nll_loss(x, target, var, full=True, eps=1e-2, reduction=reduction)

    want, got = loss(x, var), compiled(loss)(x, var)
    torch.testing.assert_close(got, want)
    finite = want[want.isfinite()].sum(), got[got.isfinite()].sum()
    for w, g in zip(*(torch.autograd.grad(y, (x, var)) for y in finite), strict=True):
        torch.testing.assert_close(g, w, equal_nan=True)
    assert not bridge.explain().eager_ops


def test_gaussian_nll_loss_of_a_number_and_of_negative_variances() -> None:
    f = compiled(functional.gaussian_nll_loss)
    x, target = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(f(x, target, 0.5), functional.gaussian_nll_loss(x, target, 0.5))
    with pytest.raises(RuntimeError, match="var has negative entry/entries"):
        f(x, target, torch.full((3, 4), -1.0))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("correction", [0, 1, 7])
@pytest.mark.parametrize("shape", [(4, 6), (6,)])
def test_cov_and_corrcoef(shape: tuple[int, ...], correction: int, dynamic: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)

    def both(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cov(x, correction=correction), torch.corrcoef(x)

    got = torch.compile(both, backend="deepseek", fullgraph=True, dynamic=dynamic)(x)
    want = both(x)
    torch.testing.assert_close(got, want, equal_nan=True)
    if correction < 7:
        dys = [torch.randn(w.shape) for w in want]
        torch.testing.assert_close(*(torch.autograd.grad(y, x, dys) for y in (got, want)))
    assert not bridge.explain().eager_ops


def test_cov_of_weighted_observations() -> None:
    torch.manual_seed(0)
    x, times, parts = torch.randn(3, 5), torch.tensor([1, 2, 0, 3, 1]), torch.rand(5)
    f = compiled(torch.cov)
    for weights in ({"fweights": times}, {"aweights": parts}, {"fweights": times, "aweights": parts}):
        torch.testing.assert_close(f(x, **weights), torch.cov(x, **weights))
    assert not bridge.explain().eager_ops
    with pytest.raises(RuntimeError, match="fweights cannot be negative"):
        f(x, fweights=-times)
    with pytest.raises(RuntimeError, match="sum to zero"):
        f(x, fweights=0 * times)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(6,), (2, 6)])
def test_multilabel_margin_loss(shape: tuple[int, ...], reduction: str) -> None:
    torch.manual_seed(0)
    x, target = torch.randn(shape, requires_grad=True), torch.tensor([2, 0, 5, -1, 1, 1]).expand(shape)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return functional.multilabel_margin_loss(x, target, reduction=reduction)

    want, got = loss(x), compiled(loss)(x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x) for y in (got, want)))
    with torch.no_grad():
        torch.testing.assert_close(compiled(loss)(x), want)
