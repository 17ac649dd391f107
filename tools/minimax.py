"""Coefficients of the loop functions in src/loops/math*.cc: `python tools/minimax.py [NAME ...]` prints them.

Polynomials come from the Remez exchange, rational functions from iterated weighted least squares that
flattens the error (Sanathanan-Koerner with Lawson weights), both in 50 digits. The error printed is relative
to the function that the coefficients serve.
"""

import sys
from collections.abc import Callable
from typing import Any

import mpmath as mp

mp.mp.dps = 50
Number = Any  # mpmath has no types
Function = Callable[[Number], Number]


def chebyshev(a: float, b: float, n: int) -> list[Number]:
    """n points of [a, b], dense at the ends, without the ends themselves."""
    middle, half = (mp.mpf(a) + b) / 2, (mp.mpf(b) - a) / 2
    return [middle - half * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)]


def evaluate(c: list[Number], x: Number) -> Number:
    """c[0] + c[1] x + ..."""
    total = mp.mpf(0)
    for k in reversed(c):
        total = total * x + k
    return total


def polynomial(f: Function, weight: Function, a: float, b: float, degree: int) -> tuple[list[Number], Number]:
    """Coefficients that minimise max |weight (f - p)| on [a, b], and that maximum."""
    grid = chebyshev(a, b, 40 * (degree + 2))
    values = [(f(x), weight(x)) for x in grid]
    reference = [len(grid) * (2 * i + 1) // (2 * (degree + 2)) for i in range(degree + 2)]
    c: list[Number] = []
    worst = mp.mpf(0)
    for _ in range(12):
        m, right = mp.matrix(degree + 2), mp.matrix(degree + 2, 1)
        for row, at in enumerate(reference):
            for k in range(degree + 1):
                m[row, k] = grid[at] ** k
            m[row, degree + 1] = (-1) ** row / values[at][1]
            right[row] = values[at][0]
        solution = mp.lu_solve(m, right)
        c = [solution[k] for k in range(degree + 1)]
        error = [w * (v - evaluate(c, x)) for x, (v, w) in zip(grid, values, strict=True)]
        worst = max(abs(e) for e in error)
        extremes: list[int] = []
        for i, e in enumerate(error):  # the largest of each run of one sign
            if extremes and (error[extremes[-1]] > 0) == (e > 0):
                if abs(e) > abs(error[extremes[-1]]):
                    extremes[-1] = i
            else:
                extremes.append(i)
        while len(extremes) > degree + 2:
            extremes.pop(0 if abs(error[extremes[0]]) < abs(error[extremes[-1]]) else -1)
        if len(extremes) < degree + 2 or extremes == reference:
            break
        reference = extremes
    return c, worst


def rational(
    f: Function, weight: Function, a: float, b: float, top: int, bottom: int
) -> tuple[list[Number], list[Number], Number]:
    """p and q (q[0] = 1) with weight (f - p/q) nearly minimal on [a, b], and its maximum."""
    points = chebyshev(a, b, 8 * (top + bottom + 2))
    values = [f(x) for x in points]
    weights = [weight(x) for x in points]
    lawson = [mp.mpf(1)] * len(points)
    bottoms = [mp.mpf(1)] * len(points)
    best: tuple[list[Number], list[Number], Number] = ([], [], mp.inf)
    for _ in range(60):
        m, right = mp.matrix(len(points), top + bottom + 1), mp.matrix(len(points), 1)
        for i, x in enumerate(points):
            s = weights[i] * mp.sqrt(lawson[i]) / bottoms[i]
            for k in range(top + 1):
                m[i, k] = s * x**k
            for k in range(1, bottom + 1):
                m[i, top + k] = -s * values[i] * x**k
            right[i] = s * values[i]
        solution = mp.lu_solve(m, right)
        p = [solution[k] for k in range(top + 1)]
        q = [mp.mpf(1)] + [solution[top + k] for k in range(1, bottom + 1)]
        bottoms = [evaluate(q, x) for x in points]
        errors = [
            abs(w * (v - evaluate(p, x) / d))
            for x, v, w, d in zip(points, values, weights, bottoms, strict=True)
        ]
        worst = max(errors)
        if worst < best[2]:
            best = (p, q, worst)
        if worst > 0:
            lawson = [k * (e / worst + mp.mpf("0.02")) for k, e in zip(lawson, errors, strict=True)]
            total = sum(lawson)
            lawson = [k * len(lawson) / total for k in lawson]
    return best


def at_root(f: Function) -> Function:
    """z -> f(sqrt z), for functions of a square; z > 0."""
    return lambda z: f(mp.sqrt(z))


def erfcx(x: Number) -> Number:
    """exp(x^2) erfc(x)."""
    return mp.exp(x * x) * mp.erfc(x)


def show(name: str, c: list[Number], single: bool = False) -> None:
    digits = 10 if single else 19
    print(f"{name}: " + ", ".join(mp.nstr(k, digits, min_fixed=0, max_fixed=0) for k in c))


def fit_polynomial(
    name: str, f: Function, weight: Function, a: float, b: float, degree: int, single: bool = False
) -> None:
    c, error = polynomial(f, weight, a, b, degree)
    print(f"-- {name}, relative error {mp.nstr(error, 3)} = 2^{mp.nstr(mp.log(error, 2), 3)}")
    show(name, c, single)


def fit_rational(
    name: str, f: Function, weight: Function, a: float, b: float, top: int, bottom: int, single: bool = False
) -> None:
    p, q, error = rational(f, weight, a, b, top, bottom)
    print(f"-- {name}, relative error {mp.nstr(error, 3)} = 2^{mp.nstr(mp.log(error, 2), 3)}")
    show(name + " p", p, single)
    show(name + " q", q, single)


HALF_LN2 = 0.3472  # a little beyond ln 2 / 2
SQRT_LOW, SQRT_HIGH = 0.70710678 - 1, 1.4142136 - 1
QUARTER_PI = 0.78540


def exp_tail(r: Number) -> Number:
    """(exp(r) - 1 - r) / r^2."""
    return mp.mpf(1) / 2 if r == 0 else (mp.expm1(r) - r) / r**2


def log_tail(f: Number) -> Number:
    """(log(1+f) - f + f^2/2) / f^3."""
    return mp.mpf(1) / 3 if f == 0 else (mp.log1p(f) - f + f * f / 2) / f**3


def atanh_tail(z: Number) -> Number:
    """(log((1+s)/(1-s)) - 2s) / s^3 with z = s^2."""
    s = mp.sqrt(z)
    return (mp.log1p(2 * s / (1 - s)) - 2 * s) / s**3


def lgamma_core(x: Number) -> Number:
    """lgamma(x) / ((x-1)(x-2))."""
    return mp.loggamma(x) / ((x - 1) * (x - 2))


DIGAMMA_ROOT = mp.findroot(mp.digamma, 1.46)


def digamma_core(x: Number) -> Number:
    """digamma(x) / (x - its root)."""
    return mp.digamma(x) / (x - DIGAMMA_ROOT)


FITS: dict[str, Callable[[], None]] = {
    "exp32": lambda: fit_polynomial(
        "exp32", exp_tail, lambda r: r * r / mp.exp(r), -HALF_LN2, HALF_LN2, 4, True
    ),
    "exp64": lambda: fit_polynomial("exp64", exp_tail, lambda r: r * r / mp.exp(r), -HALF_LN2, HALF_LN2, 9),
    "log32": lambda: fit_polynomial(
        "log32", log_tail, lambda f: f**3 / mp.log1p(f), SQRT_LOW, SQRT_HIGH, 7, True
    ),
    "log64": lambda: fit_polynomial(
        "log64", atanh_tail, lambda z: z * mp.sqrt(z) / (2 * mp.atanh(mp.sqrt(z))), 1e-30, 0.02945, 6
    ),
    # After 2s + 2/3 s^3, for pow.
    "pow64": lambda: fit_polynomial(
        "pow64",
        lambda z: (atanh_tail(z) - mp.mpf(2) / 3) / z,
        lambda z: z**2 * mp.sqrt(z) / (2 * mp.atanh(mp.sqrt(z))),
        1e-12,
        0.02945,
        6,
    ),
    "sin64": lambda: fit_polynomial(
        "sin64",
        at_root(lambda x: (mp.sin(x) - x) / x**3),
        at_root(lambda x: x**3 / mp.sin(x)),
        1e-12,
        QUARTER_PI**2,
        5,
    ),
    "cos64": lambda: fit_polynomial(
        "cos64",
        at_root(lambda x: (mp.cos(x) - 1 + x * x / 2) / x**4),
        at_root(lambda x: x**4 / mp.cos(x)),
        1e-10,
        QUARTER_PI**2,
        5,
    ),
    "atan64": lambda: fit_polynomial(
        "atan64",
        at_root(lambda x: (mp.atan(x) - x) / x**3),
        at_root(lambda x: x**3 / mp.atan(x)),
        1e-12,
        0.4143**2,
        11,
    ),
    "asin64": lambda: fit_polynomial(
        "asin64",
        at_root(lambda x: (mp.asin(x) - x) / x**3),
        at_root(lambda x: x**3 / mp.asin(x)),
        1e-12,
        0.2501,
        11,
    ),
    "tanh32": lambda: fit_rational(
        "tanh32",
        at_root(lambda x: mp.tanh(x) / x),
        at_root(lambda x: x / mp.tanh(x)),
        1e-6,
        9.02**2,
        6,
        3,
        True,
    ),
    "erf32": lambda: fit_rational(
        "erf32", at_root(lambda x: mp.erf(x) / x), at_root(lambda x: x / mp.erf(x)), 1e-6, 3.92**2, 5, 5, True
    ),
    "erf64": lambda: fit_polynomial(
        "erf64", at_root(lambda x: mp.erf(x) / x - 1), at_root(lambda x: x / mp.erf(x)), 1e-12, 0.85**2, 11
    ),
    # x >= 0 as t = (x - 3) / (x + 3); erfc(x) = exp(-x^2) p(t) / (1 + 2x).
    "erfc64": lambda: fit_polynomial(
        "erfc64",
        lambda t: erfcx(3 * (1 + t) / (1 - t)) * (1 + 6 * (1 + t) / (1 - t)),
        lambda t: 1 / (erfcx(3 * (1 + t) / (1 - t)) * (1 + 6 * (1 + t) / (1 - t))),
        -0.62,
        0.81,
        20,
    ),
    "lgamma64": lambda: fit_rational("lgamma64", lgamma_core, lambda x: 1 / lgamma_core(x), 1.5, 8.0, 9, 8),
    "digamma64": lambda: fit_rational(
        "digamma64", digamma_core, lambda x: 1 / digamma_core(x), 1.0, 9.0, 8, 9
    ),
}


def main() -> None:
    for name in sys.argv[1:] or FITS:
        FITS[name]()


if __name__ == "__main__":
    main()
