"""Connectionist temporal classification: losses and gradients as eager PyTorch has them, in one graph."""

from typing import Any

import deepseek.torch as bridge
import pytest
import torch
from torch.nn import functional

STEPS, BATCH, CLASSES, LONGEST = 7, 4, 5, 3


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()
    bridge.reset()
    torch.manual_seed(0)


def check(log_probs: torch.Tensor, *args: Any, **kwargs: Any) -> None:
    def loss(x: torch.Tensor) -> torch.Tensor:
        return functional.ctc_loss(x, *args, **kwargs)

    x = log_probs.requires_grad_()
    got, want = torch.compile(loss, backend="deepseek", fullgraph=True)(x), loss(x)
    torch.testing.assert_close(got, want)
    dy = torch.rand(want.shape)
    gradients = (torch.autograd.grad(y, x, dy)[0] for y in (got, want))
    torch.testing.assert_close(*gradients, equal_nan=True)
    assert not bridge.explain().eager_ops


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("joined", [False, True])
def test_losses_and_gradients(joined: bool, tensors: bool, reduction: str, zero_infinity: bool) -> None:
    log_probs = torch.randn(STEPS, BATCH, CLASSES).log_softmax(2)
    targets = torch.tensor([[1, 2, 2], [4, 0, 0], [3, 3, 3], [0, 0, 0]])
    steps, lengths = (
        [7, 4, 4, 5],
        [3, 1, 3, 0],
    )  # three equal labels take five steps
    if joined:
        targets = torch.cat([row[:n] for row, n in zip(targets, lengths, strict=True)])
    given = (torch.tensor(steps), torch.tensor(lengths)) if tensors else (steps, lengths)
    check(log_probs, targets, *given, reduction=reduction, zero_infinity=zero_infinity)


def test_one_sequence_and_another_blank() -> None:
    log_probs = torch.randn(STEPS, CLASSES, dtype=torch.float64).log_softmax(1)
    check(log_probs, torch.tensor([0, 1, 1]), torch.tensor(6), torch.tensor(3), blank=4)


def test_lengths_beyond_the_sequence_are_refused() -> None:
    log_probs = torch.randn(STEPS, 1, CLASSES).log_softmax(2)
    loss = torch.compile(functional.ctc_loss, backend="deepseek")
    with pytest.raises(RuntimeError, match="input_lengths"):
        loss(log_probs, torch.ones(1, 3, dtype=torch.int64), torch.tensor([8]), torch.tensor([3]))


def test_long_sequences_run_in_pytorch() -> None:
    x = torch.randn(80, 1, CLASSES).log_softmax(2)
    loss = torch.compile(functional.ctc_loss, backend="deepseek")
    for lengths in (([80], [3]), (torch.tensor([80]), torch.tensor([3]))):
        args = (x, torch.ones(1, 3, dtype=torch.int64), *lengths)
        torch.testing.assert_close(loss(*args), functional.ctc_loss(*args))
