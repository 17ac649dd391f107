"""Rules for every Python test: a skipped or expectedly failing test is a failure, except for hardware.

`pytest.skip("hardware: AMX")` is for what this machine lacks; ./dev test lists it as not run.
"""

import os
from collections.abc import Generator
from typing import Any

import pytest

# Tests compile what they test: nothing comes out of PyTorch's cache of an earlier run.
os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE", "0")

WHOLE = os.environ.get("DEEPSEEK_WHOLE_SUITES") == "1"  # set by ./dev test-all


def refuse_skip(report: Any) -> None:
    text = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if report.skipped and "hardware:" not in text:
        report.outcome = "failed"
        report.longrepr = f"skipping is not allowed here: {text}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield
    refuse_skip(report)
    return report


@pytest.fixture(scope="session")
def whole_suites() -> bool:
    """True when the whole of a big suite is to run instead of its fixed part."""
    return WHOLE
