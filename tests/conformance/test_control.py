"""Control flow: `if` and `while`."""

from __future__ import annotations

import deepseek as ds
import numpy as np
import pytest
from running import TARGETS, compile_for


def powers_below() -> tuple[ds.Graph, ds.Graph]:
    """Condition and body of: while x < limit: x = x * factor, steps = steps + 1."""
    graphs = []
    for _ in range(2):
        g = ds.Graph()
        g.placeholder("x", [], "float32")
        g.placeholder("steps", [], "int64")
        g.placeholder("limit", [], "float32")
        g.placeholder("factor", [], "float32")
        graphs.append(g)
    condition, body = graphs
    x, _, limit, _ = condition.inputs
    condition.output("go", condition.less(x, limit))
    x, steps, _, factor = body.inputs
    body.output("x", body.mul(x, factor))
    body.output("steps", body.add(steps, 1))
    return condition, body


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("limit", "factor", "result", "count"), [(100, 2, 128, 7), (1, 2, 1, 0), (10, 10, 10, 1)]
)
def test_while(target: str, limit: float, factor: float, result: float, count: int) -> None:
    g = ds.Graph()
    condition, body = powers_below()
    values = [g.placeholder("limit", [], "float32"), g.placeholder("factor", [], "float32")]
    start = [g.constant(np.float32(1)), g.constant(np.int64(0))]
    x, steps = g.op("while", [*start, *values], {"condition": condition, "body": body, "carried": 2})
    g.output("x", x)
    g.output("steps", steps)
    got = compile_for(g, target).run({"limit": np.float32(limit), "factor": np.float32(factor)})
    assert got["x"] == result
    assert got["steps"] == count


@pytest.mark.parametrize("target", TARGETS)
def test_if(target: str) -> None:
    branches = {}
    for name, op in {"then": "exp", "otherwise": "neg"}.items():
        branch = ds.Graph()
        branch.output("y", branch.op(op, [branch.placeholder("x", ["N"], "float32")]))
        branches[name] = branch
    g = ds.Graph()
    condition, x = g.placeholder("condition", [], "bool"), g.placeholder("x", ["N"], "float32")
    g.output("y", g.op("if", [condition, x], branches))
    compiled = compile_for(g, target)
    for size in (0, 1, 5):
        values = np.linspace(-1, 1, size).astype("float32")
        np.testing.assert_allclose(
            compiled.run({"condition": True, "x": values})["y"], np.exp(values), rtol=1e-6
        )
        np.testing.assert_array_equal(compiled.run({"condition": False, "x": values})["y"], -values)


def test_branches_must_agree() -> None:
    then, otherwise = ds.Graph(), ds.Graph()
    then.output("y", then.neg(then.placeholder("x", [2], "float32")))
    otherwise.output("y", otherwise.cast(otherwise.placeholder("x", [2], "float32"), dtype="int32"))
    g = ds.Graph()
    inputs = [g.placeholder("condition", [], "bool"), g.placeholder("x", [2], "float32")]
    with pytest.raises(ds.Error, match=r"both graphs to give float32\[2\]"):
        g.op("if", inputs, {"then": then, "otherwise": otherwise})


def test_loop_state_must_stay() -> None:
    condition, body = powers_below()
    g = ds.Graph()
    wrong = [g.placeholder("x", [], "float32"), g.placeholder("steps", [2], "int64")]
    rest = [g.placeholder("limit", [], "float32"), g.placeholder("factor", [], "float32")]
    with pytest.raises(ds.Error, match="steps"):
        g.op("while", [*wrong, *rest], {"condition": condition, "body": body, "carried": 2})
