"""Models for ONNX Runtime in which our executables are nodes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import deepseek as ds
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

RNG = np.random.default_rng(11)


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype("float32")


def model(nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], **constants: Any) -> bytes:
    """Inputs and outputs by name: dims of float32, or (ONNX's element type, dims)."""

    def values(described: dict[str, Any]) -> list[Any]:
        typed = {n: t if isinstance(t, tuple) else (TensorProto.FLOAT, t) for n, t in described.items()}
        return [helper.make_tensor_value_info(name, *t) for name, t in typed.items()]

    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", values(inputs), values(outputs), initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(made.SerializeToString())


def session(path: Path | bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(ds.onnxruntime_library())
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options)


def ops(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def same(path: Path, given: bytes, feed: dict[str, Any]) -> None:
    want = onnxruntime.InferenceSession(given).run(None, feed)
    for g, w in zip(session(path).run(None, feed), want, strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_allclose(
            g, w, rtol=1e-5, atol=1e-5
        ) if w.dtype != object else np.testing.assert_equal(g, w)


def two_layers(middle: str, batch: str | int) -> bytes:
    """x -> MatMul -> Relu -> `middle` -> MatMul -> Softmax."""
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node(middle, ["b"], ["c"], name="middle"),
        helper.make_node("MatMul", ["c", "w"], ["d"]),
        helper.make_node("Softmax", ["d"], ["y"]),
    ]
    return model(nodes, {"x": [batch, 5]}, {"y": [batch, 3]}, v=floats(5, 8), w=floats(8, 3))


def test_a_whole_model_is_one_node_for_any_batch(tmp_path: Path) -> None:
    given = two_layers("Tanh", "batch")
    assert ds.for_onnxruntime(given, tmp_path / "m.onnx") == []
    assert ops(tmp_path / "m.onnx") == ["Executable"]
    assert not onnx.load(tmp_path / "m.onnx").graph.initializer
    for batch in (1, 3, 0, 17):
        same(tmp_path / "m.onnx", given, {"x": floats(batch, 5)})


def labels_of(names: list[str]) -> Any:
    """An operator of strings, which we lack."""
    return helper.make_node(
        "LabelEncoder",
        ["i"],
        ["name"],
        name="names",
        domain="ai.onnx.ml",
        keys_int64s=list(range(len(names))),
        values_strings=names,
    )


def test_what_we_lack_stays_in_onnx_runtime(tmp_path: Path) -> None:
    """Strings in, numbers between, strings out: theirs, ours, theirs."""
    encode = helper.make_node(
        "LabelEncoder",
        ["word"],
        ["token"],
        name="encode",
        domain="ai.onnx.ml",
        keys_strings=["red", "green", "blue"],
        values_int64s=[0, 1, 2],
    )
    nodes = [
        encode,
        helper.make_node("Gather", ["table", "token"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["i"], axis=1, keepdims=0),
        labels_of(["north", "east", "south", "west"]),
    ]
    given = model(
        nodes,
        {"word": (TensorProto.STRING, ["n"])},
        {"scores": ["n", 4], "name": (TensorProto.STRING, ["n"])},
        table=floats(3, 6),
        w=floats(6, 4),
    )
    loaded = onnx.load_from_string(given)
    loaded.opset_import.append(helper.make_opsetid("ai.onnx.ml", 4))
    given = loaded.SerializeToString()
    assert ds.for_onnxruntime(given, tmp_path / "m.onnx") == ["encode", "names"]
    assert ops(tmp_path / "m.onnx") == ["LabelEncoder", "Executable", "LabelEncoder"]
    for count in (1, 3):
        same(tmp_path / "m.onnx", given, {"word": np.array(["blue", "red", "green"][:count], object)})


def test_a_model_in_two_pieces(tmp_path: Path) -> None:
    """Floats become strings and floats again in the middle; a value is read on both sides."""
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Cast", ["b"], ["text"], name="to_text", to=TensorProto.STRING),
        helper.make_node("Cast", ["text"], ["c"], name="from_text", to=TensorProto.FLOAT),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("Softmax", ["d"], ["y"]),
    ]
    given = model(nodes, {"x": ["batch", 5]}, {"a": ["batch", 8], "y": ["batch", 8]}, v=floats(5, 8))
    assert ds.for_onnxruntime(given, tmp_path / "m.onnx") == ["to_text", "from_text"]
    assert ops(tmp_path / "m.onnx") == ["Executable", "Cast", "Cast", "Executable"]
    for batch in (1, 4):
        same(tmp_path / "m.onnx", given, {"x": floats(batch, 5)})


def test_branches_that_read_values_around_them(tmp_path: Path) -> None:
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["b"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8])],
        )
        for name, op in (("then", "Neg"), ("else", "Abs"))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["b"]),
        helper.make_node("If", ["flag"], ["c"], **branches),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    given = model(
        nodes,
        {"x": ["batch", 5], "flag": (TensorProto.BOOL, [])},
        {"y": ["batch", 8], "b": ["batch", 8]},
        v=floats(5, 8),
    )
    ds.for_onnxruntime(given, tmp_path / "m.onnx")
    for flag in (True, False):
        same(tmp_path / "m.onnx", given, {"x": floats(2, 5), "flag": np.array(flag)})


