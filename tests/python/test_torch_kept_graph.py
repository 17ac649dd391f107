"""A graph that the user keeps for another backward pass (retain_graph) gives its slopes again."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

WORDS, WIDTH, ROWS = 4096, 16, 64


class Head(nn.Module):
    """The end of a language model, with its loss: logits are by far the largest tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return cross_entropy(self.head(torch.tanh(self.inner(x))), target)


@pytest.fixture
def head() -> tuple[Head, tuple[torch.Tensor, torch.Tensor]]:
    torch._dynamo.reset()
    torch.manual_seed(0)
    return Head(), (torch.randn(ROWS, WIDTH), torch.randint(0, WORDS, (ROWS,)))


def slopes(model: nn.Module) -> list[torch.Tensor]:
    found = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found


def eager_slopes(model: Head, batch: tuple[torch.Tensor, torch.Tensor]) -> list[torch.Tensor]:
    model(*batch).backward()
    return slopes(model)


@pytest.mark.parametrize("first", [True, False])
def test_a_kept_graph_gives_its_slopes_again(
    head: tuple[Head, tuple[torch.Tensor, torch.Tensor]], first: bool
) -> None:
    model, batch = head
    want = eager_slopes(model, batch)
    compiled = torch.compile(model, backend="deepseek")
    if not first:
        compiled(*batch).backward()
        slopes(model)
    loss = compiled(*batch)
    for again in (True, True, False):
        loss.backward(retain_graph=again)
        for got, right in zip(slopes(model), want, strict=True):
            torch.testing.assert_close(got, right)
