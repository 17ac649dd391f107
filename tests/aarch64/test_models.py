"""Whole models compiled for AArch64 here and run by deepseek-run, against PyTorch and this machine's code."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import deepseek as ds
import numpy as np
import pytest
import torch
import zoo
from elsewhere import RUNNER, Elsewhere

LIMIT = 1e-4
MODELS = {f"small-{name}": model for name, model in zoo.SMALL.items()}
MODELS |= {name: zoo.BENCH[name] for name in ("resnet18", "minilm")}


@pytest.mark.parametrize("name", MODELS)
def test_as_here(name: str) -> None:
    module, inputs = MODELS[name].make()
    with torch.no_grad():
        expected = module(*inputs)
    arrays = [tensor.numpy() for tensor in inputs]
    here = ds.compile(module, example_inputs=inputs)
    there = Elsewhere(ds.compile(module, example_inputs=inputs, isa="neon", threads=2), "")
    [result] = there.run(dict(zip(there.compiled.inputs, arrays, strict=True))).values()
    assert zoo.relative_error(result, expected) <= LIMIT
    assert zoo.relative_error(result, here(*arrays)) <= LIMIT


def test_time(tmp_path: Path) -> None:
    """An emulator runs the instructions and says nothing about how long a core takes."""
    if platform.machine() != "aarch64":
        pytest.skip("hardware: an AArch64 core to time models on; bench/modelled.py has llvm-mca's estimates")
    module, inputs = MODELS["resnet18"].make()
    compiled = ds.compile(module, example_inputs=inputs, isa="neon")
    compiled.save(tmp_path / "model.dsx")
    [name] = compiled.inputs
    np.save(tmp_path / "x.npy", inputs[0].numpy())
    command = [*RUNNER, tmp_path / "model.dsx", f"{name}={tmp_path / 'x.npy'}", "--repeat", "10"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(out)
    assert "10 runs: best" in out
