"""Whole models compiled for AArch64 here and run by deepseek-run, against PyTorch and this machine's code."""

from __future__ import annotations

import deepseek as ds
import pytest
import torch
import zoo
from elsewhere import Elsewhere

LIMIT = 1e-4
MODELS = {f"small-{name}": model for name, model in zoo.SMALL.items()}
MODELS |= {name: zoo.BENCH[name] for name in ("resnet18", "minilm")}


@pytest.mark.parametrize("name", MODELS)
def test_as_here(name: str) -> None:
    module, inputs = MODELS[name].make()
    with torch.no_grad():
        expected = module(*inputs)
    arrays = [tensor.numpy() for tensor in inputs]
    here = ds.compile(module, example_inputs=inputs)
    there = Elsewhere(ds.compile(module, example_inputs=inputs, isa="neon", threads=2), "")
    [result] = there.run(dict(zip(there.compiled.inputs, arrays, strict=True))).values()
    assert zoo.relative_error(result, expected) <= LIMIT
    assert zoo.relative_error(result, here(*arrays)) <= LIMIT
