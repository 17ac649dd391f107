"""The Python in README and docs runs, and prints what the text block after it shows.

A block marked ```python no-run is a fragment: it only has to be valid Python. Blocks share no names.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python( no-run)?\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)


def blocks() -> list[Any]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        for match in BLOCK.finditer(text):
            line = text[: match.start()].count("\n") + 2
            place = f"{document.relative_to(ROOT)}:{line}"
            found.append(pytest.param(place, match[2], match[3], bool(match[1]), id=place))
    return found


@pytest.mark.parametrize(("place", "code", "output", "fragment"), blocks())
def test_block(place: str, code: str, output: str | None, fragment: bool, tmp_path: Path) -> None:
    program = compile(code, place, "exec")
    assert program is not None
    if fragment:
        return
    script = tmp_path / "block.py"
    script.write_text(code)
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    if output is not None:
        assert run.stdout == output


QUOTE = re.compile(r"^```cpp (\S+)\n(.*?)^```", re.M | re.S)
QUOTES = [
    pytest.param(match[1], match[2], id=f"{document.name}:{match[1]}:{number}")
    for document in DOCUMENTS
    for number, match in enumerate(QUOTE.finditer(document.read_text()))
]


@pytest.mark.parametrize(("source", "code"), QUOTES)
def test_quoted_code_is_in_the_tree(source: str, code: str) -> None:
    def words(text: str) -> str:
        return " ".join(text.split())

    assert words(code) in words((ROOT / source).read_text())


FENCED = re.compile(r"^```.*?^```", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    broken = [
        link
        for link in LINK.findall(FENCED.sub("", document.read_text()))
        if not (document.parent / link).exists()
    ]
    assert not broken
