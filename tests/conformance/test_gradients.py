"""Gradients of every differentiable op: against PyTorch's autograd and against finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cases  # noqa: F401  (registers them)
import deepseek as ds
import numpy as np
import pytest
import torch
from case import CASES, Array, Case, Draw, results_of, to_torch
from hypothesis import assume
from hypothesis import strategies as st
from running import WHOLE, compare, drawn, run, run_gradient

STEP = 1e-6

# Composed of a loop, which has no gradient: recurrent layers that are trained come unrolled from PyTorch.
LOOPS = {"lstm", "gru", "rnn"}
# Jumps everywhere: a step of finite differences may cross one.
JUMPS = {"mod", "rem"}
# Has another gradient than its result, which is what it is for.
STOPS = {"stop_gradient"}
DIFFERENTIABLE = sorted(
    op.name for op in ds.op_table() if op.differentiable and op.name not in LOOPS and op.name in CASES
)


def active(case: Case) -> list[int]:
    """Inputs to differentiate."""
    floats = [i for i, x in enumerate(case.inputs) if x is not None and x.dtype.kind == "f"]
    return floats if case.differentiable is None else [i for i in case.differentiable if i in floats]


def smooth_case(op: str, data: st.DataObject) -> Case:
    """A case whose floats are wide and finite, with something to differentiate."""
    case = CASES[op](Draw(data, op, smooth=True))
    assume(active(case))
    for x in case.inputs:
        assume(x is None or x.dtype.kind != "V")  # ml_dtypes'
        assume(x is None or x.dtype.name != "float16")
    return case


def reference(case: Case) -> tuple[list[Array | None], list[Any]]:
    """Random gradients for the results, and what torch says are those of the inputs."""
    inputs = [to_torch(x) for x in case.inputs]
    leaves = [inputs[i].requires_grad_() for i in active(case)]  # type: ignore[union-attr]
    outputs = results_of(case, inputs)
    rng = np.random.default_rng(7)
    dtype = case.inputs[active(case)[0]].dtype  # type: ignore[union-attr]
    dys: list[Array | None] = []
    total = torch.zeros((), dtype=torch.float64)
    for i, y in enumerate(outputs):
        if i > 0 or not y.is_floating_point():
            dys.append(None)  # the gradient of further results is not taken, as in training
            continue
        dy = rng.uniform(-1, 1, list(y.shape)).astype(dtype)
        dys.append(dy)
        total = total + (y * torch.tensor(dy.astype("float64"))).sum()
    grads = (
        torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else [None] * len(leaves)
    )
    return dys, [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]


def check_against_torch(op: str, case: Case, target: str) -> None:
    dys, want = reference(case)
    assume(all(bool(torch.isfinite(g).all()) for g in want))
    needed = [i in active(case) for i in range(len(case.inputs))]
    got = run_gradient(op, case, needed, dys, target)
    for i, expected in zip(active(case), want, strict=True):
        if got[i] is None:
            assert not expected.any(), f"{op}: no gradient of input {i}"
            continue
        # Sums over what was broadcast cancel: the error is measured against the largest element.
        scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
        compare(got[i], expected, 50 + 10 * case.slack, f"{op} {case.attrs} gradient of input {i}", scale)


def check_against_differences(op: str, case: Case) -> None:
    if any(x is not None and x.dtype == np.float32 for x in case.inputs):
        wide = [x.astype("float64") if x is not None and x.dtype == np.float32 else x for x in case.inputs]
        case = Case(wide, widened(case.attrs), case.expect, case.slack, differentiable=case.differentiable)
    needed = [i in active(case) for i in range(len(case.inputs))]
    outputs = run(op, case, "interpreter")
    rng = np.random.default_rng(11)
    dys: list[Array | None] = [rng.uniform(-1, 1, outputs[0].shape)]
    assume(outputs[0].dtype == np.float64)
    grads = run_gradient(op, case, needed, [*dys, *[None] * (len(outputs) - 1)], "interpreter")
    directions = [
        rng.uniform(-1, 1, x.shape) if n else None for x, n in zip(case.inputs, needed, strict=True)
    ]  # type: ignore[union-attr]

    def moved(step: float) -> Array:
        inputs = [x if v is None else x + step * v for x, v in zip(case.inputs, directions, strict=True)]
        return run(op, Case(inputs, case.attrs, case.expect), "interpreter")[0]

    slope = (moved(STEP) - moved(-STEP)) / (2 * STEP)
    want = float((slope * dys[0]).sum())
    got = sum(float((g * v).sum()) for g, v in zip(grads, directions, strict=True) if g is not None)
    size = float(np.abs(slope * dys[0]).sum()) + 1e-3
    assert abs(got - want) <= 1e-4 * size, (
        f"{op} {case.attrs}: {got} along a direction, differences say {want}"
    )


def widened(attrs: dict[str, Any]) -> dict[str, Any]:
    return {key: "float64" if value == "float32" else value for key, value in attrs.items()}


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_against_torch(op: str) -> None:
    @drawn(40 if WHOLE else 6)
    def example(data: st.DataObject) -> None:
        check_against_torch(op, smooth_case(op, data), "interpreter")

    example()


@pytest.mark.parametrize(
    "op", ["conv", "matmul", "attention", "max_pool", "layer_norm", "gather", "softmax", "gelu"]
)
def test_against_torch_compiled(op: str) -> None:
    @drawn(20 if WHOLE else 3)
    def example(data: st.DataObject) -> None:
        check_against_torch(op, smooth_case(op, data), "cpu")

    example()


@pytest.mark.parametrize("op", [op for op in DIFFERENTIABLE if op not in JUMPS | STOPS])
def test_against_finite_differences(op: str) -> None:
    @drawn(20 if WHOLE else 3)
    def example(data: st.DataObject) -> None:
        check_against_differences(op, smooth_case(op, data))

    example()


def test_ops_without_gradient_say_so() -> None:
    graph = ds.Graph()
    x = graph.placeholder("x", [3], "float32")
    with pytest.raises(ds.Error, match="digamma"):
        graph.gradient("digamma", [x], {}, [x], [True])


def sequence(values: Sequence[float]) -> Array:
    return np.array(values, "float32")


@pytest.mark.parametrize(
    ("op", "x", "dx"),
    [
        ("relu", [-1, 0, 2], [0, 0, 1]),
        ("abs", [-1, 0, 2], [-1, 0, 1]),
        ("max", [1, 3, 3], [0, 0.5, 0.5]),
        ("prod", [2, 0, 3], [0, 6, 0]),
    ],
)
def test_where_there_are_corners(op: str, x: list[float], dx: list[float]) -> None:
    dy = np.ones(() if op in ("max", "prod") else 3, "float32")
    case = Case([sequence(x)], {}, lambda t: t)
    np.testing.assert_array_equal(run_gradient(op, case, [True], [dy], "interpreter")[0], sequence(dx))
