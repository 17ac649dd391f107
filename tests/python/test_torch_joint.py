"""Rewrites of joint graphs: results and gradients stay eager PyTorch's, and logits are in memory once."""

from __future__ import annotations

import copy
from collections.abc import Callable

import deepseek.torch  # noqa: F401  (the backend)
import pytest
import torch
from deepseek.torch import piece
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax, nll_loss

WORDS, WIDTH, BATCH, LENGTH = 700, 12, 3, 10
Loss = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.embedding(ids))
        return result


def next_word(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def every_word(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(ids).flatten(0, 1), ids.flatten(), label_smoothing=0.1)


def some_rows(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    rows: torch.Tensor = model(ids)[1:, 1:8:3]
    return rows.square().sum()


def some_columns(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    columns: torch.Tensor = model(ids)[:, :, 5:50]
    return columns.exp().sum()


def all_rows_too(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    logits = model(ids)
    result: torch.Tensor = logits[:, 2:].square().sum() + logits.sin().sum()
    return result


def ignored_and_weighed(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    aim = torch.where(ids % 3 == 0, -100, ids).flatten()
    return cross_entropy(model(ids).flatten(0, 1), aim, torch.linspace(0.5, 2, WORDS), reduction="sum")


def rows_of_infinities(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    logits = model(ids).flatten(0, 1)
    hidden = torch.arange(WORDS) % 2 == 1
    return cross_entropy(logits.masked_fill(hidden, -torch.inf), ids.flatten() // 2 * 2)


def scores_too(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    scores = log_softmax(model(ids).flatten(0, 1), 1)
    return nll_loss(scores, ids.flatten()) + scores.square().mean()


LOSSES = (
    next_word,
    every_word,
    some_rows,
    some_columns,
    all_rows_too,
    ignored_and_weighed,
    rows_of_infinities,
    scores_too,
)


def setting() -> tuple[Model, torch.Tensor]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    return Model(), torch.randint(0, WORDS, (BATCH, LENGTH))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_losses_and_gradients_are_eager_ones(loss: Loss) -> None:
    model, ids = setting()
    other = copy.deepcopy(model)
    expected, found = loss(model, ids), torch.compile(loss, backend="deepseek")(other, ids)
    expected.backward()
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-4, atol=1e-5)


def test_rows_that_may_be_any_number() -> None:
    model, _ = setting()
    run = torch.compile(next_word, backend="deepseek", dynamic=True)
    for length in (10, 7, 13):
        ids = torch.randint(0, WORDS, (BATCH, length))
        model.zero_grad()
        next_word(model, ids).backward()
        expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        run(model, ids).backward()
        for p, q in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, q, rtol=1e-4, atol=1e-5)


def test_logits_are_in_memory_once_and_their_gradient_once() -> None:
    model, ids = setting()
    run = torch.compile(next_word, backend="deepseek")
    run(model, ids).backward()
    with piece.recorded() as calls:
        run(model, ids).backward()
    (forward, _), (backward, given) = calls
    logits = BATCH * (LENGTH - 1) * WORDS
    assert sum(tensor.numel() == logits for tensor in given) == 1  # kept, of the rows that are read
    assert forward.context.arena_bytes < 4 * logits
    assert backward.context.arena_bytes < 2 * 4 * logits
