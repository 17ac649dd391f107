"""Every op's cases as ONNX models: valid, loaded by ONNX Runtime, with the reference's results.

Where ONNX Runtime has no kernel (narrow integers above all) and where there are no elements (its reductions
then give other shapes) ONNX's own reference computes. bfloat16 comes and goes as float32.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cases  # noqa: F401  (registers them)
import deepseek as ds
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from case import CASES, Array, Case, Draw
from hypothesis import HealthCheck, Phase, assume, given, reject, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from running import WHOLE, compare
from test_values import WITHOUT_INPUTS

EXAMPLES = 40 if WHOLE else 5
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

# Both sides may be off; ONNX Runtime computes some functions less exactly, of float64 in part in float32.
SLACK = defaultdict(lambda: 1.0, {"float64": 1e5, "float32": 20, "float16": 4, "bfloat16": 16000})
# Of which opset 21 has no operator, and no few that give the same.
INEXPRESSIBLE = {"bitcast", "digamma", "lgamma", "cummax", "cummin", "logcumsumexp"}
INEXPRESSIBLE |= {"lu", "permutation_of_pivots", "triangular_solve", "cholesky"}
INEXPRESSIBLE |= {"householder", "apply_householder", "jacobi_svd", "symmetric_eigen"}
# ONNX says nothing of the place of NaN in an order; see `defined` for what else it leaves open.
ORDERED = {"argmax", "argmin", "clamp", "max", "min", "sort", "topk"}
# What a case's dtypes or attributes may make inexpressible.
PARTLY = {
    "conv": "integers",
    "pad": "symbolic dims in modes other than constant, nothing to pad with",
    "avg_pool": "integers",
    "sum_pool": "integers",
    "sum_pool_grad": "a symbolic number of channels",
    "avg_pool_grad": "a symbolic number of channels",
    "max_pool_with_indices": "wide paddings",
    "max_pool_indices": "wide paddings",
}


def exported(op: str, case: Case, path: Path, symbolic: bool) -> tuple[ds.Graph, dict[str, Array]]:
    """The graph of one op, written to `path`, and what to feed it."""
    graph = ds.Graph()
    values: list[Any] = []
    feed: dict[str, Array] = {}
    for i, x in enumerate(case.inputs):
        if x is None:
            values.append(None)
            continue
        shape: list[int | str] = list(x.shape)
        for where, axis in case.symbolic if symbolic else []:
            if where == i:
                shape[axis] = "N"
        narrow = str(x.dtype) == "bfloat16"
        given = np.array(x, dtype="float32" if narrow else x.dtype, order="C")
        value = graph.placeholder(f"x{i}", shape, str(given.dtype))
        values.append(graph.cast(value, dtype="bfloat16") if narrow else value)
        feed[f"x{i}"] = given
    results = graph.op(op, values, case.attrs | (case.symbolic_attrs if symbolic else {}))
    for i, result in enumerate(results if isinstance(results, tuple) else (results,)):
        narrow = result.dtype == "bfloat16"
        graph.output(f"y{i}", graph.cast(result, dtype="float32") if narrow else result)
    ds.export_onnx(graph, path)
    return graph, feed


def run_onnx(path: Path, feed: dict[str, Array]) -> Sequence[Any]:
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(path, options)
        if all(x.size for x in feed.values()):
            results: list[Any] = session.run(None, feed)
            return results
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        pass
    try:
        return list(ReferenceEvaluator(str(path)).run(None, feed))
    except Exception:
        reject()  # some of its operators fail on scalars, or where there are no elements


def defined(op: str, case: Case) -> bool:
    """Whether ONNX says what the results are."""
    arrays = [x for x in case.inputs if x is not None]
    if op in ORDERED:
        return not any(np.isnan(x.astype("float64")).any() for x in arrays)
    if op == "cast" and "int" in case.attrs["dtype"]:
        x = arrays[0].astype("float64")
        return bool(((x >= (0 if "u" in case.attrs["dtype"] else -128)) & (x < 128)).all())
    if op == "pow" and arrays[0].dtype.kind in "iu":
        base, exponent = (np.abs(x.astype("float64")) for x in arrays)
        fits = base**exponent < 2.0 ** (8 * arrays[0].dtype.itemsize - 1)
        return bool(fits.all() and (arrays[1] >= 0).all())
    if op in ("gru", "lstm", "rnn") and len(case.inputs) > 4 and case.inputs[4] is not None:
        return bool((case.inputs[4] > 0).all())
    return True


def check(op: str, case: Case, path: Path, symbolic: bool = False) -> None:
    assume(defined(op, case))
    refused = None
    try:
        graph, feed = exported(op, case, path, symbolic)
    except ds.Error as error:
        refused = error
    if refused is not None:
        assert refused.code == "unsupported", refused
        assert refused.op, refused
        assert refused.source, refused
        assert op in INEXPRESSIBLE | set(PARTLY), refused
        return
    assert op not in INEXPRESSIBLE or not all(x is None or x.size for x in case.inputs)
    want = ds.compile(graph, target="interpreter").run(feed)
    narrow = any(str(x.dtype) == "bfloat16" for x in case.inputs if x is not None)
    for i, got in enumerate(run_onnx(path, feed)):
        expected = want[f"y{i}"]
        assert str(got.dtype) == str(expected.dtype)
        slack = case.slack * SLACK["bfloat16" if narrow else str(expected.dtype)]
        wide = expected.astype("float64") if expected.dtype.kind == "f" else expected.astype("int64")
        compare(np.asarray(got), torch.tensor(wide), slack, f"{op} {case.attrs} result {i}", scale=1.0)


@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "symbolic"])
@pytest.mark.parametrize("op", sorted(CASES))
def test_export(op: str, symbolic: bool, tmp_path: Path) -> None:
    if symbolic and op in WITHOUT_INPUTS:
        return

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=SLOW,
        phases=[Phase.generate],
    )
    @given(st.data())
    def example(data: st.DataObject) -> None:
        case = CASES[op](Draw(data, op))
        assume(case.symbolic or not symbolic)
        check(op, case, tmp_path / "model.onnx", symbolic)

    example()
