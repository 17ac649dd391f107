"""ds.profile: where the time goes, and `python -m deepseek profile`."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import deepseek as ds
import numpy as np
import onnx
import pytest
import torch
from onnx import helper


def with_a_bottleneck() -> tuple[ds.Executable, dict[str, np.ndarray], str]:
    """Small products, and one odd product that is far larger; the source of the latter."""
    graph = ds.Graph()
    x = graph.placeholder("x", shape=["N", 32], dtype="float32")
    w = np.eye(32, dtype="float32")
    for _ in range(6):
        x = graph.relu(graph.matmul(x, w))
    odd = graph.placeholder("odd", shape=[517, 389], dtype="float32")
    frame = inspect.currentframe()
    assert frame is not None
    graph.matmul(odd, np.ones((389, 611), "float32"), name="slow")
    source = f"{Path(__file__).name}:{frame.f_lineno - 1}"
    graph.abs(x, name="small")
    arrays = {"x": np.ones((8, 32), "float32"), "odd": np.ones((517, 389), "float32")}
    return ds.compile(graph, threads=1), arrays, source


def test_finds_a_planted_bottleneck() -> None:
    executable, arrays, source = with_a_bottleneck()
    profile = ds.profile(executable, arrays, runs=20)
    top = profile.steps[0]
    assert top.source.endswith(source)
    assert (top.way, top.ops, top.calls) == ("gemm", "matmul", 1)
    assert top.flops == 2 * 517 * 389 * 611
    assert top.bytes == pytest.approx(4 * (517 * 389 + 389 * 611 + 517 * 611), rel=0.1)  # weights are padded
    assert top.share > 0.5
    assert top.roof == "compute"
    assert top.flops_per_s == pytest.approx(top.flops / top.seconds)
    assert sum(step.seconds for step in profile.steps) + profile.outside == pytest.approx(profile.seconds)
    assert [step.seconds for step in profile.steps] == sorted(
        (s.seconds for s in profile.steps), reverse=True
    )
    text = str(profile).splitlines()
    assert source in text[2]
    assert any("outside steps" in line for line in text)
    assert any(line.endswith("100.0%  total") for line in text)


def test_trace_opens_as_chrome_reads_it(tmp_path: Path) -> None:
    executable, arrays, source = with_a_bottleneck()
    profile = ds.profile(executable, list(arrays.values()), runs=4)
    profile.to_chrome_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    steps = [event for event in events if event["ph"] == "X" and event["tid"] == 0]
    assert len(steps) == len(profile.steps)
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in steps)
    assert any(event["args"]["source"].endswith(source) for event in steps)


def test_dynamic_shapes_count_at_the_dims_of_the_run() -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=["N", 64], dtype="float32")
    graph.matmul(x, np.ones((64, 64), "float32"), name="y")
    executable = ds.compile(graph)
    for n in (3, 50):
        (step,) = ds.profile(executable, {"x": np.ones((n, 64), "float32")}, runs=4).steps
        assert step.flops == 2 * n * 64 * 64


def test_rows_of_a_table_count_and_not_the_table() -> None:
    graph = ds.Graph()
    ids = graph.placeholder("ids", shape=[5], dtype="int64")
    graph.gather(graph.placeholder("table", shape=[10000, 16], dtype="float32"), ids, name="rows")
    arrays = {"ids": np.arange(5), "table": np.zeros((10000, 16), "float32")}
    (step,) = ds.profile(ds.compile(graph), arrays, runs=4).steps
    assert step.bytes == 5 * 8 + 2 * 5 * 16 * 4


def test_saved_executables_keep_the_way(tmp_path: Path) -> None:
    executable, arrays, _ = with_a_bottleneck()
    executable.save(tmp_path / "saved")
    assert ds.profile(ds.load(tmp_path / "saved"), arrays, runs=4).steps[0].way == "gemm"


def test_pieces_of_a_torch_model() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(64, 512), torch.nn.GELU(), torch.nn.Linear(512, 64))
    profile = ds.profile(torch.compile(model, backend="deepseek"), [torch.randn(32, 64)], runs=8)
    assert sum(step.flops for step in profile.steps if step.way == "gemm") == 2 * 2 * 32 * 64 * 512
    assert sum(step.seconds for step in profile.steps) + profile.outside == pytest.approx(profile.seconds)
    assert profile.outside > 0
    assert "total" in str(profile)


def test_what_cannot_be_profiled() -> None:
    with pytest.raises(ds.Error, match="a model that deepseek compiled"):
        ds.profile(3, [])  # type: ignore[arg-type]
    with pytest.raises(ds.Error, match=r"a model that torch.compile\(backend="):
        ds.profile(abs, [torch.ones(2)])
    executable, arrays, _ = with_a_bottleneck()
    with pytest.raises(ds.Error, match='an array for input "odd"'):
        ds.profile(executable, {"x": arrays["x"]})


def test_command(tmp_path: Path) -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], name="the_node")
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 3]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph([node], "g", ports[:1], ports[1:]), opset_imports=[helper.make_opsetid("", 20)]
    )
    onnx.save(model, tmp_path / "model.onnx")
    command = [sys.executable, "-m", "deepseek", "profile", "model.onnx", "--threads", "1", "--runs", "4"]
    command += ["--dim", "N=1000", "--trace", "trace.json"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "gelu  (the_node)" in done.stdout
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_weights_that_several_products_read_are_packed_once() -> None:
    graph = ds.Graph()
    w = graph.placeholder("w", shape=[48, 48], dtype="float32")
    x = graph.placeholder("x", shape=[300, 48], dtype="float32")
    for _ in range(3):
        x = graph.tanh(graph.matmul(x, w))
    graph.matmul(x, graph.transpose(w, perm=[1, 0]), name="y")
    executable = ds.compile(graph, threads=1)
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal(shape).astype("f") for name, shape in (("w", (48, 48)), ("x", (300, 48)))
    }
    packs = [step for step in ds.profile(executable, arrays, runs=2).steps if step.way == "gemm pack"]
    assert len(packs) == 2  # w and its transpose
    expected = arrays["x"].astype("d")
    for _ in range(3):
        expected = np.tanh(expected @ arrays["w"])
    np.testing.assert_allclose(executable.run(arrays)["y"], expected @ arrays["w"].T, rtol=1e-4, atol=1e-4)
