"""The Python interface: graphs, executables, arrays, errors."""

import inspect
import subprocess
import sys
import threading
from pathlib import Path

import deepseek as ds
import ml_dtypes
import numpy as np
import onnx
import pytest
from deepseek.graph import python_name
from onnx import helper


def relu_graph() -> ds.Graph:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=["N", 2], dtype="float32")
    graph.relu(graph.add(x, 1.0), name="y")
    return graph


def test_example_1() -> None:
    graph = ds.Graph()
    a = graph.placeholder("a", shape=[1024, 1024], dtype="float32")
    b = graph.placeholder("b", shape=[1024, 1024], dtype="float32")
    c = graph.matmul(a, b, name="c")  # noqa: F841
    with pytest.warns(UserWarning, match="gpu.*cpu") as warned:
        compiled_graph = ds.compile(graph, target="gpu")  # or "cpu", "npu"
    assert len(warned) == 1
    assert warned[0].filename == __file__
    given = {"a": np.random.rand(1024, 1024), "b": np.random.rand(1024, 1024)}
    output = compiled_graph.run(given)
    assert list(output) == ["c"]
    assert output["c"].dtype == np.float32
    want = given["a"] @ given["b"]
    assert np.abs(output["c"] - want).max() <= 1e-5 * np.abs(want).max()


def test_a_lacking_target_is_an_error_when_strict() -> None:
    with pytest.raises(ds.Error, match="npu") as caught:
        ds.compile(relu_graph(), target="npu", strict=True)
    assert caught.value.code == "unsupported"


def test_precision() -> None:
    with pytest.warns(UserWarning, match="bf16.*fp32"):
        ds.compile(relu_graph(), precision="bf16", isa="avx2")
    with pytest.raises(ds.Error, match="'int4_weights' or 'auto', got 'fp31'"):
        ds.compile(relu_graph(), precision="fp31")


def test_any_size_without_compiling_again() -> None:
    executable = ds.compile(relu_graph())
    for n in (0, 1, 7, 1000):
        x = np.random.randn(n, 2).astype("float32")
        np.testing.assert_array_equal(executable.run({"x": x})["y"], np.maximum(x + 1, 0))


def test_call_syntax() -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=[2])
    y = graph.placeholder("y", shape=[2])
    graph.output("sum", x + y)
    graph.output("difference", x - y)
    executable = ds.compile(graph)
    a, b = np.array([1, 2], "f"), np.array([3, 5], "f")
    total, difference = executable(a, y=b)
    np.testing.assert_array_equal(total, [4, 7])
    np.testing.assert_array_equal(difference, [-2, -3])
    assert isinstance(executable(ds.Tensor(a), b)[0], ds.Tensor)
    single = ds.compile(relu_graph())
    assert isinstance(single(np.zeros((1, 2), "f")), np.ndarray)
    with pytest.raises(ds.Error, match="at most 2"):
        executable(a, b, a)
    with pytest.raises(ds.Error, match='input "y"'):
        executable(a)


def test_inputs_and_outputs_describe_themselves() -> None:
    executable = ds.compile(relu_graph())
    assert [(p.name, p.dtype, p.shape, p.role) for p in executable.inputs.values()] == [
        ("x", "float32", ("N", 2), "argument")
    ]
    assert [(p.name, p.dtype, p.shape) for p in executable.outputs.values()] == [("y", "float32", ("N", 2))]
    assert "test_interface.py" in executable.explain()


