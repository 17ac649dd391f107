"""Orthogonal polynomials of a degree that is a tensor, by their recurrences (Abramowitz and Stegun, 22.7).

P(0) = 1, P(1) is linear, P(k + 1) = (a x + b) P(k) - c P(k - 1) with a, b and c that depend on k. The loop
runs until the highest degree is reached. A negative degree gives 0, as in ATen. It counts in float64, but
what leaves the result's dtype is infinite, and NaN by the recurrence two degrees later, as in ATen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from deepseek import Value
from deepseek.torch.builder import Builder, Operand, loop, rule
from deepseek.torch.shapes import INTEGER_NAMES, TORCH_DTYPES

aten = torch.ops.aten

# The highest degree of Hermite's polynomials; NaN beyond, as in ATen.
HERMITE_LIMIT = {"float32": 128, "float64": 512}


@dataclass(frozen=True)
class Family:
    """P(1) = slope x + start; in the recurrence a = (a1 k + a0) / (k + d), and b and c alike."""

    slope: float
    start: float
    a: tuple[float, float]
    b: tuple[float, float]
    c: tuple[float, float]
    d: float | None = None  # no division
    shifted: bool = False  # of 2 x - 1
    limited: bool = False


def _chebyshev(slope: float, start: float, shifted: bool = False) -> Family:
    return Family(slope, start, (0, 2), (0, 0), (0, 1), shifted=shifted)


FAMILIES = {
    aten.special_chebyshev_polynomial_t: _chebyshev(1, 0),
    aten.special_chebyshev_polynomial_u: _chebyshev(2, 0),
    aten.special_chebyshev_polynomial_v: _chebyshev(2, -1),
    aten.special_chebyshev_polynomial_w: _chebyshev(2, 1),
    aten.special_shifted_chebyshev_polynomial_t: _chebyshev(1, 0, shifted=True),
    aten.special_shifted_chebyshev_polynomial_u: _chebyshev(2, 0, shifted=True),
    aten.special_shifted_chebyshev_polynomial_v: _chebyshev(2, -1, shifted=True),
    aten.special_shifted_chebyshev_polynomial_w: _chebyshev(2, 1, shifted=True),
    aten.special_hermite_polynomial_h: Family(2, 0, (0, 2), (0, 0), (2, 0), limited=True),
    aten.special_hermite_polynomial_he: Family(1, 0, (0, 1), (0, 0), (1, 0), limited=True),
    aten.special_laguerre_polynomial_l: Family(-1, 1, (0, -1), (2, 1), (1, 0), d=1),
    aten.special_legendre_polynomial_p: Family(1, 0, (2, 1), (0, 0), (1, 0), d=1),
}


def _linear(b: Builder, k: Value, slope: float, start: float) -> Value:
    return b.op("add", b.op("mul", k, b.constant(slope, k.dtype)), b.constant(start, k.dtype))


def _goes_on(b: Builder, v: dict[str, Value]) -> Value:
    """Which elements have not reached their degree at P(k)."""
    return b.op("greater", v["degree"], b.cast(v["k"], "int64"))


def _condition(b: Builder, v: dict[str, Value]) -> Value:
    number = b.op("logical_not", b.op("is_nan", v["current"]))
    return b.op("logical_and", _goes_on(b, v), number)


def _within(b: Builder, x: Value, dtype: str) -> Value:
    """x, infinite where a `dtype` would be."""
    infinite = b.op("mul", x, b.constant(float("inf"), "float64"))
    largest = b.constant(torch.finfo(TORCH_DTYPES[dtype]).max, "float64")
    return b.op("select", b.op("greater", b.op("abs", x), largest), infinite, x)


def _following(family: Family, dtype: str, b: Builder, v: dict[str, Value]) -> dict[str, Value]:
    k, current = v["k"], v["current"]
    factor = b.op("add", b.op("mul", v["x"], _linear(b, k, *family.a)), _linear(b, k, *family.b))
    previous = b.op("mul", v["previous"], _linear(b, k, *family.c))
    product = _within(b, b.op("mul", factor, current), dtype)
    following = _within(b, b.op("sub", product, previous), dtype)
    if family.d is not None:
        following = b.op("div", following, b.op("add", k, b.constant(family.d, "float64")))
    return {
        "k": b.op("add", k, b.constant(1, "float64")),
        "previous": current,
        "current": b.op("select", _goes_on(b, v), following, current),
    }


def _degree(b: Builder, n: Operand) -> Value:
    """As an integer, negative where it is none (NaN, infinite or too large), as C's conversion has it."""
    if isinstance(n, Value) and n.dtype in INTEGER_NAMES:
        return b.cast(n, "int64")
    n = b.tensor(n, "float64")
    inside = b.op("less", b.op("abs", n), b.constant(2.0**63, "float64"))
    return b.op("select", inside, b.cast(n, "int64"), b.constant(-1, "int64"))


def _polynomial(family: Family) -> Callable[..., Value]:
    def translate(b: Builder, x: Operand, n: Operand) -> Value:
        shape, dtype = b.shape(), b.dtype()
        x = b.broadcast(b.tensor(x, "float64"), shape)
        degree = b.broadcast(_degree(b, n), shape)
        if family.shifted:
            x = b.op("sub", b.op("add", x, x), b.constant(1, "float64"))
        one = b.op("full", shape=shape, value=1.0, dtype="float64")
        zero = b.constant(0, "int64")
        start = b.op("select", b.op("greater", degree, zero), _linear(b, x, family.slope, family.start), one)
        state = {"k": b.constant(1, "float64"), "previous": one, "current": start}
        body = functools.partial(_following, family, dtype)
        result = loop(b, state, {"degree": degree, "x": x}, _condition, body)["current"]
        result = b.op("select", b.op("less", degree, zero), b.constant(0, "float64"), result)
        if family.limited:
            beyond = b.op("greater", degree, b.constant(HERMITE_LIMIT.get(dtype, 128), "int64"))
            result = b.op("select", beyond, b.constant(float("nan"), "float64"), result)
        return b.cast(result, dtype)

    return translate


for _packet, _family in FAMILIES.items():
    rule(_packet.default, _packet.x_scalar, _packet.n_scalar)(_polynomial(_family))
