"""Quantised ONNX models sum in integers, and differ from ONNX Runtime by rare roundings at most.

Weights stay below 64: where the processor has no VNNI, ONNX Runtime's pairs of products would saturate.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deepseek as ds
import numpy as np
import onnx
import onnxruntime
import pytest
import zoo
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

TYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}
X_SCALE, Y_SCALE = 0.02, 0.3


def node(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], output, **attributes)


def contraction(op: str, dtype: str, per_channel: bool, weight_zero: int = 0) -> tuple[bytes, Any]:
    """x -> Q -> DQ -> op with weights and bias in integers -> Q -> DQ, and an input."""
    random = np.random.default_rng(7)
    conv = op == "Conv"
    x = random.normal(0, 1, (2, 20, 9, 7) if conv else (5, 40)).astype("float32")
    w = random.integers(-63, 64, (24, 20, 3, 3) if conv else (40, 24)).astype("int8")
    axis = 0 if conv else 1
    scales = random.uniform(0.005, 0.02, 24 if per_channel else ()).astype("float32")
    zero = 3 if dtype == "int8" else 120
    numbers = {
        "w": w,
        "ws": scales,
        "wz": np.full(scales.shape, weight_zero, "int8"),
        "b": random.integers(-500, 500, 24).astype("int32"),
        "bs": (scales * X_SCALE).astype("float32"),
        "xs": np.float32(X_SCALE),
        "ys": np.float32(Y_SCALE),
        "z": np.array(zero, dtype),
    }
    along = {"axis": axis} if per_channel else {}
    nodes = [
        node("QuantizeLinear", ["x", "xs", "z"], "xq"),
        node("DequantizeLinear", ["xq", "xs", "z"], "xd"),
        node("DequantizeLinear", ["w", "ws", "wz"], "wd", **along),
    ]
    inputs = ["xd", "wd"]
    if op != "MatMul":
        nodes.append(node("DequantizeLinear", ["b", "bs"], "bd", **({"axis": 0} if per_channel else {})))
        inputs.append("bd")
    nodes += [
        node(op, inputs, "y", **({"pads": [1, 1, 1, 1]} if conv else {})),
        node("QuantizeLinear", ["y", "ys", "z"], "yq"),
    ]
    return serialised(nodes, {"x": x}, TYPES[dtype], "yq", numbers), {"x": x}


def serialised(
    nodes: list[onnx.NodeProto], inputs: dict[str, Any], made: int, result: str, numbers: dict[str, Any]
) -> bytes:
    kind = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int8": TensorProto.INT8}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind[str(x.dtype)], x.shape) for name, x in inputs.items()],
        [helper.make_tensor_value_info(result, made, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in numbers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def theirs(model: bytes | str, inputs: dict[str, Any]) -> Any:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def expect_rare_steps(got: Any, want: Any, most: int = 1, share: float = 0.01) -> None:
    apart = np.abs(got.astype("int64") - want.astype("int64"))
    assert apart.max() <= most
    assert (apart > 0).mean() <= share
    assert len(np.unique(want)) > 20  # says something


def multiplies_bytes(isa: str) -> bool:
    """Whether this machine does, with that instruction set."""
    graph = ds.Graph()
    graph.output("y", graph.placeholder("x", [1], "float32"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ds.compile(graph, target="cpu", isa=isa, precision="int8")
    return not said


@pytest.mark.parametrize("weight_zero", [0, -5])
@pytest.mark.parametrize("isa", ["", "avx2"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Conv"])
def test_between_quantize_and_dequantize(
    op: str, dtype: str, per_channel: bool, isa: str, weight_zero: int
) -> None:
    model, inputs = contraction(op, dtype, per_channel, weight_zero)
    compiled = ds.compile(model, target="cpu", isa=isa)
    if multiplies_bytes(isa):
        assert "in uint8" in compiled.explain()
    expect_rare_steps(compiled.run(inputs)["yq"], theirs(model, inputs))


def linear(op: str) -> tuple[bytes, Any, str]:
    """A model of that op; of a DynamicQuantizeLinear: with the MatMulInteger that reads it."""
    random = np.random.default_rng(3)
    conv = "Conv" in op
    x = random.integers(0, 256, (2, 20, 9, 7) if conv else (5, 40)).astype("uint8")
    w = random.integers(-63, 64, (24, 20, 3, 3) if conv else (40, 24)).astype("int8")
    numbers = {
        "w": w,
        "xz": np.uint8(120),
        "wz": np.int8(0),
        "xs": np.float32(X_SCALE),
        "ws": np.float32(0.01),
        "ys": np.float32(Y_SCALE),
    }
    inputs: dict[str, Any] = {"x": x}
    if op.startswith("QLinear"):
        nodes = [node(op, ["x", "xs", "xz", "w", "ws", "wz", "ys", "xz"], "y")]
        return serialised(nodes, inputs, TensorProto.UINT8, "y", numbers), inputs, "y"
    if op.startswith("Dynamic"):
        inputs = {"x": random.normal(0, 1, (5, 40)).astype("float32")}
        nodes = [
            helper.make_node(op, ["x"], ["q", "s", "z"]),
            node("MatMulInteger", ["q", "w", "z", "wz"], "y"),
        ]
    else:
        nodes = [node(op, ["x", "w", "xz", "wz"], "y")]
    return serialised(nodes, inputs, TensorProto.INT32, "y", numbers), inputs, "y"


@pytest.mark.parametrize(
    "op", ["QLinearMatMul", "QLinearConv", "MatMulInteger", "ConvInteger", "DynamicQuantizeLinear"]
)
def test_ops_on_integers(op: str) -> None:
    model, inputs, result = linear(op)
    compiled = ds.compile(model, target="cpu")
    assert ("in uint8" in compiled.explain()) == multiplies_bytes("")
    got, want = compiled.run(inputs)[result], theirs(model, inputs)
    if op.startswith("QLinear"):
        expect_rare_steps(got, want)
    else:
        assert np.array_equal(got, want)


@pytest.mark.parametrize("isa", ["", "avx2"])
@pytest.mark.parametrize("dtype", TYPES)
def test_costly_functions_of_bytes_are_looked_up(dtype: str, isa: str) -> None:
    x = np.random.default_rng(5).normal(0, 1, (40, 64)).astype("float32")
    numbers = {"s": np.float32(X_SCALE), "t": np.float32(0.01), "z": np.array(5, dtype)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], "d"),
        node("Sigmoid", ["d"], "g"),
        node("QuantizeLinear", ["g", "t", "z"], "gq"),
        node("DequantizeLinear", ["gq", "t", "z"], "gd"),
        node("Mul", ["d", "gd"], "m"),
        node("QuantizeLinear", ["m", "t", "z"], "y"),
    ]
    model = serialised(nodes, {"x": x}, TYPES[dtype], "y", numbers)
    compiled = ds.compile(model, target="cpu", isa=isa)
    assert "gather" in compiled.explain()
    expect_rare_steps(compiled.run({"x": x})["y"], theirs(model, {"x": x}))


class Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: list[dict[str, Any]]) -> None:
        self.feeds: Iterator[dict[str, Any]] = iter(feeds)

    def get_next(self) -> Any:
        return next(self.feeds, None)


@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("name", ["resnet", "mobilenet", "bert"])
def test_static_quantiser(name: str, activations: str, tmp_path: Path) -> None:
    module, inputs = zoo.SMALL[name].make()
    single, path = str(tmp_path / "single.onnx"), str(tmp_path / "quantised.onnx")
    zoo.export_onnx(module, inputs, single)
    port = onnx.load(single, load_external_data=False).graph.input[0].name
    feed = {port: inputs[0].numpy()}
    quantize_static(
        single,
        path,
        Samples([feed]),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType[activations],
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
    )
    compiled = ds.compile(path, target="cpu")
    ops = [n.op_type for n in onnx.load(path).graph.node]
    if multiplies_bytes(""):
        assert compiled.explain().count(" in uint8") > ops.count("MatMul") + ops.count("Gemm")
    got, want = compiled.run(feed), theirs(path, feed)
    # A step that differs early goes on; what quantising itself costs is far more.
    assert zoo.relative_error(next(iter(got.values())), want) <= 0.1


@pytest.mark.parametrize(
    ("bits", "zeros"), [(4, "none"), (4, "packed"), (4, "float"), (8, "none"), (8, "packed")]
)
@pytest.mark.parametrize(
    ("rows", "depth", "columns", "block"), [(1, 64, 48, 32), (5, 100, 33, 16), (3, 256, 128, 128)]
)
def test_weights_in_blocks(bits: int, zeros: str, rows: int, depth: int, columns: int, block: int) -> None:
    random = np.random.default_rng(depth)
    blocks, most = -(-depth // block), 2**bits
    packed = random.integers(0, 256, (columns, blocks, block * bits // 8)).astype("uint8")
    numbers = {"b": packed, "s": random.uniform(0.01, 0.1, (columns, blocks)).astype("float32")}
    if zeros == "packed":
        numbers["z"] = random.integers(0, 256, (columns, -(-blocks * bits // 8))).astype("uint8")
    elif zeros == "float":
        numbers["z"] = random.uniform(0, most, (columns, blocks)).astype("float32")
    x = random.normal(0, 1, (2, rows, depth)).astype("float32")
    inputs = ["x", *numbers]
    attributes = {"K": depth, "N": columns, "bits": bits, "block_size": block}
    nbits = helper.make_node("MatMulNBits", inputs, ["y"], domain="com.microsoft", **attributes)
    graph = helper.make_graph(
        [nbits],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, rows, columns))],
        [numpy_helper.from_array(value, name) for name, value in numbers.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    compiled = ds.compile(model, target="cpu")
    if zeros != "float":
        kept = f"int{bits}" if zeros == "none" else f"uint{bits}"
        assert f"with weights in {kept}" in compiled.explain()
    y = compiled.run({"x": x})["y"]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"x": x})[0]
    assert np.abs(y - wanted).max() <= 1e-4 * np.abs(wanted).max()
