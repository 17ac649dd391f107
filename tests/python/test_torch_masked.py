"""Writes through masks of bools: what gets a gradient is compiled whole, as what gets none."""

from collections.abc import Callable

import deepseek.torch as bridge
import pytest
import torch
from torch import Tensor


def at_elements(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    y = x * 2
    y[mask] = value.sum()
    return y.sin()


def at_rows(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    y = x * 2
    y[mask[:, 0]] = value
    return y.sin()


def one_row(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    y = x * 2
    y[mask[:, 0]] = value.unsqueeze(0)
    return y.sin()


def in_a_view(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    y = x * 2
    y.T[mask.T] = value[1]
    return y * y


def of_itself(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    y = x * value
    y[mask] = y.mean()
    y[~mask] = y.sum() / 9
    return y


def of_a_number(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    y = x * value
    y[mask] = 0.5
    y[mask[:, 1]] = -2
    return y


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("function", [at_elements, at_rows, one_row, in_a_view, of_itself, of_a_number])
def test_writes(function: Callable[..., Tensor], dynamic: bool) -> None:
    torch._dynamo.reset()
    bridge.reset()
    torch.manual_seed(0)
    compiled = torch.compile(function, backend="deepseek", fullgraph=True, dynamic=dynamic)
    for rows, share in ((4, 0.5), (3, 1.0), (6, 0.0)):
        x, value, mask = torch.randn(rows, 5), torch.randn(5), torch.rand(rows, 5) < share
        found = []
        for run in (compiled, function):
            a, b = x.clone().requires_grad_(), value.clone().requires_grad_()
            y = run(a, mask, b)
            found.append([y, *torch.autograd.grad(y, [a, b], torch.ones_like(y), allow_unused=True)])
        ours, theirs = ([torch.zeros(()) if t is None else t for t in each] for each in found)
        torch.testing.assert_close([t.sum() if not t.dim() else t for t in ours], theirs)
    assert not bridge.explain().eager_ops


def test_a_write_to_an_argument() -> None:
    torch._dynamo.reset()

    def function(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
        x[mask] = value
        return x + 1

    mask = torch.tensor([[True, False], [False, True]])
    found = []
    for run in (torch.compile(function, backend="deepseek", fullgraph=True), function):
        x = torch.arange(4.0).reshape(2, 2)
        found.append([run(x, mask, torch.tensor(7.0)), x])
    torch.testing.assert_close(*found)
