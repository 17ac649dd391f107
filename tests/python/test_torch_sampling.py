"""Reads at computed points and in bags, forward and backward, against eager PyTorch in float64."""

from __future__ import annotations

from collections.abc import Callable

import deepseek.torch as bridge
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor


def check(function: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Result and gradients of what is compiled whole are eager's."""
    torch._dynamo.reset()
    bridge.reset()
    inputs = tuple(x.requires_grad_() if x.is_floating_point() else x for x in inputs)
    wanted = [x for x in inputs if x.requires_grad]
    want = function(*inputs)
    dy = torch.rand(want.shape, generator=torch.Generator().manual_seed(2), dtype=want.dtype)
    got = torch.compile(function, backend="deepseek")(*inputs)
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(
        torch.autograd.grad(got, wanted, dy), torch.autograd.grad(want, wanted, dy), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    assert not bridge.explain().eager_ops, bridge.explain()


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_sampling_an_image(mode: str, padding: str, align_corners: bool) -> None:
    grid = random(2, 3, 7, 2) * 2  # many points lie outside
    check(lambda x, g: F.grid_sample(x, g, mode, padding, align_corners), random(2, 3, 5, 1), grid)
    check(lambda x, g: F.grid_sample(x, g, mode, padding, align_corners), random(2, 1, 4, 6), grid)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_sampling_a_volume(mode: str, padding: str, align_corners: bool) -> None:
    grid = random(2, 2, 3, 4, 3) * 2
    check(lambda x, g: F.grid_sample(x, g, mode, padding, align_corners), random(2, 2, 3, 4, 5), grid)


@pytest.mark.parametrize("padding_idx", [None, 3])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags(mode: str, padding_idx: int | None) -> None:
    indices = torch.tensor([1, 3, 3, 0, 5, 1, 1, 2, 3])
    offsets = torch.tensor([0, 0, 2, 3, 7, 9])  # bags 0 and 5 are empty, bag 2 holds padding alone

    def bags(weight: Tensor) -> Tensor:
        return F.embedding_bag(indices, weight, offsets, mode=mode, padding_idx=padding_idx)

    check(bags, random(6, 4))


def test_bags_with_weights_and_last_offset() -> None:
    indices, offsets = torch.tensor([4, 0, 0, 2, 1]), torch.tensor([0, 3, 3, 5])

    def bags(weight: Tensor, scales: Tensor) -> Tensor:
        return F.embedding_bag(
            indices, weight, offsets, mode="sum", per_sample_weights=scales, include_last_offset=True
        )

    check(bags, random(5, 3), random(5))
    check(lambda w: F.embedding_bag(torch.tensor([[1, 2], [2, 2]]), w, mode="mean"), random(4, 3))


def test_rows_that_are_made_shorter() -> None:
    table = random(5, 3) * 4
    index = torch.tensor([1, 4, 1])

    def rows(weight: Tensor) -> Tensor:
        return F.embedding(index, weight.clone(), max_norm=1.0)

    bridge.reset()
    torch.testing.assert_close(torch.compile(rows, backend="deepseek")(table), rows(table))
    assert not bridge.explain().eager_ops, bridge.explain()
