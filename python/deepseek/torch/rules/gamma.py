"""Incomplete gamma functions, in float64: the power series where x < a + 1 and the continued fraction (by
Lentz's method) elsewhere (Abramowitz and Stegun, 6.5.29 and 6.5.31). One loop takes the terms of both. From
a = LARGE on, where they take long and lose digits, the uniform expansion (DLMF, 8.12).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import torch

from deepseek import Value
from deepseek.torch.builder import Builder, loop, rule

aten = torch.ops.aten
MOST_TERMS = 100_000.0
LARGE = 1000.0
SETTLED = 1.3  # beyond this |eta| the functions of a >= LARGE are 0 and 1
UNIFORM_TERMS = 40  # of each power series in eta, which converge up to 2 sqrt(pi)
STIRLING = [Fraction(1), Fraction(1, 12), Fraction(1, 288), Fraction(-139, 51840), Fraction(-571, 2488320)]
PRECISION = 1e-16
TINY = 1e-300  # in place of a zero divisor


class _Terms:
    """Arithmetic on float64 values and numbers."""

    def __init__(self, b: Builder) -> None:
        self.b = b

    def __call__(self, name: str, *inputs: Value | float) -> Value:
        return self.b.op(name, *(self.b.tensor(x, "float64") if isinstance(x, float) else x for x in inputs))

    def where(self, condition: Value, x: Value | float, y: Value | float) -> Value:
        return self("select", condition, x, y)

    def polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        total = self.b.tensor(coefficients[-1], "float64")
        for coefficient in reversed(coefficients[:-1]):
            total = self("add", self("mul", total, x), coefficient)
        return total

    def divisor(self, x: Value) -> Value:
        return self.where(self("less", self("abs", x), TINY), TINY, x)


def _goes_on(b: Builder, v: dict[str, Value]) -> Value:
    t = _Terms(b)
    series = t("greater", t("abs", v["term"]), t("mul", t("abs", v["sum"]), PRECISION))
    fraction = t("greater", t("abs", t("sub", v["change"], 1.0)), 4 * PRECISION)
    more = b.op("select", v["low"], series, fraction)
    return b.op("logical_and", more, t("less", v["n"], MOST_TERMS))


def _step(b: Builder, v: dict[str, Value]) -> dict[str, Value]:
    t = _Terms(b)
    n, a, x = v["n"], v["a"], v["x"]
    term = t("div", t("mul", v["term"], x), t("add", a, n))
    factor = t("mul", n, t("sub", a, n))
    linear = t("add", t("sub", x, a), t("add", t("mul", n, 2.0), 1.0))
    d = t("div", 1.0, t.divisor(t("add", t("mul", factor, v["d"]), linear)))
    c = t.divisor(t("add", linear, t("div", factor, v["c"])))
    change = t("mul", c, d)
    # An element that has settled stays as it is, whatever the others still need.
    going = _goes_on(b, v)
    following = {
        "term": term,
        "sum": t("add", v["sum"], term),
        "c": c,
        "d": d,
        "change": change,
        "fraction": t("mul", v["fraction"], change),
    }
    return {"n": t("add", n, 1.0)} | {k: t.where(going, value, v[k]) for k, value in following.items()}


def _parts(b: Builder, a: Value, x: Value) -> tuple[Value, Value]:
    """The lower and the upper function for finite a > 0 and x > 0."""
    t = _Terms(b)
    low = t("less", x, t("add", a, 1.0))
    start = t("add", t("sub", x, a), 1.0)
    first = t("div", 1.0, t.divisor(start))
    one = t("div", 1.0, a)
    state = {
        "n": b.op("full", shape=[], value=1.0, dtype="float64"),
        "term": one,
        "sum": one,
        "c": b.op("full", shape=b.shape(), value=1 / TINY, dtype="float64"),
        "d": first,
        "change": b.op("full", shape=b.shape(), value=2.0, dtype="float64"),
        "fraction": first,
    }
    last = loop(b, state, {"a": a, "x": x, "low": low}, _goes_on, _step)
    exponent = t("sub", t("sub", t("mul", a, t("log", x)), x), t("lgamma", a))
    scale = t("exp", exponent)
    series, fraction = t("mul", scale, last["sum"]), t("mul", scale, last["fraction"])
    return t.where(low, series, t("sub", 1.0, fraction)), t.where(low, t("sub", 1.0, series), fraction)


@functools.cache
def _uniform_coefficients() -> list[list[float]]:
    """d(k, n) of 8.12.12, of eta^n / a^k."""
    count = UNIFORM_TERMS + 2 * len(STIRLING)
    # 8.12.11: mu = alpha[1] eta + alpha[2] eta^2 + ... from mu mu' = eta (1 + mu).
    alpha = [Fraction(0), Fraction(1)]
    for n in range(2, count + 2):
        pairs = sum((alpha[i] * alpha[n + 1 - i] for i in range(2, n)), Fraction(0))
        alpha.append(alpha[n - 1] / (n + 1) - pairs / 2)
    first = [Fraction(-1, 3)] + [(n + 2) * alpha[n + 2] for n in range(1, count)]
    rows = [first]
    for k, g in enumerate(STIRLING[1:], start=1):
        last = rows[-1]
        rows.append([(-1) ** k * g * first[n] + (n + 2) * last[n + 2] for n in range(len(last) - 2)])
    return [[float(d) for d in row[:UNIFORM_TERMS]] for row in rows]


def _uniform(b: Builder, a: Value, x: Value) -> tuple[Value, Value]:
    """The lower and the upper function for finite a >= LARGE and x > 0: 8.12.3 and 8.12.4."""
    t = _Terms(b)
    mu = t("div", t("sub", x, a), a)
    # eta^2 / 2 = mu - log(1 + mu); near 0, mu^2 times a power series.
    near = t("less", t("abs", mu), 0.1)
    series = t.polynomial(t.where(near, mu, 0.0), [(-1) ** k / (k + 2) for k in range(18)])
    direct = t("sub", mu, t("log1p", t("maximum", mu, -1.0)))
    half_square = t.where(near, t("mul", t("mul", mu, mu), series), direct)
    half_square = t("minimum", half_square, SETTLED**2 / 2)
    size = t("sqrt", t("mul", half_square, 2.0))
    eta = t.where(t("less", mu, 0.0), t("neg", size), size)
    exponent = t("mul", a, half_square)
    inverse = t("div", 1.0, a)
    total = b.tensor(0.0, "float64")
    for row in reversed(_uniform_coefficients()):
        total = t("add", t("mul", total, inverse), t.polynomial(eta, row))
    scale = t("div", t("exp", t("neg", exponent)), t("sqrt", t("mul", a, 2 * math.pi)))
    rest = t("mul", scale, total)
    root = t.where(t("less", mu, 0.0), t("neg", t("sqrt", exponent)), t("sqrt", exponent))

    def tail(root: Value) -> Value:
        return t("mul", t("erfc", root), 0.5)

    return t("sub", tail(t("neg", root)), rest), t("add", tail(root), rest)


def _incomplete(upper: bool) -> Callable[..., Value]:
    def translate(b: Builder, a: Value, x: Value) -> Value:
        t, infinity = _Terms(b), float("inf")
        a, x = (b.broadcast(b.cast(value, "float64"), b.shape()) for value in (a, x))
        inside = t("greater", t("minimum", a, x), 0.0)
        inside = t("logical_and", inside, t("less", t("maximum", a, x), infinity))
        large = t("greater_equal", a, LARGE)
        usual = t("logical_and", inside, t("logical_not", large))
        value = _parts(b, t.where(usual, a, 1.0), t.where(usual, x, 1.0))[upper]
        value = t.where(large, _uniform(b, t("maximum", a, LARGE), x)[upper], value)
        value = t("maximum", value, 0.0)  # the difference from 1 may be less
        full, none = (0.0, 1.0) if upper else (1.0, 0.0)
        # At the ends, as in ATen: all of the integral is below x where a = 0 or x is infinite.
        none_below = t("logical_or", t("equal", x, 0.0), t("equal", a, infinity))
        all_below = t("logical_or", t("equal", a, 0.0), t("equal", x, infinity))
        ends = t.where(none_below, none, full)
        bad = t("logical_or", t("less", a, 0.0), t("less", x, 0.0))
        bad = t("logical_or", bad, t("logical_and", all_below, t("equal", a, x)))
        bad = t("logical_or", bad, t("logical_and", t("equal", a, 0.0), t("is_nan", x)))
        bad = t("logical_or", bad, t("logical_not", t("logical_or", none_below, all_below)))
        value = t.where(inside, value, t.where(bad, float("nan"), ends))
        return b.cast(value, b.dtype())

    return translate


rule(aten.igamma.default)(_incomplete(upper=False))
rule(aten.igammac.default)(_incomplete(upper=True))
