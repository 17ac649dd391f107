"""deepseek-run as a user of a board meets it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import deepseek as ds
import ml_dtypes
import numpy as np
import pytest
from elsewhere import RUNNER


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUNNER, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = relu(x w), z = bfloat16 of y; x[N, 8] argument, w parameter."""
    g = ds.Graph()
    x = g.placeholder("x", ["N", 8], "float32")
    w = g.placeholder("w", [8, 5], "float32", role="parameter")
    y = g.relu(g.matmul(x, w))
    g.output("y", y)
    g.output("z", g.cast(y, dtype="bfloat16"))
    ds.compile(g, isa="neon").save(tmp_path / "model.dsx")
    return tmp_path / "model.dsx"


def test_it_lists_what_a_model_takes(model: Path) -> None:
    inputs, outputs = ("x: float32[N, 8]", "w: float32[8, 5]"), ("y: float32[N, 5]", "z: bfloat16[N, 5]")
    lines = ["inputs", *(f"  {port}" for port in inputs), "outputs", *(f"  {port}" for port in outputs)]
    assert run(model).stdout.splitlines() == lines


def test_it_runs_times_and_profiles(model: Path, tmp_path: Path) -> None:
    x, w = np.random.default_rng(0).uniform(-1, 1, (3, 8)), np.random.default_rng(1).uniform(-1, 1, (8, 5))
    np.save(tmp_path / "x.npy", x.astype("float32"))
    np.save(tmp_path / "w.npy", w.astype("float32"))
    inputs = [f"x={tmp_path / 'x.npy'}", f"w={tmp_path / 'w.npy'}"]
    done = run(model, *inputs, "--out", tmp_path, "--repeat", 3, "--profile")
    assert done.returncode == 0, done.stderr
    assert "3 runs: best" in done.stdout
    assert "matmul" in done.stdout
    want = np.maximum(x @ w, 0)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=1e-5, atol=1e-6)
    z = np.load(tmp_path / "z.npy").view(ml_dtypes.bfloat16)
    np.testing.assert_allclose(z.astype("float32"), want, rtol=1e-2, atol=1e-3)


def test_errors_say_what_is_wrong(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 8)))
    np.save(tmp_path / "short.npy", np.zeros((3, 7), "float32"))
    np.save(tmp_path / "w.npy", np.zeros((8, 5), "float32"))
    w = f"w={tmp_path / 'w.npy'}"
    for arguments, message in {
        (): "MODEL.dsx",
        (tmp_path / "none.dsx",): "none.dsx",
        (tmp_path / "w.npy",): "a saved executable",
        (model, w): 'a file for input "x"',
        (model, w, f"x={tmp_path / 'x.npy'}"): "float32 (<f4)",
        (model, w, f"x={tmp_path / 'short.npy'}"): "x",
        (model, "--wrong"): "--wrong",
    }.items():
        done = run(*arguments)
        assert done.returncode == 1, arguments
        assert message in done.stderr, done.stderr


def test_code_for_another_machine_is_refused(tmp_path: Path) -> None:
    g = ds.Graph()
    g.output("y", g.exp(g.placeholder("x", [4], "float32")))
    ds.compile(g, isa="avx2").save(tmp_path / "model.dsx")
    assert "expected code for aarch64-unknown-linux-gnu" in run(tmp_path / "model.dsx").stderr
