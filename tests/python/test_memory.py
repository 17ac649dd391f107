"""What compiling or loading took and running does not need goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE_MB = """
import re
def code_mb():
    sizes = [0.0]
    for line in open("/proc/self/smaps"):
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            ours = "libdeepseek.so" in line and " r-xp " in line
        elif ours and line.startswith("Rss:"):
            sizes.append(int(line.split()[1]) / 1e3)
    return sum(sizes)
"""

COMPILED = """
import numpy as np, deepseek as ds
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

READ = """
import torch, deepseek.torch as bridge
from torch._dynamo.utils import counters
model = torch.nn.Linear(64, 64)
step = torch.compile(lambda x: torch.relu(model(x)).sum(), backend="deepseek")
before = code_mb()
step(torch.randn(4, 64)).backward()
print(before, code_mb(), counters["aot_autograd"]["autograd_cache_hit"])
"""


def said(code: str) -> list[str]:
    command = [sys.executable, "-c", CODE_MB + code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_the_compilers_code_leaves_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_CACHE_DIR", str(tmp_path))
    before, after, equal = said(COMPILED)
    assert float(before) > 4 > float(after)
    assert equal == "True"


def test_it_leaves_as_well_where_a_training_step_was_compiled_by_an_earlier_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSEEK_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_AUTOGRAD_CACHE", "1")
    assert said(READ)[-1] == "0"
    before, after, hits = said(READ)
    assert float(before) > 4 > float(after)
    assert hits == "1"