def test_sizes_that_the_run_finds(tmp_path: Path) -> None:
    given = model(
        [helper.make_node("NonZero", ["x"], ["y"])], {"x": ["n"]}, {"y": (TensorProto.INT64, [1, "found"])}
    )
    assert ds.for_onnxruntime(given, tmp_path / "m.onnx") == []
    for x in ([0, 2, 0, 3], [0, 0], []):
        same(tmp_path / "m.onnx", given, {"x": np.array(x, "float32")})


def test_shapes_that_values_decide_stay_in_onnx_runtime(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], name="reshape")]
    given = model(nodes, {"x": ["n"], "shape": (TensorProto.INT64, [2])}, {"y": ["a", "b"]})
    assert ds.for_onnxruntime(given, tmp_path / "m.onnx") == ["reshape"]
    same(tmp_path / "m.onnx", given, {"x": floats(6), "shape": np.array([2, 3])})


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint16", "int32", "uint64", "bool"])
def test_element_types(dtype: str, tmp_path: Path) -> None:
    of = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [helper.make_node("Transpose", ["x"], ["y"]), helper.make_node("Identity", ["y"], ["z"])]
    given = model(nodes, {"x": (of, ["n", 3])}, {"z": (of, [3, "n"])})
    assert ds.for_onnxruntime(given, tmp_path / "m.onnx") == []
    same(tmp_path / "m.onnx", given, {"x": RNG.integers(0, 2, (4, 3)).astype(dtype)})


def test_threads_share_a_session(tmp_path: Path) -> None:
    given = two_layers("Tanh", "batch")
    ds.for_onnxruntime(given, tmp_path / "m.onnx", threads=1)
    ours, theirs = session(tmp_path / "m.onnx"), onnxruntime.InferenceSession(given)
    wrong: list[str] = []

    def run(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal((1 + seed, 5)).astype("float32")
        want = theirs.run(None, {"x": x})[0]
        for _ in range(20):
            if not np.allclose(ours.run(None, {"x": x})[0], want, rtol=1e-5, atol=1e-5):
                wrong.append(f"batch {1 + seed}")

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_errors_are_onnx_runtimes_with_our_words(tmp_path: Path) -> None:
    given = model([helper.make_node("Add", ["x", "y"], ["z"])], {"x": ["n"], "y": ["n"]}, {"z": ["n"]})
    ds.for_onnxruntime(given, tmp_path / "m.onnx")
    with pytest.raises(Exception, match=r'input "y" of float32\[n\] where n = 2, got \[3\]'):
        session(tmp_path / "m.onnx").run(None, {"x": floats(2), "y": floats(3)})
    damaged = onnx.load(tmp_path / "m.onnx")
    damaged.graph.node[0].attribute[0].s = damaged.graph.node[0].attribute[0].s[:-8]
    with pytest.raises(Exception, match="one that is cut short: memory"):
        session(damaged.SerializeToString())
