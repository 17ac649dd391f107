"""Every op against PyTorch in float64, on every target, over shapes drawn by property tests."""

from __future__ import annotations

import cases  # noqa: F401  (registers them)
import deepseek as ds
import pytest
from case import CASES, Case, Draw, results_of, to_torch
from hypothesis import assume
from hypothesis import strategies as st
from running import EXAMPLES, SIDES, TARGETS, compare, drawn, run


def check(op: str, case: Case, target: str, symbolic: bool = False) -> None:
    want = results_of(case, [to_torch(x) for x in case.inputs])
    for side in SIDES[target]:
        got = run(op, case, target, symbolic, side)
        for i, expected in enumerate(want if case.results is None else want[: case.results]):
            compare(got[i], expected, case.slack, f"{op} {case.attrs} result {i}", case.scale)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("op", sorted(CASES))
def test_values(op: str, target: str) -> None:
    @drawn(EXAMPLES[target])
    def example(data: st.DataObject) -> None:
        check(op, CASES[op](Draw(data, op)), target)

    example()


# Their cases have no input that could have a dim.
WITHOUT_INPUTS = {"full", "iota", "dim_value"}


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
@pytest.mark.parametrize("op", sorted(set(CASES) - WITHOUT_INPUTS))
def test_symbolic(op: str, target: str) -> None:
    """The same with a dim that is known when running only."""

    @drawn(EXAMPLES[target])
    def example(data: st.DataObject) -> None:
        case = CASES[op](Draw(data, op))
        assume(case.symbolic)
        check(op, case, target, symbolic=True)

    example()


def test_every_op_has_cases() -> None:
    """The table and the cases agree; ops that take graphs or give random numbers have tests of their own."""
    elsewhere = {"if", "while", "random_bits", "random_normal", "random_uniform"}
    assert {op.name for op in ds.op_table()} == set(CASES) | elsewhere
