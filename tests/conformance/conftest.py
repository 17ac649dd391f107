"""Lets the suite's modules import one another; the whole suite runs between guard pages."""

import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from deepseek._core import set_guard

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(autouse=True)
def between_guard_pages() -> Generator[None]:
    """A kernel that leaves a buffer is a crash, which pytest-xdist reports as a failure of the test."""
    set_guard("end")
    yield
    set_guard("none")
