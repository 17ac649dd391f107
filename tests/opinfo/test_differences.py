"""What gradients are compared with: finite differences; elsewhere, up to the choice among equal elements."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.by_path import load


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    return load("opinfo_worker", Path(__file__).with_name("worker.py"))


def halved(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The same values, half the gradients."""

    def call(x: torch.Tensor) -> torch.Tensor:
        y = function(x)
        return y.detach() / 2 + y / 2

    return call


@pytest.mark.parametrize("size", [3, 80])
def test_differences(worker: ModuleType, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    op = next(op for op in op_db if op.name == "exp")
    x = torch.linspace(-1, 1, size, dtype=torch.float64, requires_grad=True)
    sample = next(iter(op.sample_inputs("cpu", torch.float64, requires_grad=True)))
    sample.input = x
    assert worker.check_differences(op, sample)[0] == "compiled"
    monkeypatch.setattr(worker, "compiled", halved)
    status, message = worker.check_differences(op, sample)
    assert status == "wrong"
    assert "Jacobian mismatch" in message


def test_equal_elements_share_their_gradient(worker: ModuleType) -> None:
    x = torch.tensor([[2.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0]])
    gradient = torch.arange(8.0).reshape(2, 4)
    assert worker.shared(x, gradient, dim=1).tolist() == [[2, 1, 2, 3], [15, 15, 15, 7]]
    assert worker.shared(x.mT, gradient.mT, dim=0).tolist() == [[2, 15], [1, 15], [2, 15], [3, 7]]
