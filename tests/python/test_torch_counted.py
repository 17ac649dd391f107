"""Ops whose results are as long as the data say, compiled whole for all lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import deepseek.torch as bridge
import pytest
import torch
from torch import Tensor

INPUTS = [
    torch.tensor([[3, 1, 2, 2], [3, 1, 2, 2], [0, 5, 5, 1], [0, 5, 5, 0]]),
    torch.zeros(4, 4, dtype=torch.int64),
    torch.arange(16).flip(0).reshape(4, 4),
    torch.tensor([[0, 0, 1, 0]] * 4),
]
FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "nonzero": torch.nonzero,
    "argwhere": torch.argwhere,
    "masked_select": lambda x: torch.masked_select(x, x > 1),
    "unique": lambda x: torch.unique(x),
    "unique_all": lambda x: torch.unique(x, return_inverse=True, return_counts=True),
    "unique_rows": lambda x: torch.unique(x, dim=0, return_inverse=True, return_counts=True),
    "unique_columns": lambda x: torch.unique(x, dim=-1),
    "consecutive": lambda x: torch.unique_consecutive(x, return_inverse=True, return_counts=True),
    "consecutive_rows": lambda x: torch.unique_consecutive(x, True, True, dim=0),
}


@pytest.fixture(autouse=True)
def handed_over() -> Iterator[None]:
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        yield


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_lengths(name: str, dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    bridge.reset()
    function = FUNCTIONS[name]
    compiled = torch.compile(function, backend="deepseek", fullgraph=True)
    for x in INPUTS:
        x = x.to(dtype)
        torch.testing.assert_close(compiled(x), function(x), rtol=0, atol=0)
    explanation = bridge.explain()
    assert len(explanation.records) == 1
    assert not explanation.eager_ops, explanation


SMALL: dict[str, Callable[[Tensor], Any]] = {
    "nonzero": torch.nonzero,
    "masked_select": lambda x: torch.masked_select(x, x > 0),
    "unique": lambda x: torch.unique(x, return_inverse=True, return_counts=True),
    "consecutive": lambda x: torch.unique_consecutive(x, return_inverse=True, return_counts=True),
    "consecutive_rows": lambda x: torch.unique_consecutive(x, True, True, dim=0),
    "unique_rows": lambda x: torch.unique(x, dim=0, return_inverse=True, return_counts=True),
}


# PyTorch refuses rows of a number and unique rows of no elements; it takes the length of a selection from
# no elements to be unknown, and runs that and its consecutive rows itself.
FEW: list[tuple[int, ...]] = [(), (0,), (0, 3), (1,), (2,), (1, 1), (2, 1)]
LEFT = {("unique_rows", ()), ("consecutive_rows", ())} | {
    (name, shape)
    for name in ("masked_select", "unique_rows", "consecutive_rows")
    for shape in FEW
    if 0 in shape
}


@pytest.mark.parametrize(
    ("name", "shape"), [(n, shape) for n in SMALL for shape in FEW if (n, shape) not in LEFT]
)
def test_few_elements(name: str, shape: tuple[int, ...]) -> None:
    """What PyTorch takes lengths to be depends on how few elements there are."""
    torch._dynamo.reset()
    bridge.reset()
    function = SMALL[name]
    compiled = torch.compile(function, backend="deepseek", fullgraph=True)
    for x in (torch.zeros(shape), torch.ones(shape), torch.rand(shape)):
        torch.testing.assert_close(compiled(x), function(x), rtol=0, atol=0)
    assert not bridge.explain().eager_ops


def test_what_follows_runs_in_pytorch() -> None:
    bridge.reset()
    x = INPUTS[0].float()
    got = torch.compile(lambda x: torch.unique(x * 2) + 1, backend="deepseek", fullgraph=True)(x)
    torch.testing.assert_close(got, torch.unique(x * 2) + 1)
    assert list(bridge.explain().eager_ops) == ["aten.add.Tensor"]


@pytest.mark.parametrize("shape", [(), (1,), (2,), (0, 3), (3, 1)])
@pytest.mark.parametrize("name", ["nonzero", "masked_select", "unique", "consecutive"])
def test_few_elements_and_none(name: str, shape: tuple[int, ...]) -> None:
    function = FUNCTIONS[name]
    for fill in (0, 2):
        torch._dynamo.reset()
        x = torch.full(shape, fill)
        got = torch.compile(function, backend="deepseek", fullgraph=True)(x)
        torch.testing.assert_close(got, function(x), rtol=0, atol=0)


def test_symbolic_sizes_go_to_pytorch() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ordered = x.sort()[0]
        return x.nonzero(), x[x > 1], x.unique(), ordered.unique_consecutive(), x.unique(dim=0)

    torch._dynamo.reset()
    run = torch.compile(function, backend="deepseek", dynamic=True, fullgraph=True)
    for size in (4, 9):
        x = torch.arange(size * 3).reshape(size, 3) % 4
        torch.testing.assert_close(run(x), function(x))


def test_repeats_of_a_known_sum() -> None:
    def function(x: Tensor, times: Tensor) -> Tensor:
        return torch.repeat_interleave(x.sin(), times, dim=0, output_size=7)

    torch._dynamo.reset()
    bridge.reset()
    run = torch.compile(function, backend="deepseek", fullgraph=True)
    x = torch.randn(4, 3)
    for times in ([1, 2, 3, 1], [0, 7, 0, 0], [0, 0, 0, 7]):
        torch.testing.assert_close(run(x, torch.tensor(times)), function(x, torch.tensor(times)))
    assert not bridge.explain().eager_ops
    with pytest.raises(RuntimeError):
        run(x, torch.tensor([1, 2, 3, 2]))
