"""Weights alone in few bits: sums in float32, right to what weights were rounded to."""

from __future__ import annotations

from typing import Any

import deepseek as ds
import ml_dtypes
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


def rounded_blocks(w: Any) -> Any:
    """Every 32 rows of a column share a scale that makes -8 of their largest magnitude."""
    padded = np.pad(w, ((0, -len(w) % 32), (0, 0))).reshape(-1, 32, w.shape[1])
    high, low = padded.max(axis=1, keepdims=True), padded.min(axis=1, keepdims=True)
    scale = (np.where(high + low > 0, high, low) * np.float32(-1 / 8)).astype(ml_dtypes.bfloat16)
    wide = scale.astype("float32")
    whole = np.clip(np.rint(padded * (1 / wide)), -8, 7)
    return (whole * wide).reshape(-1, w.shape[1])[: len(w)]


@pytest.mark.parametrize("isa", ["", "avx2"])
@pytest.mark.parametrize(("rows", "deep", "wide"), [(1, 33, 16), (1, 300, 517), (5, 64, 130), (64, 100, 100)])
@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_product(rows: int, deep: int, wide: int, symbolic: bool, isa: str, bits: int) -> None:
    random = np.random.default_rng(deep)
    w = random.normal(0, 1, (deep, wide)).astype("float32")
    x = random.normal(0, 1, (rows, deep)).astype("float32")
    compiled = ds.compile(
        product("rows" if symbolic else rows, w), target="cpu", isa=isa, precision=f"int{bits}_weights"
    )
    assert f"with weights in int{bits}" in compiled.explain()
    kept = rounded(w.astype("float64")) if bits == 8 else rounded_blocks(w)
    wanted = np.maximum(x.astype("float64") @ kept, 0)
    assert np.abs(compiled(x) - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_what_is_not_known_before_stays_as_it_is() -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=[2, 40], dtype="float32")
    graph.output("y", graph.matmul(x, graph.placeholder("w", shape=[40, 32], dtype="float32")))
    compiled = ds.compile(graph, target="cpu", precision="int8_weights")
    assert "int8" not in compiled.explain()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int4", "uint4"])
@pytest.mark.parametrize("depth", [31, 64, "k"])
def test_blocks_of_whole_numbers(dtype: str, depth: int | str) -> None:
    random = np.random.default_rng(3)
    rows = 31 if depth == "k" else depth
    w = random.integers(0, 8, (rows, 18)).astype(getattr(ml_dtypes, dtype, dtype))
    blocks = -(-rows // 16)
    scale = random.uniform(0.1, 1, (blocks, 18)).astype("float32")
    zero = random.integers(0, 8, (blocks, 18)).astype(w.dtype)
    graph = ds.Graph()
    x = graph.placeholder("x", shape=[depth], dtype="float32")
    parts = [graph.constant(part) for part in (w, scale, zero)]
    graph.output("y", graph.matmul(x, graph.op("dequantize_blocks", parts, {"axis": 0, "block": 16})))
    given = random.normal(0, 1, rows).astype("float32")
    spread = [np.repeat(part.astype("float64"), 16, axis=0)[:rows] for part in (scale, zero)]
    wanted = given @ ((w.astype("float64") - spread[1]) * spread[0])
    got = ds.compile(graph, target="cpu")(given)
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()
