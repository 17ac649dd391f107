"""Weights in int8 alone: sums in float32, right to a step of each column's scale."""

from __future__ import annotations

from typing import Any

import deepseek as ds
import numpy as np
import pytest


def product(rows: int | str, w: Any) -> ds.Graph:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=[rows, w.shape[0]], dtype="float32")
    graph.output("y", graph.relu(graph.matmul(x, graph.constant(w))))
    return graph


def rounded(w: Any) -> Any:
    scale = np.abs(w).max(axis=0) / 127
    return np.rint(w / scale) * scale


@pytest.mark.parametrize("isa", ["", "avx2"])
@pytest.mark.parametrize(("rows", "deep", "wide"), [(1, 33, 16), (1, 300, 517), (5, 64, 130), (64, 100, 100)])
@pytest.mark.parametrize("symbolic", [False, True])
def test_a_product(rows: int, deep: int, wide: int, symbolic: bool, isa: str) -> None:
    random = np.random.default_rng(deep)
    w = random.normal(0, 1, (deep, wide)).astype("float32")
    x = random.normal(0, 1, (rows, deep)).astype("float32")
    compiled = ds.compile(
        product("rows" if symbolic else rows, w), target="cpu", isa=isa, precision="int8_weights"
    )
    assert "with weights in int8" in compiled.explain()
    wanted = np.maximum(x.astype("float64") @ rounded(w.astype("float64")), 0)
    assert np.abs(compiled(x) - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_what_is_not_known_before_stays_as_it_is() -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=[2, 40], dtype="float32")
    graph.output("y", graph.matmul(x, graph.placeholder("w", shape=[40, 32], dtype="float32")))
    compiled = ds.compile(graph, target="cpu", precision="int8_weights")
    assert "int8" not in compiled.explain()
