"""PyTorch's cache keeps what torch.compile compiled: the next process finds it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = """
import json
import deepseek as ds, deepseek.torch as bridge, torch
from torch import nn
from torch._dynamo.utils import counters

def step(precision="fp32", **options):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5), nn.GELU(), nn.Linear(64, 4))
    compiled = torch.compile(model, backend="deepseek", **options)
    found = []
    with ds.precision(precision):
        for rows in (6, 7):
            y = compiled(torch.randn(rows, 8))
            y.square().sum().backward()
            found += [y.sum().item(), *(p.grad.double().abs().sum().item() for p in model.parameters())]
        with torch.no_grad():
            found.append(compiled.eval()(torch.ones(5, 8)).sum().item())
    return found

results = [step(), step(dynamic=True), step("bf16"), step(options={"threads": 1})]
kinds = [record.kind for record in bridge.explain().records]
print(json.dumps([results, kinds, counters["aot_autograd"]]))
"""


def run(folder: Path) -> tuple[list[list[float]], list[str], dict[str, int]]:
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder), "TORCHINDUCTOR_AUTOGRAD_CACHE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True, env=environment
    )
    results: Any = json.loads(done.stdout.splitlines()[-1])
    return tuple(results)


def test_the_next_process_finds_what_was_compiled(tmp_path: Path) -> None:
    results, kinds, counts = run(tmp_path)
    repeated, saved = counts.get("autograd_cache_hit", 0), counts["autograd_cache_saved"]
    assert saved > len(results)
    again, found_kinds, found = run(tmp_path)
    assert again == results
    assert found_kinds == kinds
    assert found["autograd_cache_hit"] == repeated + saved
    assert "autograd_cache_saved" not in found
    for entry in (tmp_path / "aotautograd").rglob("*"):
        if entry.is_file():
            entry.write_bytes(entry.read_bytes()[:-1000])
    again, found_kinds, found = run(tmp_path)
    assert again == results
    assert found_kinds == kinds
    assert found.get("autograd_cache_hit", 0) <= repeated
