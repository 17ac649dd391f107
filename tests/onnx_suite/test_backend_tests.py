"""ONNX's tests against the list of known failures: a listed test that passes is a failure as well."""

import sys
from pathlib import Path
from typing import Any

import deepseek as ds
import numpy as np
import onnx
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.by_path import load

suite = load("onnx_suite", Path(__file__).with_name("suite.py"))
versions = load("onnx_versions", Path(__file__).with_name("versions.py"))

ALL = suite.names()
KNOWN = suite.known_failures()


@pytest.fixture(scope="module")
def results(whole_suites: bool) -> "dict[str, suite.Result]":
    found = suite.run_all(ALL if whole_suites else suite.fixed_part(ALL))
    print(suite.summary(found))
    return found


def test_known_failures_are_tests_with_reasons() -> None:
    assert not [name for name in KNOWN if name not in ALL]
    assert not [name for name, reason in KNOWN.items() if not reason]


def test_no_crash_and_no_hang(results: "dict[str, suite.Result]") -> None:
    assert not {name: r.message for name, r in results.items() if r.status in ("crash", "timeout")}


def test_what_fails_is_known(results: "dict[str, suite.Result]") -> None:
    assert not {name: r.message for name, r in results.items() if not r.passed and name not in KNOWN}


def test_what_is_known_fails(results: "dict[str, suite.Result]") -> None:
    assert not [name for name, r in results.items() if r.passed and name in KNOWN]


def test_rate(results: "dict[str, suite.Result]", capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("\n" + suite.summary(results))
    nodes = suite.node_tests(results)
    assert sum(r.passed for r in nodes.values()) >= suite.RATE_GATE * len(nodes)


def test_every_version_of_every_operator_is_seen() -> None:
    wanted = {
        (op, v) for op, since in versions.versions().items() if op not in versions.RANDOM for v in since
    }
    found = versions.seen(onnx.load(suite.DATA / name / "model.onnx") for name in ALL)
    assert wanted - found == versions.UNSEEN.keys()


def drawn(version: int, op: str, inputs: dict[str, Any], **attributes: Any) -> Any:
    node = onnx.helper.make_node(op, list(inputs), ["y"], **attributes)
    model, _ = versions.one_node(version, node, inputs)
    return ds.compile(model.SerializeToString()).run(inputs)["y"]


@pytest.mark.parametrize("op", sorted(versions.RANDOM))
def test_random_operators_draw_by_their_seed(op: str) -> None:
    attributes: dict[str, Any] = {}
    inputs: dict[str, Any] = {"x": np.full((400, 2), 0.5, np.float32)}
    if op in ("RandomNormal", "RandomUniform"):
        inputs, attributes = {}, {"shape": [400, 2]}
    if op == "Multinomial":
        attributes["sample_size"] = 2
    for version in versions.versions()[op]:
        y = drawn(version, op, inputs, seed=1.5, **attributes)
        assert y.shape == (400, 2)
        assert abs(y.mean() - (0 if "Normal" in op else 0.5)) < 0.1
        deviation = 1 if "Normal" in op else 12**-0.5 if "Uniform" in op else 0.5
        assert abs(y.std() - deviation) < 0.1
        np.testing.assert_array_equal(y, drawn(version, op, inputs, seed=1.5, **attributes))
        assert (y != drawn(version, op, inputs, seed=2.5, **attributes)).any()
        with pytest.raises(ds.Error, match="expected a seed, got none"):
            drawn(version, op, inputs, **attributes)


@pytest.mark.parametrize("version", [12, 13, 22])
def test_dropout_in_training(version: int) -> None:
    node = onnx.helper.make_node("Dropout", ["x", "ratio", "training"], ["y", "mask"], seed=7)
    graph = onnx.helper.make_graph(
        [node],
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 10])],
        [onnx.helper.make_empty_tensor_value_info("y"), onnx.helper.make_empty_tensor_value_info("mask")],
        [
            onnx.numpy_helper.from_array(np.float32(0.2), "ratio"),
            onnx.numpy_helper.from_array(np.array(True), "training"),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)], ir_version=8)
    compiled = ds.compile(model.SerializeToString())
    x = np.arange(1, 4001, dtype=np.float32).reshape(400, 10)
    results = compiled.run({"x": x})
    y, mask = results["y"], results["mask"]
    assert mask.dtype == bool
    assert abs(mask.mean() - 0.8) < 0.03
    np.testing.assert_allclose(y, np.where(mask, x / 0.8, 0), rtol=1e-6)
    np.testing.assert_array_equal(y, compiled.run({"x": x})["y"])