def test_inputs_are_cast_but_never_to_another_kind() -> None:
    executable = ds.compile(relu_graph())
    want = [[2.0, 0.0]]
    for value in (
        [[1, -2]],
        np.array([[1, -2]]),
        np.array([[1, -2]], "float16"),
        np.array([[1.0, -2.0]]),
        np.array([[1, -2]], ml_dtypes.bfloat16),
        np.asfortranarray(np.array([[1, -2]], "float32")),
        np.array([[1, 9, -2, 9]], "float32")[:, ::2],
        np.array([[1, -2]], ">f4"),
        np.array([[-2, 1]], ">f8")[:, ::-1],
        ds.Tensor([[1.0, -2.0]]),
    ):
        np.testing.assert_array_equal(executable.run({"x": value})["y"], want)
    with pytest.raises(ds.Error, match='input "x" of float32'):
        executable.run({"x": np.array([[1j, 2]])})
    graph = ds.Graph()
    graph.neg(graph.placeholder("i", shape=[2], dtype="int32"), name="y")
    with pytest.raises(ds.Error, match='input "i" of int32'):
        ds.compile(graph).run({"i": np.array([1.5, 2.5])})


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, 'an array for input "x", got none'),
        ({"x": np.zeros((1, 2)), "z": np.zeros(1)}, 'inputs named x, got "z"'),
        ({"x": np.zeros((1, 3), "f")}, 'input "x" of float32[N, 2]'),
        ({"x": np.zeros(2, "f")}, 'input "x" of float32[N, 2], got float32[2]'),
    ],
)
def test_wrong_inputs(given: dict[str, np.ndarray], text: str) -> None:
    executable = ds.compile(relu_graph())
    with pytest.raises(ds.Error) as caught:
        executable.run(given)
    assert text in str(caught.value)
    assert caught.value.code == "invalid argument"


@pytest.mark.parametrize(
    ("size", "dtype", "place"), [(2, "complex64", "p"), (2, "float32", "sum"), (1, "float32", "sum")]
)
def test_wrong_inputs_name_op_and_line(size: int, dtype: str, place: str, tmp_path: Path) -> None:
    lines = {}
    graph = ds.Graph()
    lines["p"] = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    p, q = graph.placeholder("p", shape=["N", 3]), graph.placeholder("q", shape=["M", 3])
    lines["sum"] = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    graph.output("y", graph.relu(graph.add(p, q)))
    executable = ds.compile(graph)
    executable.save(tmp_path / "model.dsx")
    for each in (executable, ds.load(tmp_path / "model.dsx")):
        with pytest.raises(ds.Error) as caught:
            each.run({"p": np.zeros((5, 3), dtype), "q": np.zeros((size, 3), "f")})
        assert caught.value.source == f"{__file__}:{lines[place]}"
        if place == "sum":
            assert caught.value.op == "add"
            assert caught.value.expected == "equal dims N and M"
            assert caught.value.got == f"5 and {size}"
        else:
            assert caught.value.op == "run"
            assert 'input "p" of float32' in caught.value.expected


def test_an_onnx_model_with_unequal_dims_names_its_node() -> None:
    node = helper.make_node("Add", ["a", "b"], ["y"], name="residual")
    a = helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, ["N", 3])
    b = helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, ["M", 3])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["K", 3])
    model = helper.make_model(helper.make_graph([node], "g", [a, b], [y]))
    executable = ds.compile(model.SerializeToString())
    assert executable.run({"a": np.ones((5, 3), "f"), "b": np.ones((5, 3), "f")})["y"].shape == (5, 3)
    with pytest.raises(ds.Error, match="equal dims N and M, got 5 and 2") as caught:
        executable.run({"a": np.ones((5, 3), "f"), "b": np.ones((2, 3), "f")})
    assert caught.value.op == "add"
    assert "residual" in caught.value.source


def test_errors_name_op_and_line() -> None:
    graph = ds.Graph()
    a = graph.placeholder("a", shape=[2, 3])
    with pytest.raises(ds.Error) as caught:
        graph.matmul(a, a)
    assert caught.value.op == "matmul"
    assert caught.value.source.startswith(__file__)
    assert "[2, 3]" in str(caught.value)
    graph.set_source("encoder.layer.0")
    with pytest.raises(ds.Error) as caught:
        graph.matmul(a, a)
    assert caught.value.source == "encoder.layer.0"
    with pytest.raises(ds.Error, match="no attributes, got 'size'"):
        graph.relu(a, size=3)
    with pytest.raises(ds.Error, match="values of this graph"):
        ds.Graph().relu(a)
    with pytest.raises(ds.Error, match="op of the table"):
        graph.op("no_such_op", [a])
    with pytest.raises(ds.Error, match="name of a dtype"):
        graph.placeholder("b", shape=[1], dtype="float31")
    with pytest.raises(ds.Error, match="a dim"):
        graph.placeholder("c", shape=[1.5])  # type: ignore[list-item]
    with pytest.raises(ds.Error, match="Graph"):
        ds.compile(3)


