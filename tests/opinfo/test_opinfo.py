"""Samples of PyTorch's operator database through torch.compile, forward and backward: none may be wrong, none
may end the process, and most are compiled whole. Whole with DEEPSEEK_WHOLE_SUITES=1 (hours); suite.py prints
what is missing.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.by_path import load

suite = load("opinfo_suite", Path(__file__).with_name("suite.py"))

GATES = {"forward": 0.9, "gradient": 0.85, "gradcheck": 0.85}  # of all samples, compiled whole


@pytest.fixture(scope="module")
def outcomes(whole_suites: bool) -> "list[suite.Outcome]":
    chosen, checks = suite.tasks(), suite.gradchecks()
    if whole_suites:
        found = suite.run_all(chosen + checks, 0)
    else:
        found = suite.run_all(suite.fixed_part(chosen) + suite.fixed_part(checks, 40), 1)
    print(suite.summary(found))
    return found


def bad(outcomes: "list[suite.Outcome]", *statuses: str) -> list[str]:
    return [
        f"{o.task}: {status}: {message}"
        for o in outcomes
        for status, message in o.results
        if status in statuses
    ]


def test_nothing_is_wrong(outcomes: "list[suite.Outcome]") -> None:
    assert not bad(outcomes, "wrong")


def test_no_crash_and_no_error(outcomes: "list[suite.Outcome]") -> None:
    assert not bad(outcomes, "crash", "timeout", "error")


@pytest.mark.parametrize(("kind", "gate"), GATES.items())
def test_rate(
    outcomes: "list[suite.Outcome]", kind: str, gate: float, capsys: pytest.CaptureFixture[str]
) -> None:
    some = [o for o in outcomes if o.task.kind == kind]
    with capsys.disabled():
        print(f"\nOpInfo, {kind}: {suite.rate(some)}")
    assert suite.share(some) >= gate
