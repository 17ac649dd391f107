"""Runs a case through deepseek and compares."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import deepseek as ds
import numpy as np
import torch
from case import TOLERANCE, Array, Case
from deepseek._core import set_guard
from deepseek.arrays import to_array
from elsewhere import RUNNER, Elsewhere
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Where cases run: the reference, this machine's best instructions, AVX2, and AArch64 if it has a runner.
TARGETS: dict[str, dict[str, Any]] = {
    "interpreter": {"target": "interpreter"},
    "cpu": {"target": "cpu", "threads": 2},
    "avx2": {"target": "cpu", "isa": "avx2", "threads": 1},
}
if RUNNER:
    TARGETS["neon"] = {"target": "cpu", "isa": "neon", "threads": 1}
WHOLE = os.environ.get("DEEPSEEK_WHOLE_SUITES") == "1"
# Compiling for the CPU takes most of the time; the interpreter gets more examples.
EXAMPLES = {"interpreter": 10, "cpu": 4, "avx2": 3, "neon": 4}
if WHOLE:
    EXAMPLES = {"interpreter": 60, "cpu": 20, "avx2": 10, "neon": 10}
# Beside which ends of the buffers the pages lie that must not be touched; the interpreter checks its indices.
SIDES = {"interpreter": ["end"], "cpu": ["end", "begin"], "avx2": ["end", "begin"], "neon": ["end", "begin"]}


def drawn(examples: int) -> Callable[[Callable[[st.DataObject], None]], Callable[[], None]]:
    """Calls a function of drawn data so many times; the same data each time that the tests run."""
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    fixed = settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=slow
    )
    return lambda example: fixed(given(st.data())(example))


def dtype_of(x: Array) -> str:
    return str(x.dtype)


def compile_for(graph: ds.Graph, target: str, side: str = "end", **options: Any) -> ds.Executable | Elsewhere:
    compiled = ds.compile(graph, **TARGETS[target], **options)
    return Elsewhere(compiled, side) if target == "neon" else compiled


def compile_and_run(
    graph: ds.Graph, target: str, feed: dict[str, Array], side: str, precision: str = "fp32"
) -> dict[str, Any]:
    """Runs with every buffer between guard pages: inputs, results, constants, temporaries and scratch."""
    set_guard(side)
    compiled = compile_for(graph, target, side, precision=precision)
    if target in ("interpreter", "neon"):  # get the arrays as they are, strided ones too
        return compiled.run(feed)
    return compiled.run({name: ds.Tensor(to_array(x, dtype_of(x), copy=True)) for name, x in feed.items()})


def build(op: str, case: Case, symbolic: bool) -> tuple[ds.Graph, list[Any], dict[str, Array]]:
    """A graph with a placeholder per input, and what to feed it."""
    graph = ds.Graph()
    values: list[Any] = []
    feed: dict[str, Array] = {}
    for i, x in enumerate(case.inputs):
        if x is None:
            values.append(None)
            continue
        shape: list[int | str] = list(x.shape)
        if symbolic:
            for where, axis in case.symbolic:
                if where == i:
                    shape[axis] = "N"
        values.append(graph.placeholder(f"x{i}", shape, dtype_of(x)))
        feed[f"x{i}"] = x
    return graph, values, feed


def run(
    op: str,
    case: Case,
    target: str,
    symbolic: bool = False,
    side: str = "end",
    precision: str = "fp32",
) -> list[Array]:
    graph, values, feed = build(op, case, symbolic)
    outputs = graph.op(op, values, case.attrs | (case.symbolic_attrs if symbolic else {}))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for i, value in enumerate(outputs):
        graph.output(f"y{i}", value)
    graph.verify()
    got = compile_and_run(graph, target, feed, side, precision)
    return [got[f"y{i}"] for i in range(len(outputs))]


def run_gradient(
    op: str, case: Case, needed: Sequence[bool], dys: Sequence[Array | None], target: str
) -> list[Any]:
    """Gradients of the inputs that are needed, for gradients of the results."""
    graph, values, feed = build(op, case, symbolic=False)
    given: list[Any] = []
    for i, dy in enumerate(dys):
        if dy is None:
            given.append(None)
            continue
        given.append(graph.placeholder(f"dy{i}", list(dy.shape), dtype_of(dy)))
        feed[f"dy{i}"] = dy
    found = graph.gradient(op, values, case.attrs, given, list(needed))
    for i, value in enumerate(found):
        if value is not None:
            graph.output(f"dx{i}", value)
    if not any(value is not None for value in found):
        return [None] * len(found)
    got = compile_and_run(graph, target, feed, "end")
    return [None if value is None else got[f"dx{i}"] for i, value in enumerate(found)]


def compare(got: Array, want: torch.Tensor, slack: float, what: str, scale: float | None = None) -> None:
    """Equal up to TOLERANCE * slack of the element plus `scale` (default: the largest one, 1 at most)."""
    expected = want.detach().numpy()
    assert list(got.shape) == list(expected.shape), (
        f"{what}: shape {list(got.shape)}, not {list(expected.shape)}"
    )
    name = str(got.dtype)
    if name not in TOLERANCE:
        np.testing.assert_array_equal(got.astype("int64"), expected.astype("int64"), err_msg=what)
        return
    values = got.astype("float64")
    if name in ("float16", "bfloat16"):
        # What does not round to the dtype's largest number becomes infinite.
        limit = 65520.0 if name == "float16" else 2.0**128 - 2.0**119
        expected = np.where(np.abs(expected) >= limit, np.copysign(np.inf, expected), expected)
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected), err_msg=f"{what}: NaN")
    infinite = np.isinf(expected)
    np.testing.assert_array_equal(values[infinite], expected[infinite], err_msg=f"{what}: infinities")
    finite = np.isfinite(expected)
    if not finite.any():
        return
    if scale is None:
        scale = min(1.0, float(np.abs(expected[finite]).max()))
    smallest = 6e-8 if name == "float16" else 1e-37  # below it numbers lose their digits
    allowed = TOLERANCE[name] * slack * (np.abs(expected[finite]) + scale) + smallest
    error = np.abs(values[finite] - expected[finite])
    worst = int(np.argmax(error - allowed))
    assert error[worst] <= allowed[worst], (
        f"{what}: {values[finite][worst]} for {expected[finite][worst]}, "
        f"{np.count_nonzero(error > allowed)} of {error.size} beyond {allowed[worst]:.2e}"
    )
