"""Models written as ONNX: ONNX Runtime computes the same, and they come back through the importer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deepseek as ds
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

RNG = np.random.default_rng(3)


def weights(*shape: int) -> Any:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype("float32")


def residual_network() -> tuple[ds.Graph, list[dict[str, Any]]]:
    """Convolutions, batch norms, a residual sum, poolings and a classifier; the batch is symbolic."""
    g = ds.Graph()
    x = g.placeholder("image", ["batch", 3, 32, 32], "float32")

    def block(x: Any, inputs: int, outputs: int, stride: int) -> Any:
        y = g.conv(x, weights(outputs, inputs, 3, 3), strides=[stride] * 2, pad_low=[1, 1], pad_high=[1, 1])
        ones = np.ones(outputs, "float32")
        return g.batch_norm(y, ones, weights(outputs), weights(outputs), 1 + weights(outputs) ** 2)

    y = g.max_pool(g.relu(block(x, 3, 8, 2)), window=[3, 3], strides=[2, 2], pad_low=[1, 1], pad_high=[1, 1])
    y = g.relu(g.add(y, block(g.relu(block(y, 8, 8, 1)), 8, 8, 1)))
    y = g.gemm(g.mean(y, axes=[2, 3]), weights(10, 8), weights(10), transpose_b=True)
    g.output("classes", g.softmax(y))
    return g, [{"image": RNG.standard_normal((n, 3, 32, 32)).astype("float32")} for n in (1, 3)]


def transformer() -> tuple[ds.Graph, list[dict[str, Any]]]:
    """Embeddings, two layers of attention and GELU, batch and sequence symbolic."""
    g = ds.Graph()
    width, heads, words = 32, 4, 50
    tokens = g.placeholder("tokens", ["batch", "length"], "int64")
    mask = g.placeholder("mask", ["batch", "length"], "bool")
    x = g.gather(g.constant(weights(words, width)), tokens)

    def split(v: Any) -> Any:
        return g.transpose(g.reshape(v, shape=["batch", "length", heads, width // heads]), perm=[0, 2, 1, 3])

    def norm(v: Any) -> Any:
        return g.layer_norm(v, np.ones(width, "float32"), weights(width))[0]

    for _ in range(2):
        q, k, v = (split(g.linear(x, weights(width, width), weights(width))) for _ in range(3))
        a = g.attention(q, k, v, g.reshape(mask, shape=["batch", 1, 1, "length"]))
        a = g.reshape(g.transpose(a, perm=[0, 2, 1, 3]), shape=["batch", "length", width])
        x = norm(g.add(x, g.linear(a, weights(width, width), weights(width))))
        inner = g.gelu(g.linear(x, weights(2 * width, width), weights(2 * width)))
        x = norm(g.add(x, g.linear(inner, weights(width, 2 * width), weights(width))))
    g.output("states", x)
    runs = []
    for batch, length in ((1, 5), (2, 17)):
        kept = np.arange(length)[None] < RNG.integers(1, length + 1, (batch, 1))
        runs.append({"tokens": RNG.integers(0, words, (batch, length)), "mask": kept})
    return g, runs


def counter() -> tuple[ds.Graph, list[dict[str, Any]]]:
    """A loop around a branch: halves even numbers, else 3 n + 1, until one is left; counts the steps."""
    more, step, even, odd = ds.Graph(), ds.Graph(), ds.Graph(), ds.Graph()
    for graph in (more, step):
        graph.placeholder("n", [], "int64")
        graph.placeholder("steps", [], "int64")
    more.output("more", more.greater(more.inputs[0], 1))
    for graph in (even, odd):
        graph.placeholder("n", [], "int64")
    even.output("next", even.div(even.inputs[0], 2))
    odd.output("next", odd.add(odd.mul(odd.inputs[0], 3), 1))
    n, steps = step.inputs
    is_even = step.equal(step.mod(n, 2), 0)
    step.output("n", step.if_(is_even, n, then=even, otherwise=odd))
    step.output("steps", step.add(steps, 1))
    g = ds.Graph()
    start = g.placeholder("start", [], "int64")
    _, count = g.while_(start, g.scalar(0, "int64"), condition=more, body=step, carried=2)
    g.output("count", count)
    return g, [{"start": np.array(v)} for v in (1, 6, 27)]


def sizes() -> tuple[ds.Graph, list[dict[str, Any]]]:
    """The smallest and the largest of three symbolic sizes."""
    g = ds.Graph()
    g.output("y", g.relu(g.placeholder("x", ["p", "q", "s"], "float32")))
    g.output("least", g.dim_value(dim=["min(p,min(q,s))"], dtype="int64"))
    g.output("most", g.dim_value(dim=["max(p,max(q,s))"], dtype="int64"))
    return g, [{"x": np.zeros(shape, "float32")} for shape in ((3, 4, 2), (2, 3, 4), (4, 2, 3))]


def same(got: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    assert list(got) == list(want)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-5, atol=2e-5)


def in_onnxruntime(path: Path, feed: Mapping[str, Any]) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(path)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(feed)), strict=True))


@pytest.mark.parametrize("model", [residual_network, transformer, counter, sizes])
def test_round_trip(model: Any, tmp_path: Path) -> None:
    graph, runs = model()
    path = tmp_path / "model.onnx"
    ds.export_onnx(graph, path)
    onnx.checker.check_model(str(path), full_check=True)
    compiled = ds.compile(graph, threads=1)
    for feed in runs:
        want = compiled.run(feed)
        same(in_onnxruntime(path, feed), want)
        if model is not counter:  # loops come back where the number of iterations is known
            same(ds.compile(path, threads=1).run(feed), want)


def test_of_a_torch_module(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).eval()
    x = torch.randn(3, 6)
    ds.export_onnx(
        module, tmp_path / "m.onnx", example_inputs=[x], dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for batch in (1, 5):
        x = torch.randn(batch, 6)
        got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        np.testing.assert_allclose(got, module(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_sources_names_and_one_constant_for_equal_ones(tmp_path: Path) -> None:
    g = ds.Graph()
    x = g.placeholder("x", ["n"], "float32")
    g.set_source("model.py:7")
    g.output("y", g.relu6(g.relu6(x)))
    ds.export_onnx(g, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert [node.op_type for node in model.graph.node] == ["Clip", "Clip"]
    assert {node.doc_string for node in model.graph.node} == {"model.py:7"}
    assert len(model.graph.initializer) == 2
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


def test_what_onnx_cannot_express_is_one_error(tmp_path: Path) -> None:
    g = ds.Graph()
    g.set_source("model.py:3")
    g.output("y", g.lgamma(g.placeholder("x", [2], "float32")))
    with pytest.raises(ds.Error) as caught:
        ds.export_onnx(g, tmp_path / "m.onnx")
    error = caught.value
    assert (error.code, error.op, error.source) == ("unsupported", "lgamma", "model.py:3")
    assert not (tmp_path / "m.onnx").exists()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ds.Error, match=r"a Graph or a torch\.nn\.Module"):
        ds.export_onnx(3, tmp_path / "m.onnx")
    with pytest.raises(ds.Error, match="example_inputs"):
        ds.export_onnx(torch.nn.ReLU(), tmp_path / "m.onnx")
    g = ds.Graph()
    g.output("y", g.relu(g.placeholder("x", [2], "float32")))
    with pytest.raises(ds.Error, match="a file that can be written"):
        ds.export_onnx(g, tmp_path / "none" / "m.onnx")
