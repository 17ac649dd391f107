"""Integers divided by 0: an error that names the op and its source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import deepseek as ds
import numpy as np
import pytest
import torch

OPS = ["div", "floor_div", "mod", "rem"]


def divided(op: str, size: Any, dtype: str) -> ds.Executable:
    graph = ds.Graph()
    a = graph.placeholder("a", shape=[size], dtype=dtype)
    b = graph.placeholder("b", shape=[size], dtype=dtype)
    graph.output("y", getattr(graph, op)(a, b))
    return ds.compile(graph)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_one_zero_anywhere_is_found_and_none_is_imagined(op: str, dtype: str) -> None:
    """Also where the last vector is not full."""
    executable = divided(op, "n", dtype)
    for size in (1, 7, 16, 33, 100):
        ones = np.ones(size, dtype)
        executable.run({"a": ones, "b": ones})
        for at in {0, size // 2, size - 1}:
            zero = ones.copy()
            zero[at] = 0
            with pytest.raises(ds.Error, match=f"{op}: expected integers other than 0 to divide by"):
                executable.run({"a": ones, "b": zero})
        executable.run({"a": ones, "b": ones})


def test_floats_are_divided_by_zero_and_nothing_by_nothing() -> None:
    assert np.isinf(
        divided("div", "n", "float32").run({"a": np.ones(3, "f4"), "b": np.zeros(3, "f4")})["y"]
    ).all()
    assert divided("div", "n", "int32").run({"a": np.ones(0, "i4"), "b": np.zeros(0, "i4")})["y"].shape == (
        0,
    )


def test_elements_beyond_the_border_are_not_divided() -> None:
    graph = ds.Graph()
    a = graph.placeholder("a", shape=[5], dtype="int32")
    graph.output("y", graph.pad(graph.div(graph.constant(np.full(5, 6, "i4")), a), low=[2], high=[3]))
    y = ds.compile(graph).run({"a": np.arange(1, 6, dtype="i4")})["y"]
    assert y.tolist() == [0, 0, 6, 3, 2, 1, 1, 0, 0, 0]


def test_pytorch_names_the_line() -> None:
    @torch.compile(backend="deepseek")
    def remainder(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a % b  # here

    a, b = torch.tensor([5, 7]), torch.tensor([2, 0])
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        torch.remainder(a, b)
    lines = Path(__file__).read_text().splitlines()
    line = next(i for i, text in enumerate(lines, 1) if text.endswith("# here"))
    with pytest.raises(
        ds.Error, match=re.escape(f"test_division.py:{line}: mod: expected integers other than 0")
    ):
        remainder(a, b)
    assert remainder(a, b + 1).tolist() == [2, 0]
