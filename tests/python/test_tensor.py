"""ds.Tensor and ds.hdl."""

import operator
from collections.abc import Callable
from typing import Any

import deepseek as ds
import ml_dtypes
import numpy as np
import pytest
from deepseek import hdl


def test_looks_like_a_list() -> None:
    assert str(ds.Tensor([2.0, 4.0, 6.0])) == "[2.0, 4.0, 6.0]"
    assert repr(ds.Tensor([[1, 2]])) == "Tensor([[1, 2]], dtype=int64)"
    assert len(str(ds.Tensor(np.zeros(100_000, "f")))) < 200


def test_python_floats_are_float32() -> None:
    assert ds.Tensor([1.0]).dtype == "float32"
    assert ds.Tensor(np.array([1.0])).dtype == "float64"
    assert ds.Tensor([1, 2]).dtype == "int64"
    assert ds.Tensor([True]).dtype == "bool"
    assert ds.Tensor([1.0], "bfloat16").numpy().dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    "name",
    [
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
        "complex64",
        "complex128",
        "bfloat16",
        "float8_e4m3fn",
        "float8_e5m2",
        "float8_e4m3fnuz",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "float4_e2m1fn",
        "int4",
        "uint4",
        "int2",
        "uint2",
    ],
)
def test_every_dtype_goes_in_and_out(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    tensor = ds.Tensor(values)
    assert tensor.shape == (2, 3)
    assert np.asarray(tensor).tobytes() == values.tobytes()
    assert np.asarray(tensor).dtype == dtype


def test_memory_is_shared_through_dlpack() -> None:
    values = np.arange(6, dtype="float32").reshape(2, 3)
    tensor = ds.Tensor(values)
    values[0, 0] = 9
    assert tensor[0, 0].item() == 9
    back = np.from_dlpack(tensor)
    back[0, 1] = 8
    assert values[0, 1] == 8
    np.testing.assert_array_equal(ds.Tensor(values.T).numpy(), values.T)
    np.testing.assert_array_equal(ds.Tensor(values[:, ::2]).numpy(), values[:, ::2])


def test_memory_is_shared_with_torch() -> None:
    import torch

    there = torch.arange(4, dtype=torch.bfloat16)
    tensor = ds.Tensor(there)
    there[0] = 7
    assert tensor.tolist() == [7, 1, 2, 3]
    back = torch.from_dlpack(tensor)
    back[1] = 5
    assert tensor.tolist() == [7, 5, 2, 3]
    np.testing.assert_array_equal(hdl.relu(torch.tensor([-1.0, 1.0])).numpy(), [0, 1])


def test_memory_outlives_its_maker() -> None:
    tensor = ds.Tensor(np.ones(1000, "f"))
    view = tensor.numpy()
    del tensor
    assert view.sum() == 1000


@pytest.mark.parametrize(
    "name",
    ["add", "sub", "mul", "truediv", "pow", "eq", "ne", "lt", "le", "gt", "ge"],
)
def test_operators(name: str) -> None:
    f: Callable[[Any, Any], Any] = getattr(operator, name)
    a, b = np.array([1.0, 2.0, 3.5], "f"), np.array([2.0, 2.0, 0.5], "f")
    for x, y in ((a, b), (a, 2.0), (2.0, b)):
        want = f(x, y)
        lifted = [ds.Tensor(v) if isinstance(v, np.ndarray) else v for v in (x, y)]
        np.testing.assert_allclose(f(*lifted).numpy(), want, rtol=1e-6)
    np.testing.assert_allclose(f(a, ds.Tensor(b)).numpy(), f(a, b), rtol=1e-6)


def test_matmul_and_unary_operators() -> None:
    a = ds.Tensor(np.arange(6, dtype="f").reshape(2, 3))
    np.testing.assert_array_equal((a @ a.numpy().T).numpy(), a.numpy() @ a.numpy().T)
    np.testing.assert_array_equal((-a).numpy(), -a.numpy())
    np.testing.assert_array_equal(abs(-a).numpy(), a.numpy())
    np.testing.assert_array_equal(a.astype("int32").numpy(), a.numpy().astype("int32"))


def test_hdl_gives_back_what_came() -> None:
    a = np.random.rand(3, 4).astype("f")
    assert isinstance(hdl.relu(a), np.ndarray)
    assert isinstance(hdl.relu(ds.Tensor(a)), ds.Tensor)
    assert isinstance(hdl.relu([1.0, -1.0]), ds.Tensor)
    np.testing.assert_allclose(hdl.matmul(a, a.T), a @ a.T, rtol=1e-5)
    np.testing.assert_allclose(hdl.matmul(a, a.T, target="interpreter"), a @ a.T, rtol=1e-5)
    with pytest.raises(AttributeError, match="no_such_op"):
        _ = hdl.no_such_op
    with pytest.raises(ds.Error, match="matmul"):
        hdl.matmul(a, a)


def test_hdl_conv2d() -> None:
    import torch

    x, w, b = (np.random.rand(*shape).astype("f") for shape in ((2, 4, 9, 8), (6, 2, 3, 3), (6,)))
    options = {"stride": 2, "padding": 1, "dilation": 1, "groups": 2}
    want = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, w, b)), **options)
    np.testing.assert_allclose(hdl.conv2d(x, w, b, **options), want.numpy(), rtol=1e-4, atol=1e-5)
    want = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), groups=2, padding=(0, 2))
    np.testing.assert_allclose(hdl.conv2d(x, w, groups=2, padding=(0, 2)), want.numpy(), rtol=1e-4, atol=1e-5)


def test_example_2() -> None:
    import torch

    @ds.torch_compat
    def pytorch_model(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.relu(x * 2)

    x = ds.Tensor([1.0, 2.0, 3.0])
    assert str(pytorch_model(x)) == "[2.0, 4.0, 6.0]"
