"""The guides show whole files: an entry of the op table, and the two classes of a target."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOWN = [
    ("docs/add-an-op.md", "src/ops/distance.cc"),
    ("docs/add-a-target.md", "tests/toy/toy_target.h"),
    ("docs/add-a-target.md", "tests/toy/toy_target.cc"),
]


@pytest.mark.parametrize(("guide", "path"), SHOWN)
def test_whole_files_are_shown(guide: str, path: str) -> None:
    blocks = re.findall(rf"^```cpp {re.escape(path)}\n(.*?)^```\n", (ROOT / guide).read_text(), re.M | re.S)
    shown = {line for block in blocks for line in block.splitlines()}
    lines = [line for line in (ROOT / path).read_text().splitlines() if line]
    assert [line for line in lines if line not in shown] == []
