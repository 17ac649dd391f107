"""Sizes that keep coming get kernels of their own: same results before, while and after they are compiled."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import deepseek as ds
import numpy as np
import pytest
import torch
from deepseek.specialized import MOST, Specializations
from deepseek.torch import report


def product() -> tuple[ds.Graph, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((24, 16), dtype=np.float32)
    graph = ds.Graph()
    x = graph.placeholder("x", shape=["N", "M", 24])
    flat = graph.reshape(x, shape=["N*M", 24])
    graph.output("y", graph.softmax(graph.matmul(flat, graph.constant(weights))))
    return graph, weights


def reference(x: np.ndarray[Any, Any], weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    y = x.reshape(-1, 24).astype(np.float64) @ weights
    y = np.exp(y - y.max(-1, keepdims=True))
    return y / y.sum(-1, keepdims=True)


def array(n: int, m: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(n * 100 + m).standard_normal((n, m, 24), dtype=np.float32)


def special(executable: ds.Executable) -> Specializations[Any]:
    assert executable._specializations is not None
    return executable._specializations


def served(executable: ds.Executable) -> list[str]:
    return [line for line in executable.explain().splitlines() if line.startswith("specialized for")]


def test_results_before_and_after() -> None:
    graph, weights = product()
    executable = ds.compile(graph, specialize=3, tune="off")
    graph.output("later", graph.placeholder("another", shape=["K"]))  # does not reach what is compiled later
    for run in range(10):
        for n, m in ((2, 3), (5, 1)):
            x = array(n, m)
            np.testing.assert_allclose(executable(x), reference(x, weights), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(
                executable.run({"x": x})["y"], reference(x, weights), rtol=1e-5, atol=1e-6
            )
        assert served(executable) or run < 2
        special(executable).wait()
    assert sorted(line.split(":")[0] for line in served(executable)) == [
        "specialized for N=2, M=3",
        "specialized for N=5, M=1",
    ]
    x = array(3, 3)  # sizes that come once
    np.testing.assert_allclose(executable(x), reference(x, weights), rtol=1e-5, atol=1e-6)
    with pytest.raises(ds.Error, match='input "x"'):
        executable(np.zeros((2, 3, 23), "float32"))
    with pytest.raises(ds.Error, match='input "x"'):
        executable(np.zeros(2, "float32"))


def test_off_by_default_and_for_known_sizes() -> None:
    graph, _ = product()
    assert ds.compile(graph, tune="off")._specializations is None
    with pytest.raises(ds.Error, match="at least 0"):
        ds.compile(graph, specialize=-1)
    known = ds.Graph()
    known.output("y", known.placeholder("x", shape=[4]) * 2.0)
    executable = ds.compile(known, specialize=1)
    for _ in range(5):
        np.testing.assert_array_equal(executable(np.ones(4, "float32")), np.full(4, 2.0))
    assert not served(executable)


def test_the_least_recently_used_gives_way() -> None:
    graph, weights = product()
    executable = ds.compile(graph, specialize=1, tune="off")
    for n in range(1, MOST + 3):
        for _ in range(3):
            x = array(n, 2)
            np.testing.assert_allclose(executable(x), reference(x, weights), rtol=1e-5, atol=1e-6)
            special(executable).wait()
        executable(array(1, 2))  # stays in use
    names = {line.split(":")[0].removeprefix("specialized for ") for line in served(executable)}
    assert names == {f"N={n}, M=2" for n in (1, *range(4, MOST + 3))}


def test_an_error_costs_no_run() -> None:
    graph, _ = product()

    def fail(bound: Any) -> Any:
        raise ds.Error("no room for this")

    specializations: Specializations[Any] = Specializations(graph, 1, fail)
    for _ in range(5):
        assert specializations.find([(2, 3, 24)]) is None
        specializations.wait()
    assert specializations.lines() == ["specialized for N=2, M=3: not compiled: no room for this"]


def test_one_compiles_at_a_time_and_nobody_waits() -> None:
    graph, _ = product()
    go, began, started = threading.Event(), threading.Event(), []

    def slow(bound: Any) -> str:
        started.append(bound)
        began.set()
        assert go.wait(60)
        return "made"

    specializations: Specializations[str] = Specializations(graph, 1, slow)
    for _ in range(5):
        for n in (1, 2, 3):
            assert specializations.find([(n, 3, 24)]) is None
    assert began.wait(60)
    assert len(started) == 1
    go.set()
    specializations.wait()
    assert specializations.find([(1, 3, 24)]) == "made"
    specializations.find([(2, 3, 24)])
    specializations.wait()
    assert specializations.find([(2, 3, 24)]) == "made"


def test_calls_from_many_threads() -> None:
    graph, weights = product()
    executable = ds.compile(graph, specialize=4, tune="off", threads=1)

    def call(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(150):
            x = array(int(rng.integers(1, MOST + 4)), 2)
            np.testing.assert_allclose(executable(x), reference(x, weights), rtol=1e-5, atol=1e-6)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(4)))
    special(executable).wait()
    assert 0 < len(served(executable)) <= MOST


def test_an_executable_may_go_while_it_compiles() -> None:
    graph, _ = product()
    before = {thread.name for thread in threading.enumerate()}
    executable = ds.compile(graph, specialize=1, tune="off")
    for _ in range(2):
        executable(array(7, 7))
    gone = weakref.ref(executable)
    del executable
    gc.collect()
    assert gone() is None
    for thread in threading.enumerate():
        if thread.name not in before:
            thread.join()


@pytest.mark.parametrize("training", [False, True])
def test_torch_compile(training: bool) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    compiled = torch.compile(model, backend="deepseek", dynamic=True, options={"specialize": 2})
    count = len(report.RECORDS)
    for _ in range(8):
        for n in (3, 6):
            x = torch.randn(n, 8)
            if training:
                model.zero_grad()
                compiled(x).square().sum().backward()
                ours = [p.grad.clone() for p in model.parameters() if p.grad is not None]
                model.zero_grad()
                model(x).square().sum().backward()
                theirs = [p.grad for p in model.parameters()]
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
            else:
                with torch.no_grad():
                    torch.testing.assert_close(compiled(x), model(x))
        for record in report.RECORDS[count:]:
            for specializations in record.specializations:
                specializations.wait()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)  # each keeps what derives from parameters
        for n in (3, 6, 4):
            x = torch.randn(n, 8)
            torch.testing.assert_close(compiled(x), model(x))
    lines = [line for record in report.RECORDS[count:] for line in str(record).splitlines()]
    assert sum("specialized for" in line and "runs" in line for line in lines) >= 2
