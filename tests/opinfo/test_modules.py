"""PyTorch's module database through torch.compile: evaluation, and training with all gradients and buffers.
Whole with DEEPSEEK_WHOLE_SUITES=1; `suite.py --modules` prints what is missing.
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from support.by_path import load

suite = load("opinfo_suite", Path(__file__).with_name("suite.py"))

GATES = {"inference": 0.9, "training": 0.85, "evaluation": 0.85}  # compiled whole


@pytest.fixture(scope="module")
def outcomes(whole_suites: bool) -> "list[suite.Outcome]":
    chosen = suite.modules()
    found = suite.run_all(chosen, 0) if whole_suites else suite.run_all(suite.fixed_part(chosen, 19), 1)
    print(suite.summary(found))
    return found


def test_nothing_is_wrong_and_nothing_fails(outcomes: "list[suite.Outcome]") -> None:
    bad = ("wrong", "crash", "timeout", "error")
    assert not [f"{o.task}: {result}" for o in outcomes for result in o.results if result[0] in bad]


@pytest.mark.parametrize(("kind", "gate"), GATES.items())
def test_rate(
    outcomes: "list[suite.Outcome]",
    kind: str,
    gate: float,
    whole_suites: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    some = [o for o in outcomes if o.task.kind == kind]
    with capsys.disabled():
        print(f"\nmodule_db, {kind}: {suite.rate(some)}")
    # In the fixed part a module of many samples would outweigh all others.
    assert (suite.share(some) if whole_suites else suite.mean(some)) >= gate


def test_gradients_and_buffers_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = load("module_worker", Path(__file__).with_name("module_worker.py"))
    call = worker.Call(torch.nn.BatchNorm1d(3), (torch.randn(4, 3, requires_grad=True),), {})

    class Halved(torch.nn.Module):
        """The same values, half the gradients."""

        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.module(x)
            return y.detach() / 2 + y / 2

    class Forgetful(Halved):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            before = [buffer.clone() for buffer in self.module.buffers()]
            y: torch.Tensor = self.module(x)
            for buffer, old in zip(self.module.buffers(), before, strict=True):
                buffer.data.copy_(old)
            return y

    assert worker.check(call, gradient=True)[0] == "compiled"
    for altered in (Halved, Forgetful):
        monkeypatch.setattr(worker, "compiled", altered)
        assert worker.check(call, gradient=True)[0] == "wrong"
