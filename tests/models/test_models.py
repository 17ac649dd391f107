"""Real architectures through both doors, PyTorch's and ONNX's, against PyTorch."""

from pathlib import Path

import deepseek as ds
import deepseek.torch as bridge
import numpy as np
import pytest
import torch
import zoo

LIMIT = 1e-4
MODELS = [pytest.param(model, id=f"small-{name}") for name, model in zoo.SMALL.items()]
MODELS += [pytest.param(model, id=name) for name, model in zoo.FULL.items()]


@pytest.mark.parametrize("model", MODELS)
def test_torch_compile(model: zoo.Model) -> None:
    module, inputs = model.make()
    torch._dynamo.reset()
    bridge.reset()
    with torch.no_grad():
        expected = module(*inputs)
        result = torch.compile(module, backend="deepseek")(*inputs)
    assert bridge.explain().eager_ops.total() == 0, str(bridge.explain())
    assert torch.isfinite(expected).all()
    assert zoo.relative_error(result, expected) <= LIMIT


@pytest.mark.parametrize("model", MODELS)
def test_onnx(model: zoo.Model, tmp_path: Path) -> None:
    module, inputs = model.make()
    path = tmp_path / "model.onnx"
    zoo.export_onnx(module, inputs, str(path))
    with torch.no_grad():
        expected = module(*inputs)
    executable = ds.compile(path)
    result = executable(*(tensor.numpy() for tensor in inputs))
    assert isinstance(result, np.ndarray)
    assert zoo.relative_error(result, expected) <= LIMIT


@pytest.mark.parametrize("model", [pytest.param(m, id=n) for n, m in zoo.SMALL.items()])
def test_compile_module(model: zoo.Model) -> None:
    module, inputs = model.make()
    with torch.no_grad():
        expected = module(*inputs)
    result = ds.compile(module, example_inputs=inputs)(*(tensor.numpy() for tensor in inputs))
    assert zoo.relative_error(result, expected) <= LIMIT


@pytest.mark.parametrize("name", ["resnet", "bert", "gpt2"])
def test_one_thread_and_two_agree_bit_by_bit(name: str) -> None:
    """Splits of reductions depend on the shape, never on the number of threads (measured ways may)."""
    module, inputs = zoo.SMALL[name].make()
    arrays = [tensor.numpy() for tensor in inputs]
    one = ds.compile(module, example_inputs=inputs, threads=1, tune="off")(*arrays)
    two = ds.compile(module, example_inputs=inputs, threads=2, tune="off")(*arrays)
    assert np.array_equal(one, two)
