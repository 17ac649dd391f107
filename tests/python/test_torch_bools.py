"""Ops on truth values, where sums are "or" and products "and", and writes that meet at one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import deepseek.torch as bridge
import pytest
import torch
from torch import Tensor

X = torch.tensor([[True, False, True, False], [True, False, False, True], [False, False, True, True]])
Y = torch.tensor([[True, True, False, False], [False, False, True, False], [True, True, True, True]])
COLUMNS = torch.tensor([[0, 0, 1, 3], [1, 1, 1, 1], [2, 0, 2, 2]])
ROWS = torch.tensor([0, 2, 0])
FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "index_add": lambda x, y: x.index_add(0, ROWS, y),
    "index_put": lambda x, y: x.index_put((ROWS, torch.tensor([1, 1, 1])), y[:, 0], accumulate=True),
    "put": lambda x, y: x.put(COLUMNS, y, accumulate=True),
    "scatter_add": lambda x, y: x.scatter_add(1, COLUMNS, y),
    "clamp_min": torch.clamp_min,
    "clamp_max": torch.clamp_max,
    "prod": lambda x, y: (x.prod(1), y.int().prod(0, dtype=torch.bool), x.prod(1, dtype=torch.bool)),
    "sum": lambda x, y: (x.sum(1), y.int().sum((0, 1), dtype=torch.bool), x.sum(1, dtype=torch.bool)),
    "sign": lambda x, y: (x.sign(), y.sgn()),
    "isnan": lambda x, y: (x.isnan(), y.isinf()),
}


def compiled(function: Callable[..., Any], *args: Tensor) -> Any:
    torch._dynamo.reset()
    bridge.reset()
    result = torch.compile(function, backend="deepseek", fullgraph=True)(*args)
    assert not bridge.explain().eager_ops
    return result


@pytest.mark.parametrize("name", FUNCTIONS)
def test_truth_values(name: str) -> None:
    function = FUNCTIONS[name]
    torch.testing.assert_close(compiled(function, X, Y), function(X, Y), rtol=0, atol=0)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("name", ["sum", "prod", "amax", "amin"])
def test_reductions_of_truth_values(name: str, include_self: bool) -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        return x.scatter_reduce(1, COLUMNS, y, name, include_self=include_self)

    torch.testing.assert_close(compiled(function, X, Y), function(X, Y), rtol=0, atol=0)


def test_more_writes_to_one_place_than_the_dtype_counts() -> None:
    index, x = torch.zeros(256, dtype=torch.int64), torch.full([2], 100, dtype=torch.uint8)

    def function(x: Tensor, y: Tensor) -> Tensor:
        return x.scatter_reduce(0, index, y, "amax", include_self=False)

    y = torch.arange(256).remainder(7).to(torch.uint8)
    assert compiled(function, x, y).tolist() == [6, 100]
