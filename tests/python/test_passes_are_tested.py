"""Each rewrite rule and each pass has a text test of its name in tests/passes."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTED_BY_THEIR_RULES = {
    "canonicalize",
    "simplify",
    "quantised",
    "requantised",
    "channels_last",
    "move_views",
}


@pytest.mark.parametrize("what", ["--list-passes", "--list-rules"])
def test_each_has_a_test(what: str) -> None:
    listed = subprocess.run(
        [ROOT / "build/release/deepseek-opt", what], capture_output=True, text=True, check=True
    )
    names = set(listed.stdout.split()) - TESTED_BY_THEIR_RULES
    assert names
    tests = {path.stem: path.read_text() for path in (ROOT / "tests/passes").glob("*.ds")}
    assert names <= set(tests)
    for name in names - {"decompose"}:
        assert "// Fires" in tests[name], name
        assert "// Must not" in tests[name], name