def test_numbers_and_arrays_become_constants() -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=[3])
    weights = np.array([1, 2, 3], "float32")
    graph.output("y", 2 * graph.mul(x, weights) - 1)
    weights[:] = 0  # the graph has its own copy
    np.testing.assert_array_equal(ds.compile(graph)(np.ones(3, "f")), [1, 3, 5])


def test_ops_are_methods_with_signatures() -> None:
    for op in ds.op_table():
        method = getattr(ds.Graph, python_name(op.name))
        assert method.__doc__ == op.doc
        names = list(inspect.signature(method).parameters)
        assert names[0] == "self"
        assert names[-1] == "name"
        assert {python_name(a.name) for a in op.attrs} <= set(names)


def test_gradient() -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=[3])
    dy = graph.placeholder("dy", shape=[3])
    (dx,) = graph.gradient("relu", [x], {}, [dy], [True])
    assert dx is not None
    graph.output("dx", dx)
    result = ds.compile(graph).run({"x": np.array([-1, 0, 2], "f"), "dy": np.array([5, 6, 7], "f")})
    np.testing.assert_array_equal(result["dx"], [0, 0, 7])


def test_many_threads_run_one_executable() -> None:
    executable = ds.compile(relu_graph())
    wrong = []

    def work(seed: int) -> None:
        for n in range(1, 40):
            x = np.full((n, 2), seed, "float32")
            if not (executable.run({"x": x})["y"] == seed + 1).all():
                wrong.append((seed, n))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_save_and_load(tmp_path: Path) -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=["N", 4])
    weights = np.random.rand(4, 8).astype("float32")
    graph.softmax(graph.matmul(x, weights), name="y")
    executable = ds.compile(graph)
    executable.save(tmp_path / "model.dsx")
    loaded = ds.load(tmp_path / "model.dsx")
    x_value = np.random.rand(5, 4).astype("float32")
    np.testing.assert_array_equal(loaded(x_value), executable(x_value))
    assert loaded.explain() == executable.explain()
    # A process of its own needs nothing else.
    np.save(tmp_path / "x.npy", x_value)
    np.save(tmp_path / "y.npy", executable(x_value))
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, numpy as np, deepseek as ds\n"
            "y = ds.load(sys.argv[1] + '/model.dsx')(np.load(sys.argv[1] + '/x.npy'))\n"
            "assert (y == np.load(sys.argv[1] + '/y.npy')).all()",
            str(tmp_path),
        ],
        check=True,
    )
    data = bytearray((tmp_path / "model.dsx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.dsx").write_bytes(data)
    with pytest.raises(ds.Error, match="checksum"):
        ds.load(tmp_path / "model.dsx")


def test_parameters_stay_in_a_context() -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", shape=["N", 3])
    w = graph.placeholder("w", shape=[3, 4], role="parameter")
    graph.output("y", x @ w)
    executable = ds.compile(graph)
    context = ds.Context(executable)
    x_value = np.random.rand(2, 3).astype("float32")
    weights = np.random.rand(3, 4).astype("float32")
    for version in (1, 2):
        weights *= 2
        context.set_parameter(1, ds.Tensor(weights)._array, version)
        (y,) = context.run([x_value, None])
        np.testing.assert_allclose(y.numpy(), x_value @ weights, rtol=1e-5)
    held = np.ascontiguousarray(weights * 3)
    context.set_parameter_pointer(1, held.ctypes.data, held.shape, 3, held)
    out = np.empty((2, 4), "float32")
    context.run_pointers([x_value.ctypes.data], [x_value.shape], [out.ctypes.data], [out.shape])
    np.testing.assert_allclose(out, x_value @ held, rtol=1e-5)


def test_import_is_light() -> None:
    code = "import sys, deepseek; print('torch' in sys.modules, 'ml_dtypes' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.split() == ["False", "False"]


def test_ways_are_chosen_by_tolerance_and_shown() -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", [1, 16, 24, 24])
    w = graph.constant(np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32))
    graph.output("y", graph.op("conv", [x, w], {"pad_low": [1, 1], "pad_high": [1, 1]}))
    assert "winograd 4x4 of winograd 4x4 price 1.00 " in ds.compile(graph, "cpu", tune="off").explain()
    assert "winograd" not in ds.compile(graph, "cpu", tune="off", rtol=1e-8).explain()
    with pytest.raises(ds.Error, match="'slow'"):
        ds.compile(graph, tune="slow")
