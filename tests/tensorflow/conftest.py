"""TensorFlow is the oracle. The rate of each file's cases is printed at the end."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.path.insert(0, str(Path(__file__).parent))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    rates: dict[str, list[int]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when == "call":
                rate = rates.setdefault(Path(report.fspath).stem.removeprefix("test_"), [0, 0])
                rate[0] += outcome == "passed"
                rate[1] += 1
    for name, (right, all_cases) in sorted(rates.items()):
        terminalreporter.write_line(f"tensorflow {name}: {right} of {all_cases} right")


@pytest.fixture(autouse=True)
def _fixed_weights() -> None:
    import keras

    keras.utils.set_random_seed(1)
    keras.backend.clear_session()
