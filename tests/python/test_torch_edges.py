"""Elementwise ops where rounding shows: far from 0, at NaN, and numbers that a 16-bit float cannot hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

FAR = [-float("inf"), -1e30, -2861.2336, -1508.38, -40.0, -9.0, -5.6, 0.0, 5.6, 9.0, 1e30, float("nan")]
OF_NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "x * 0.3": lambda x: x * 0.3,
    "x * 0.999": lambda x: x * 0.999,
    "x / 0.3": lambda x: x / 0.3,
    "0.3 / x": lambda x: 0.3 / x,
    "x // 0.3": lambda x: x // 0.3,
    "truncated x / 0.3": lambda x: torch.div(x, 0.3, rounding_mode="trunc"),
    "x times a tensor": lambda x: x * torch.tensor(0.3),
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.3),
    "x + 0.3": lambda x: x + 0.3,
    "x + 0.3 y": lambda x: torch.add(x, x.flip(1), alpha=0.3),
    "x - 0.3 y": lambda x: torch.sub(x, x.flip(1), alpha=0.3),
    "y - 0.3 x": lambda x: torch.rsub(x, x.flip(1), alpha=0.3),
    "x + 0.3 * 0.7": lambda x: torch.add(x, 0.7, alpha=0.3),
    "hypot": lambda x: torch.hypot(x, x.flip(1)),
}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


def ours(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    y: Tensor = torch.compile(function, backend="deepseek")(x)
    return y


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_vanishes_far_below_zero(approximate: str, dtype: torch.dtype) -> None:
    x = torch.tensor(FAR, dtype=dtype)
    y = ours(lambda x: functional.gelu(x, approximate=approximate), x)
    want = functional.gelu(x.double(), approximate=approximate).to(dtype)
    torch.testing.assert_close(y, want, rtol=1e-2, atol=2e-6, equal_nan=True)
    assert bool((y[1:5] == 0).all())


def test_sign_of_nan_is_that_of_pytorch() -> None:
    x = torch.tensor(FAR)
    assert torch.equal(ours(torch.sign, x), torch.sign(x))
    assert torch.equal(ours(torch.sgn, x), torch.sgn(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OF_NUMBERS)
def test_numbers_keep_their_digits(name: str, dtype: torch.dtype) -> None:
    """As in eager PyTorch, by one unit in the last place where a quotient is not rounded alike."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(3, 2048, generator=generator) * torch.tensor([[0.1], [1.0], [30.0]])).to(dtype)
    y, want = ours(OF_NUMBERS[name], x), OF_NUMBERS[name](x)
    assert y.dtype == want.dtype
    unequal = (y != want).double().mean().item()
    assert unequal <= 0.002, unequal
    torch.testing.assert_close(y, want, rtol=2 * torch.finfo(dtype).eps, atol=0 if "//" not in name else 1)


@pytest.mark.parametrize("decimals", [1, -1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_to_decimals(dtype: torch.dtype, decimals: int) -> None:
    x = (torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 10.0 ** (1 - decimals)).to(dtype)
    y = ours(lambda x: torch.round(x, decimals=decimals), x)
    scaled = x.float() * 10.0**decimals
    away = (scaled - scaled.floor() - 0.5).abs() > 1e-3  # from a tie, which the scale's rounding decides
    want = (scaled.double().round() / 10.0**decimals).to(dtype)
    assert torch.equal(y[away], want[away])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_long_running_sums_keep_their_digits(dtype: torch.dtype) -> None:
    x = torch.full((3, 200_000), 0.1, dtype=dtype)
    want = x.double().cumsum(1).to(dtype)
    torch.testing.assert_close(ours(lambda x: x.cumsum(1), x), want, rtol=torch.finfo(dtype).eps, atol=0)
    far = torch.tensor([1.0, 2.0, float("inf"), 3.0, -1e30, float("nan"), 1.0], dtype=dtype)
    for x in (far, far[:5], -far[:5], torch.cat([far[:4], -far[:4]])):
        torch.testing.assert_close(ours(lambda x: x.cumsum(0), x), x.cumsum(0), equal_nan=True)
