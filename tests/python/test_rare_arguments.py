"""Functions of which far arguments take longer: at each place of a vector, nested, shared, of every size."""

import math

import deepseek as ds
import numpy as np
import pytest

COUNTS = (1, 3, 8, 17, 64, 77)


def run(function, *arrays):
    graph = ds.Graph()
    values = [
        graph.placeholder(f"x{i}", shape=list(a.shape), dtype=str(a.dtype)) for i, a in enumerate(arrays)
    ]
    graph.output("y", function(graph, *values))
    return ds.compile(graph).run({f"x{i}": a for i, a in enumerate(arrays)})["y"]


def near_with_far_at_each_place(count, far, dtype):
    near = np.random.default_rng(count).uniform(-9, 9, count)
    rows = np.tile(near, (count + 1, 1))
    rows[np.arange(count), np.arange(count)] = far
    return rows.astype(dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_angles(name, count, dtype):
    of = np.vectorize(getattr(math, name), otypes=["f8"])
    for far in (2.0**44, -3.7e25, 1e38) + ((-1.7e300,) if dtype == "f8" else ()):
        x = near_with_far_at_each_place(count, far, dtype)
        tolerance = 4e-16 if dtype == "f8" else 1.2e-7
        got = run(lambda g, x: getattr(g, name)(x), x)
        np.testing.assert_allclose(got, of(x.astype("f8")), rtol=tolerance, atol=1e-300)


@pytest.mark.parametrize("count", COUNTS)
def test_of_shared_and_nested_arguments(count):
    x = near_with_far_at_each_place(count, 1e22, "f8")
    y = near_with_far_at_each_place(count, -4e30, "f8")[:, ::-1].copy()
    sin, cos = np.vectorize(math.sin, otypes=["f8"]), np.vectorize(math.cos, otypes=["f8"])

    def function(g, x, y):
        inner = g.mul(g.sin(x), g.add(g.cos(x), g.sin(y)))
        return g.add(g.sin(g.mul(g.add(inner, g.cos(y)), y)), g.cos(inner))

    inner = sin(x) * (cos(x) + sin(y))
    outer = (inner + cos(y)) * y
    np.testing.assert_allclose(
        run(lambda g, x, y: g.mul(g.sin(x), g.add(g.cos(x), g.sin(y))), x, y), inner, atol=2e-15
    )
    keep = np.abs(outer) < 1e3  # of larger ones the last bit is a turn
    np.testing.assert_allclose(run(function, x, y)[keep], (sin(outer) + cos(inner))[keep], atol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("spread", [2, 20, 60, 120, 2000])
def test_remainders(dtype, spread):
    rng = np.random.default_rng(spread)
    limit = 148 if dtype == "f4" else 1073
    exponents = np.clip(rng.integers(-spread, spread + 1, (2, 5000)), -limit, limit - 23)
    with np.errstate(over="ignore"):
        x, y = (np.ldexp(rng.uniform(-2, 2, exponents.shape), exponents)).astype(dtype)
    x[:40] = np.repeat([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, 5e-324, 3.0], 5)
    y[:40] = np.tile([np.inf, 0.0, np.nan, 1.0, 5e-324], 8)
    with np.errstate(over="ignore"):
        x[40:60] = y[40:60] * np.arange(20, dtype=dtype)  # whole quotients, and one bit beside them
    x[60:80] = np.nextafter(x[40:60], -np.inf, dtype=dtype)
    y[60:80] = y[40:60]
    with np.errstate(invalid="ignore", over="ignore"):
        want = np.fmod(x, y)
    got = run(lambda g, x, y: g.rem(x, y), x, y)
    np.testing.assert_array_equal(got, want)
    assert (np.signbit(got) == np.signbit(want))[~np.isnan(want)].all()


@pytest.mark.parametrize("count", COUNTS)
def test_gamma_of_both_signs(count):
    for far in (-7.3, 40.5, -0.25):
        x = np.abs(near_with_far_at_each_place(count, 1, "f8")) + 0.1
        x[np.arange(count), np.arange(count)] = far
        want = np.vectorize(math.lgamma, otypes=["f8"])(x)
        np.testing.assert_allclose(run(lambda g, x: g.lgamma(x), x), want, rtol=1e-13, atol=1e-14)
