"""Reductions and products of many elements, against float64: rounding loses little, threads agree."""

import deepseek as ds
import ml_dtypes
import numpy as np
import pytest

TENTH = float(np.float32(0.1))


def reduced(op, x, axes, threads=None, keepdims=False):
    graph = ds.Graph()
    value = graph.placeholder("x", shape=list(x.shape), dtype=str(x.dtype))
    graph.output("y", getattr(graph, op)(value, axes=axes, keepdims=keepdims))
    return ds.compile(graph, threads=threads).run({"x": x})["y"]


LANES = (1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 511, 513)
LONG = (2047, 2049, 4097, 65535, 65536, 65537, 131072, 262147, 1_000_003)


@pytest.mark.parametrize("count", [*LANES, *LONG])
def test_equal_numbers(count):
    for shape in ((count,), (3, count)):
        y = reduced("sum", np.full(shape, 0.1, "f4"), [len(shape) - 1])
        np.testing.assert_allclose(y, TENTH * count, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 7, 17, 129, 4097, 70_001])
@pytest.mark.parametrize("columns", [1, 3, 8])
def test_leading_axes(count, columns):
    x = np.random.default_rng(count).random((count, columns), "f4")
    np.testing.assert_allclose(reduced("sum", x, [0]), x.astype("f8").sum(0), rtol=1e-6)
    np.testing.assert_allclose(reduced("mean", np.full_like(x, 0.1), [0]), TENTH, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 40_000, 3), (5, 70_001), (1, 1, 200_003), (33, 65_537), (3, 7, 5000)])
@pytest.mark.parametrize("axes", [[-1], [-2], [0, -1], [-2, -1]])
def test_axes(shape, axes):
    x = np.random.default_rng(1).standard_normal(shape).astype("f4")
    axes = [a % len(shape) for a in axes]
    wide, each = x.astype("f8"), 4e-7 * np.abs(x).astype("f8").sum(tuple(axes)).max()
    for op in ("sum", "max", "min"):
        want = getattr(wide, op)(tuple(axes))
        np.testing.assert_allclose(reduced(op, x, axes), want, atol=each, err_msg=op)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("count", [1, 17, 4097, 131_075])
def test_types(dtype, count):
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    rng = np.random.default_rng(count)
    x = (rng.random((2, count)) > 0.5) if dtype == "bool" else (rng.random((2, count)) * 0.4).astype(kind)
    if np.issubdtype(x.dtype, np.integer):
        x = rng.integers(0, 100, (2, count)).astype(kind)
    if dtype == "bool":
        for op in ("any", "all"):
            assert (reduced(op, x, [1]) == getattr(x, op)(1)).all()
            assert (reduced(op, np.full_like(x, op == "all"), [1]) == (op == "all")).all()
        return
    y = reduced("sum", x, [1])
    if np.issubdtype(x.dtype, np.integer):
        assert (y == x.sum(1, dtype=y.dtype)).all()
    else:
        tolerance = {"float64": 1e-15, "bfloat16": 2**-8, "float16": 2**-10}[dtype]
        with np.errstate(over="ignore"):
            want = x.astype("f8").sum(1).astype(kind).astype("f8")
        np.testing.assert_allclose(y.astype("f8"), want, rtol=tolerance)


@pytest.mark.parametrize("count", [33, 5000, 200_001])
@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_not_finite(count, axis):
    x = np.ones((8, count), "f4")
    x[1, count // 2] = np.inf
    x[2, count // 3] = -np.inf
    x[3, 1], x[3, 2] = np.inf, -np.inf
    x[4, count - 1] = np.nan
    x[5, ::2] = 3e38
    x[6], x[7] = -0.0, 0.0
    if axis == 0:
        x = np.ascontiguousarray(x.T)
    want = np.array([count, np.inf, -np.inf, np.nan, np.inf, count, 0, 0], "f8")
    want[5] = np.inf
    want[4] = np.nan
    np.testing.assert_allclose(reduced("sum", x, [axis]), want, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1_000_003,), (5, 300_000), (300_000, 5)])
def test_threads_agree(shape):
    x = np.random.default_rng(2).standard_normal(shape).astype("f4")
    axis = int(np.argmax(shape))
    one = reduced("sum", x, [axis], threads=1)
    for threads in (2, 3):
        for _ in range(2):
            assert np.array_equal(one, reduced("sum", x, [axis], threads=threads))


@pytest.mark.parametrize("shape", [(1, 65_536), (100_003,), (3, 300_001), (1, 7, 30_000)])
def test_long_rows_with_what_is_elementwise(shape):
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape).astype("f4")
    graph = ds.Graph()
    value = graph.placeholder("x", shape=list(shape), dtype="float32")
    last = [len(shape) - 1]
    mean = graph.mean(value, axes=last, keepdims=True)
    centred = graph.sub(value, mean)
    graph.output("softmax", graph.softmax(value))
    graph.output("variance", graph.mean(graph.mul(centred, centred), axes=last, keepdims=False))
    graph.output("scaled", graph.div(centred, graph.max(graph.abs(centred), axes=last, keepdims=True)))
    got = ds.compile(graph).run({"x": x})
    wide = x.astype("f8")
    e = np.exp(wide - wide.max(-1, keepdims=True))
    centred = wide - wide.mean(-1, keepdims=True)
    np.testing.assert_allclose(got["softmax"], e / e.sum(-1, keepdims=True), rtol=3e-6)
    np.testing.assert_allclose(got["variance"], (centred**2).mean(-1), rtol=1e-6)
    np.testing.assert_allclose(
        got["scaled"], centred / np.abs(centred).max(-1, keepdims=True), rtol=1e-5, atol=1e-6
    )


def product(a, b, turned):
    graph = ds.Graph()
    x = graph.placeholder("a", shape=list(a.shape), dtype=str(a.dtype))
    y = graph.placeholder("b", shape=list(b.shape), dtype=str(b.dtype))
    graph.output("y", graph.matmul(x, graph.transpose(y, perm=[1, 0]) if turned else y))
    return ds.compile(graph).run({"a": a, "b": b})["y"]


@pytest.mark.parametrize("rows", [1, 4, 17])
@pytest.mark.parametrize("columns", [1, 3, 33])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("depth", [16_385, 100_003])
def test_deep_products(rows, columns, turned, depth):
    for equal in (True, False):
        rng = np.random.default_rng(rows)
        a = np.full((rows, depth), 0.1, "f4") if equal else rng.random((rows, depth), "f4")
        b = np.full((depth, columns), 0.1, "f4") if equal else rng.random((depth, columns), "f4")
        if turned:
            b = np.ascontiguousarray(b.T)
        want = a.astype("f8") @ (b.T if turned else b).astype("f8")
        # A tile's chain of multiply-adds may be 2^15 long.
        np.testing.assert_allclose(product(a, b, turned), want, rtol=2e-4 if depth < 2**15 else 3e-5)
