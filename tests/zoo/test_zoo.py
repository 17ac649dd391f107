"""Some architectures of each library; all of them with DEEPSEEK_WHOLE_SUITES=1. `run.py` prints the rates."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
import run
from check import Inputs, Runs, compare

RUN = Path(__file__).parent / "run.py"
# One of each kind: attention with a mask, a mixture of experts, a state space, sound, convolutions, windows.
FIXED = {
    "transformers": ["bert", "llama_padded", "mamba", "t5"],
    "timm": ["convnext_atto", "swin_tiny_patch4_window7_224", "test_nfnet"],
}
# The share of each list that has to be wholly ours.
OURS = 0.95


@pytest.mark.parametrize("library", FIXED)
def test_models(library: str, whole_suites: bool) -> None:
    names = [] if whole_suites else FIXED[library]
    command = [sys.executable, str(RUN), library, *names, "--ours", str(OURS)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr


def runs(off: float) -> Runs:
    """A forward pass and a step whose gradient is off by this share."""
    return [torch.ones(3)], {"loss": torch.ones(()), "gradient of w": torch.ones(3) + off}


def test_a_fault_is_excused_only_where_eager_has_it_too() -> None:
    exact, eager, ours = runs(0), runs(1e-6), runs(1e-2)
    assert compare(eager, eager, exact).worst <= 1
    assert compare(ours, eager, exact).worst > 1
    assert compare(ours, eager, exact, [runs(1e-6), runs(1e-3)]).worst > 1
    assert compare(ours, eager, exact, [runs(1e-6), runs(1.1e-2)]).worst <= 1


class Endless:
    name = "endless"

    def build(self) -> tuple[torch.nn.Module, Inputs]:
        while True:
            pass


def test_a_model_has_its_time_of_the_processor() -> None:
    told = list[Any]()
    run.run([Endless()], 1, 1, told.append)
    assert [(v.state, v.reason) for v in told] == [("time-out", f"wait status {int(signal.SIGXCPU)}")]
