"""Random draws of compiled functions: distribution, seeds, and runs that are equal bit by bit."""

import math
import os
import subprocess
import sys
from typing import Any

import deepseek.torch as bridge
import pytest
import torch
import torch.utils.checkpoint
from torch import nn

RUN = """
import sys, torch
from torch import nn

torch.manual_seed(5)
layer = nn.TransformerEncoderLayer(32, 2, 64, 0.2, "gelu", batch_first=True)
model = nn.Sequential(nn.Linear(8, 32), layer, nn.Linear(32, 3)).train()
run = torch.compile(model, backend="deepseek")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for _ in range(5):
    loss = run(torch.randn(4, 6, 8)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
state = torch.cat([p.detach().flatten() for p in model.parameters()])
print(loss.item().hex(), hash(state.numpy().tobytes()))
"""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_has_its_distribution(probability: float) -> None:
    """How many are dropped in all, and of each pair of neighbours, within five standard deviations."""
    count = 1 << 18
    drop = torch.compile(nn.Dropout(probability).train(), backend="deepseek")
    torch.manual_seed(1)
    y = drop(torch.ones(count))
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / (1 - probability)).item()}
    dropped = (y == 0).double()
    pairs = dropped[::2] * dropped[1::2]
    for share, expected, draws in (
        (dropped.mean(), probability, count),
        (pairs.mean(), probability**2, count // 2),
    ):
        assert abs(share - expected) <= 5 * (expected * (1 - expected) / draws) ** 0.5


def test_a_seed_repeats_the_draws_and_they_go_on_without_one() -> None:
    drop = torch.compile(nn.Dropout(0.5).train(), backend="deepseek")
    x = torch.ones(1000)
    torch.manual_seed(1)
    first, second = drop(x), drop(x)
    torch.manual_seed(1)
    assert torch.equal(drop(x), first)
    assert torch.equal(drop(x), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("layout", ["rows", "transposed", "channels last", "expanded"])
def test_seeds_give_the_masks_of_eager(layout: str, dynamic: bool) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        if layout == "transposed":
            x = x.transpose(0, 2)
        if layout == "channels last":
            x = x.contiguous(memory_format=torch.channels_last)
        y = x * 2
        return nn.functional.dropout(y[:, :1].expand(-1, 4, -1, -1) if layout == "expanded" else y, 0.3)

    x = torch.ones(3, 4, 5, 6)
    torch.manual_seed(1)
    want = function(x)
    torch.manual_seed(1)
    torch.testing.assert_close(torch.compile(function, backend="deepseek", dynamic=dynamic)(x), want)


def test_a_layer_with_dropout_everywhere_follows_eager() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 2, 64, 0.2, "gelu", batch_first=True).train()
    x = torch.randn(4, 6, 32)

    def step(run: Any) -> list[torch.Tensor]:
        layer.zero_grad()
        torch.manual_seed(1)
        y = run(x)
        y.square().mean().backward()
        return [y.detach(), *(p.grad for p in layer.parameters() if p.grad is not None)]

    torch.testing.assert_close(step(torch.compile(layer, backend="deepseek")), step(layer))


def test_two_runs_are_equal_bit_by_bit() -> None:
    command = [sys.executable, "-c", RUN]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    results = {
        subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        for _ in range(2)
    }
    assert len(results) == 1


@pytest.mark.parametrize("given", ["both", "mean", "std"])
def test_normal_draws_those_of_eager(given: str) -> None:
    mean, std = torch.linspace(-3, 3, 60).reshape(6, 10), torch.linspace(0, 2, 10)

    def function(mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        if given == "both":
            return torch.normal(mean, std)
        return torch.normal(mean, 1.5) if given == "mean" else torch.normal(0.5, std)

    torch.manual_seed(1)
    want = function(mean, std)
    torch.manual_seed(1)
    bridge.reset()
    torch.testing.assert_close(torch.compile(function, backend="deepseek")(mean, std), want)
    assert not bridge.explain().eager_ops
    if given != "mean":
        with pytest.raises(RuntimeError, match="std >= 0"):
            torch.compile(function, backend="deepseek")(mean, std - 1)


def test_a_checkpoint_draws_its_dropout_again() -> None:
    """What is computed again for the gradient uses the mask of the forward pass; both are eager's."""

    def function(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        def block(x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout((x @ weight).sin(), 0.5).cos()

        y = nn.functional.dropout(x, 0.3)
        return torch.utils.checkpoint.checkpoint(block, y, use_reentrant=False) + torch.rand_like(x)

    bridge.reset()
    found = []
    for run in (torch.compile(function, backend="deepseek", fullgraph=True), function):
        torch.manual_seed(11)
        tensors = [torch.linspace(-1, 1, 36).reshape(6, 6).requires_grad_() for _ in range(2)]
        y = run(*tensors)
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), tensors), torch.rand(3)])
    torch.testing.assert_close(*found)
    explanation = bridge.explain()
    assert not explanation.eager_ops
    assert explanation.draws["aten.bernoulli.p"] == 3


@pytest.mark.parametrize("shape", [(5,), (3, 40)])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_choice_by_probabilities_is_that_of_eager(
    dtype: torch.dtype, count: int, shape: tuple[int, ...]
) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.multinomial(x.softmax(-1), count)

    bridge.reset()
    run = torch.compile(function, backend="deepseek", fullgraph=True)
    for seed in range(5):
        torch.manual_seed(seed)
        x = torch.randn(shape).to(dtype)
        found = []
        for each in (run, function):
            torch.manual_seed(seed)
            found.append([each(x), torch.rand(2)])
        torch.testing.assert_close(*found)
    assert (count > 1 and dtype is torch.bfloat16) or not bridge.explain().eager_ops
    with pytest.raises(RuntimeError):
        run(torch.full(shape, math.nan, dtype=dtype))
