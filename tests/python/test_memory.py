"""What compiling took and running does not need goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import re, numpy as np, deepseek as ds
def code_mb():
    sizes = [0.0]
    for line in open("/proc/self/smaps"):
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            ours = "libdeepseek.so" in line and " r-xp " in line
        elif ours and line.startswith("Rss:"):
            sizes.append(int(line.split()[1]) / 1e3)
    return sum(sizes)
def compiled():
    graph = ds.Graph()
    x, w = graph.placeholder("x", [4, 64]), graph.constant(np.eye(64, dtype=np.float32))
    graph.output("y", graph.softmax(graph.matmul(x, w), axis=-1))
    return ds.compile(graph, "cpu", tune="off")
before, first = code_mb(), compiled()
after = code_mb()
x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
again = compiled()
print(before, after, np.array_equal(first.run({"x": x})["y"], again.run({"x": x})["y"]))
"""


def test_the_compilers_code_leaves_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_CACHE_DIR", str(tmp_path))
    result = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    before, after, equal = result.stdout.split()
    assert float(before) > 4 > float(after)
    assert equal == "True"
