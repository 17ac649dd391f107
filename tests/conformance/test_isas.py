"""Every instruction set that code is compiled for: run where this machine or a runner has it, else listed."""

from __future__ import annotations

import deepseek as ds
import numpy as np
import pytest
from elsewhere import RUNNER, Elsewhere

ISAS = ["amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2_vnni", "avx2", "neon"]


@pytest.mark.filterwarnings("ignore:precision")
@pytest.mark.parametrize("isa", ISAS)
def test_runs_or_says_that_it_cannot(isa: str) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.uniform(-1, 1, (9, 40)).astype("float32"), rng.uniform(-1, 1, (40, 33)).astype("float32")
    g = ds.Graph()
    g.output("y", g.tanh(g.matmul(g.placeholder("x", [9, 40]), g.constant(w))))
    compiled = ds.compile(g, isa=isa, precision="bf16")
    try:
        there = Elsewhere(compiled, "") if isa == "neon" and RUNNER else compiled
        y = there.run({"x": x})["y"]
    except ds.Error as error:
        if error.code != "unsupported":
            raise
        pytest.skip(f"hardware: no {isa} on this machine")
    np.testing.assert_allclose(y, np.tanh(x.astype("float64") @ w), rtol=0, atol=0.03)
