"""What compiling learns from samples: ranges for int8, and which precision to take."""

from __future__ import annotations

import warnings
from typing import Any

import deepseek as ds
import numpy as np
import pytest
import torch

WIDTH, CLASSES = 48, 40


def network(rows: int | str = 6) -> ds.Graph:
    random = np.random.default_rng(1)
    graph = ds.Graph()
    x = graph.placeholder("x", shape=[rows, WIDTH], dtype="float32")
    for width in (WIDTH, CLASSES):
        w = random.normal(0, 0.2, (WIDTH, width)).astype("float32")
        x = graph.add(graph.matmul(graph.relu(x), graph.constant(w)), graph.constant(w[0]))
    graph.output("y", x)
    return graph


def rows(seed: int, count: int = 6) -> Any:
    return np.random.default_rng(seed).normal(0, 1, (count, WIDTH)).astype("float32")


def multiplies_bytes() -> bool:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ds.compile(network(), target="cpu", precision="int8")
    return not said


def error(y: Any, reference: Any) -> float:
    return float(np.abs(y - reference).max() / np.abs(reference).max())


@pytest.mark.filterwarnings("ignore:precision")
@pytest.mark.parametrize("count", [6, "batch"])
def test_int8_by_the_ranges_of_samples(count: int | str) -> None:
    samples = [{"x": rows(seed)} for seed in range(4)]
    static = ds.compile(network(count), target="cpu", precision="int8", samples=samples)
    dynamic = ds.compile(network(count), target="cpu", precision="int8")
    reference = ds.compile(network(count), target="cpu")
    if multiplies_bytes():
        assert "int8: the ranges of 2 operands are those of 4 samples" in static.explain()
        assert "int8: the ranges of operands are found as they come" in dynamic.explain()
        assert static.explain().count(" in uint8") >= 2
    wanted = reference(samples[0]["x"])
    assert error(static(samples[0]["x"]), wanted) < 0.03
    assert error(dynamic(samples[0]["x"]), wanted) < 0.03
    if count == "batch":
        assert error(static(rows(9, 3)), reference(rows(9, 3))) < 0.06


@pytest.mark.filterwarnings("ignore:precision")
def test_what_lies_outside_the_samples_is_limited() -> None:
    if not multiplies_bytes():
        pytest.skip("hardware: products of bytes")
    graph = ds.Graph()
    x = graph.placeholder("x", shape=[2, 16], dtype="float32")
    graph.output("y", graph.matmul(x, graph.constant(np.eye(16, dtype="float32"))))
    e = ds.compile(graph, target="cpu", precision="int8", samples=[[np.linspace(-1, 2, 32).reshape(2, 16)]])
    assert np.allclose(e(np.full((2, 16), 50, "float32")), 2, atol=0.02)
    assert np.allclose(e(np.full((2, 16), -50, "float32")), -1, atol=0.02)


def test_a_module_and_several_samples_in_order() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(8, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 16, 1)
    )
    x = torch.randn(2, 8, 12, 12)
    compiled = ds.compile(
        module.eval(),
        target="cpu",
        precision="auto",
        tolerance=0.1,
        samples=[[x], [x * 0.5]],
        example_inputs=[x],
    )
    with torch.no_grad():
        assert error(compiled(x.numpy()), module(x).numpy()) < 0.1


def test_auto_keeps_to_the_tolerance_and_says_what_it_saw() -> None:
    x = rows(0)
    reference = ds.compile(network(), target="cpu")(x)
    for tolerance in (0.0, 0.005, 0.5):
        compiled = ds.compile(network(), target="cpu", precision="auto", samples=[[x]], tolerance=tolerance)
        line = next(line for line in compiled.explain().splitlines() if line.startswith("precision auto:"))
        assert f"tolerance {tolerance:g}: " in line
        assert "fp32 " in line
        assert error(compiled(x), reference) <= tolerance
        if tolerance == 0:
            assert line.endswith(": fp32")
        if multiplies_bytes():
            assert "int8" in line
            assert ("too much" in line) == (tolerance < 0.5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"precision": "auto"}, "samples, inputs to compare results and times on"),
        ({"precision": "auto", "samples": [[rows(0)]], "tolerance": -1}, "a tolerance of 0 or more"),
        (
            {"precision": "auto", "samples": [[rows(0)]], "tolerance": float("nan")},
            "a tolerance of 0 or more",
        ),
        ({"precision": "int8", "samples": [{"z": rows(0)}]}, "samples of the inputs x"),
        ({"precision": "int8", "samples": [[rows(0), rows(0)]]}, "samples of the inputs x"),
        ({"precision": "int4"}, "precision 'fp32', 'bf16', 'int8', 'int8_weights', 'int4_weights' or 'auto'"),
    ],
)
def test_errors(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ds.Error) as raised:
        ds.compile(network(), target="cpu", **options)
    assert expected in raised.value.expected


def test_samples_of_another_shape_or_not_finite() -> None:
    for sample in (np.zeros((6, 3), "float32"), np.full((6, WIDTH), np.nan, "float32")):
        if not multiplies_bytes():
            pytest.skip("hardware: products of bytes")
        with pytest.raises(ds.Error):
            ds.compile(network(), target="cpu", precision="int8", samples=[[sample]])
