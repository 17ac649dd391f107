"""PyTorch's control flow ops through torch.compile: branches and bodies are compiled within the graph."""

from collections.abc import Callable, Sequence
from typing import Any

import deepseek.torch as bridge
import pytest
import torch
from torch import Tensor
from torch._higher_order_ops import map as higher_order_map
from torch._higher_order_ops import scan, while_loop


def check(
    function: Callable[..., Any],
    inputs: Sequence[Sequence[Tensor]],
    dynamic: bool = False,
    train: bool = True,
) -> bridge.Explanation:
    """Compares results, and gradients where asked, of each list of inputs."""
    torch._dynamo.reset()
    bridge.reset()
    compiled = torch.compile(function, backend="deepseek", dynamic=dynamic, fullgraph=True)
    for given in inputs:
        found = []
        for run in (compiled, function):
            tensors = [x.detach().clone().requires_grad_(train and x.is_floating_point()) for x in given]
            results = run(*tensors)
            results = list(results) if isinstance(results, (tuple, list)) else [results]
            if train:
                ends = [y for y in results if y.requires_grad]
                weights = [torch.linspace(0.5, 2, y.numel()).view(y.shape).to(y.dtype) for y in ends]
                starts = [x for x in tensors if x.requires_grad]
                results += torch.autograd.grad(ends, starts, weights, allow_unused=True)
            found.append(results)
        torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    return bridge.explain()


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def branches(x: Tensor, y: Tensor) -> Any:
    def then(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return (x @ y).sin(), x.sum(0)

    def otherwise(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cond(y.sum() > 0, lambda x, y: x - y, lambda x, y: x * y, (x, y)), y.amax(0)

    return torch.cond(x.sum() > 0, then, otherwise, (x, y))


SIDES = [
    (sign * numbers(4, 4).abs(), other * numbers(4, 4, seed=1).abs()) for sign in (1, -1) for other in (1, -1)
]


@pytest.mark.parametrize("train", [False, True])
def test_branches(train: bool) -> None:
    assert not check(branches, SIDES, train=train).eager_ops


def test_branches_of_symbolic_sizes() -> None:
    def then(x: Tensor) -> Tensor:
        return x.reshape(-1).reshape(x.shape).sum(0) / x.shape[0]

    def otherwise(x: Tensor) -> Tensor:
        return (x * x).mean(0) + x[0]

    def function(x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, then, otherwise, (x,))

    inputs = [(sign * numbers(n, 6).abs(),) for n in (3, 5, 8) for sign in (1, -1)]
    assert not check(function, inputs, dynamic=True, train=False).eager_ops


def test_a_layer_in_a_branch() -> None:
    layer = torch.nn.Linear(3, 3).requires_grad_(False)

    def function(x: Tensor) -> Tensor:
        return torch.cond(x[0, 0] > 0, lambda x: layer(x).relu(), lambda x: torch.softmax(layer(x), 1), (x,))

    inputs = [(sign * numbers(2, 3).abs(),) for sign in (1, -1)]
    assert not check(function, inputs).eager_ops


def test_random_draws_in_a_branch_are_those_of_pytorch() -> None:
    def function(x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x + torch.rand_like(x), lambda x: x * 2, (x,))

    torch._dynamo.reset()
    compiled = torch.compile(function, backend="deepseek")
    for sign in (1, -1):
        x = sign * numbers(3, 4).abs()
        results = []
        for run in (compiled, function):
            torch.manual_seed(3)
            results.append(run(x))
        torch.testing.assert_close(*results)


def test_a_loop() -> None:
    weight = numbers(4, 4, seed=5)

    def function(rounds: Tensor, x: Tensor) -> Any:
        return while_loop(lambda n, x: n > 0, lambda n, x: (n - 1, (x @ weight).tanh()), (rounds, x))

    inputs = [(torch.tensor(n), numbers(2, 4, seed=n)) for n in (0, 1, 5)]
    assert not check(function, inputs, train=False).eager_ops


def test_a_loop_until_values_are_small() -> None:
    def function(x: Tensor) -> Any:
        return while_loop(lambda x: (x.abs().amax() > 0.1).reshape(()), lambda x: (x * 0.7,), (x,))

    inputs = [(numbers(n, 3, seed=n),) for n in (2, 3, 7)]
    assert not check(function, inputs, dynamic=True, train=False).eager_ops


def running(first: Tensor, rows: Tensor) -> Any:
    def step(state: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        state = (state * 0.5 + row).sin()  # PyTorch refuses to keep what a step returns, as of tanh
        return state, state.sum(-1) * 2

    return scan(step, first, rows)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_scan(train: bool, dynamic: bool) -> None:
    inputs = [(numbers(2, 4), numbers(n, 2, 4, seed=n)) for n in (5, 2, 9)]
    assert not check(running, inputs, dynamic=dynamic, train=train).eager_ops


def test_a_scan_of_several_and_of_scalars() -> None:
    def function(a: Tensor, b: Tensor, rows: Tensor, more: Tensor) -> Any:
        def step(state: Any, row: Any) -> Any:
            a, b = state
            return (a + row[0].sum(), b * row[1]), (a * 2, row[0].flip(0))

        return scan(step, (a, b), (rows, more), reverse=True)

    inputs = [(numbers(), numbers(3), numbers(n, 2, 2), numbers(n)) for n in (1, 4)]
    assert not check(function, inputs, train=False).eager_ops


@pytest.mark.parametrize("train", [False, True])
def test_a_map(train: bool) -> None:
    def function(rows: Tensor, weight: Tensor) -> Any:
        return higher_order_map(lambda row, weight: (row.sin() * weight).cumsum(0), rows, weight)

    inputs = [(numbers(n, 4), numbers(4, seed=3)) for n in (3, 1)]
    assert not check(function, inputs, train=train).eager_ops


@torch.compiler.nested_compile_region
def region(x: Tensor, weight: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x @ weight) + x


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_regions(train: bool, dynamic: bool) -> None:
    def function(x: Tensor, weight: Tensor) -> Tensor:
        for _ in range(3):
            x = region(x, weight).sin()
        return region(x[:, :3], weight[:3, :3])

    inputs = [(numbers(n, 4), numbers(4, 4, seed=3)) for n in (3, 5)]
    explanation = check(function, inputs, train=train, dynamic=dynamic)
    assert not explanation.eager_ops


def test_a_region_that_draws() -> None:
    @torch.compiler.nested_compile_region
    def dropped(x: Tensor) -> Tensor:
        return torch.nn.functional.dropout(x.sin(), 0.5)

    def function(x: Tensor) -> Tensor:
        return dropped(dropped(x) + torch.rand_like(x))

    torch._dynamo.reset()
    bridge.reset()
    found = []
    for run in (torch.compile(function, backend="deepseek", fullgraph=True), function):
        torch.manual_seed(5)
        x = numbers(6, 4).requires_grad_()
        y = run(x)
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), x), torch.rand(2)])
    torch.testing.assert_close(*found)
    assert not bridge.explain().eager_ops
