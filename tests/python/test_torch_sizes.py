"""Sizes and numbers that follow from input sizes by more than whole-number arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import deepseek as ds
import deepseek.torch as bridge
import pytest
import torch
from torch.nn import functional as F

FLOATS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "operand": lambda x, s: x * s + s / x - x,
    "alpha": lambda x, s: torch.add(x, x, alpha=s).addmm(x, torch.ones(x.shape[1], x.shape[1]), alpha=s),
    "filled": lambda x, s: torch.where(x > s, x, torch.full(x.shape, s)).masked_fill(x < -s, s),
    "range": lambda x, s: x + torch.linspace(0, s, x.shape[1]),
    "exponent": lambda x, s: x.abs() ** s,
    "tensor": lambda x, s: x * torch.tensor(s),
    "attention": lambda x, s: F.scaled_dot_product_attention(x[None], x[None], x[None], scale=s)[0],
}
SIZES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "larger": lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear") * 2,
    "larger and smaller": lambda x: F.interpolate(F.interpolate(x, scale_factor=1.3).sin(), scale_factor=0.6),
    "a part": lambda x: x[..., : int(x.shape[-1] * 0.7)] * 2,
    "steps": lambda x: x * torch.arange(int(x.shape[-1] * 1.5))[: x.shape[-1]],
    "border": lambda x: F.pad(x, (x.shape[-1] // 2, round(x.shape[-2] * 0.3))),
}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()
    bridge.reset()
    torch.manual_seed(0)


def agrees(function: Callable[[torch.Tensor], torch.Tensor], shapes: list[tuple[int, ...]]) -> None:
    """Values and gradients at each shape, with nothing left to PyTorch."""
    run = torch.compile(function, backend="deepseek", dynamic=True)
    for shape in shapes:
        x = torch.randn(shape, requires_grad=True)
        y, expected = run(x), function(x)
        torch.testing.assert_close(y, expected)
        weights = torch.randn_like(expected)
        (dx,) = torch.autograd.grad((y * weights).sum(), x)
        (expected_dx,) = torch.autograd.grad((expected * weights).sum(), x)
        torch.testing.assert_close(dx, expected_dx)
    assert not bridge.explain().eager_ops, str(bridge.explain())


@pytest.mark.parametrize("name", FLOATS)
def test_floats_of_sizes(name: str) -> None:
    agrees(lambda x: FLOATS[name](x, x.shape[0] / x.shape[1]), [(3, 5), (4, 6), (7, 9)])


@pytest.mark.parametrize("name", SIZES)
def test_rounded_sizes(name: str) -> None:
    agrees(SIZES[name], [(2, 3, 5, 8), (2, 3, 6, 9), (2, 3, 9, 12)])
    assert len(bridge.explain().records) == 2  # forward and backward, compiled once


def test_a_float_that_has_to_be_known_while_compiling_goes_to_pytorch() -> None:
    run = torch.compile(lambda x: F.elu(x, x.shape[0] / x.shape[1]), backend="deepseek", dynamic=True)
    for shape in ((3, 5), (4, 7)):
        x = torch.randn(shape)
        torch.testing.assert_close(run(x), F.elu(x, shape[0] / shape[1]))
    assert bridge.explain().eager_ops == {"aten.elu.default": 1}


def test_a_graph_of_its_own_has_no_floats_of_sizes() -> None:
    class Scaled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (x.shape[0] / x.shape[1])

    rows = torch.export.Dim("rows")
    with pytest.raises(ds.Error, match="a float that follows from sizes"):
        ds.compile(Scaled(), example_inputs=(torch.randn(3, 4),), dynamic_shapes=({0: rows},))


@pytest.mark.parametrize("offset", [-1, 0, 2])
def test_diagonals_of_any_size(offset: int) -> None:
    shapes: list[tuple[int, ...]] = [(2, 4, 6), (3, 5, 7), (2, 9, 4), (2, 6, 6)]
    agrees(lambda x: x.diagonal(offset, 1, 2) * 2, shapes)
    agrees(lambda x: torch.diagonal_scatter(x, x.diagonal(offset, 2, 0) * 3, offset, 2, 0), shapes)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_over_heads_of_any_size(causal: bool) -> None:
    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    run = torch.compile(attention, backend="deepseek", dynamic=True)
    generator = torch.Generator().manual_seed(0)
    for length, size in ((5, 8), (17, 12), (33, 24)):
        given = [torch.randn(2, 3, length, size, generator=generator).requires_grad_() for _ in range(3)]
        y, want = run(*given), attention(*given)
        torch.testing.assert_close(y, want, rtol=1e-4, atol=1e-5)
        dy = torch.randn(y.shape, generator=generator)
        gradients = torch.autograd.grad(y, given, dy)
        for dx, wanted in zip(gradients, torch.autograd.grad(want, given, dy), strict=True):
            torch.testing.assert_close(dx, wanted, rtol=1e-4, atol=1e-5)
    assert not bridge.explain().eager_ops
