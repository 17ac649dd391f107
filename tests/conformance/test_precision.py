"""Contractions in less than float32, where the target has it: right to the digits that are left."""

from __future__ import annotations

import cases  # noqa: F401  (registers them)
import pytest
from case import CASES, TOLERANCE, Case, Draw, results_of, to_torch
from hypothesis import strategies as st
from running import EXAMPLES, SIDES, TARGETS, compare, drawn, run

# Of operands to 8 bits, in sums of some hundred products of numbers below 1.
ROUNDING = 16 * 2**-9


def check(op: str, case: Case, target: str, symbolic: bool) -> None:
    want = results_of(case, [to_torch(x) for x in case.inputs])
    for side in SIDES[target]:
        got = run(op, case, target, symbolic, side, precision="bf16")
        for i, expected in enumerate(want if case.results is None else want[: case.results]):
            single = str(got[i].dtype) == "float32"
            slack = ROUNDING / TOLERANCE["float32"] if single else case.slack
            compare(got[i], expected, slack, f"{op} {case.attrs} result {i}", 1.0 if single else case.scale)


@pytest.mark.filterwarnings("ignore:precision")
@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "symbolic"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("op", ["conv", "conv_transpose", "gemm", "linear", "matmul"])
def test_bf16(op: str, target: str, symbolic: bool) -> None:
    @drawn(2 * EXAMPLES[target])
    def example(data: st.DataObject) -> None:
        case = CASES[op](Draw(data, op))
        check(op, case, target, symbolic and bool(case.symbolic))

    example()
