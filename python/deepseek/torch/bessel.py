"""Bessel functions of order 0 and 1 and Airy's function, element by element in float64.

Near 0 by their power series, far away by their asymptotic expansions (Abramowitz and Stegun, 9.1, 9.2, 9.6
and 9.7); between, J and Y by the recurrence taken backwards (9.12) and K by the trapezoidal rule on its
integral (9.6.24), which converges exponentially.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deepseek.torch.decompositions import decomposition

aten = torch.ops.aten

EULER = 0.5772156649015329
NEAR = 4.0  # the power series of J and Y lose two digits here
FAR = 25.0  # the expansions reach float64's precision from here
BACKWARD_FROM = 64  # J of this order is 0 to float64's precision below FAR
SERIES_TERMS = 24  # of J, Y and K up to NEAR
GROWING_TERMS = 64  # of I up to FAR: nothing cancels
EXPANSION_TERMS = 20
STEPS = 20  # of the trapezoidal rule


def _horner(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def _harmonic(k: int) -> float:
    return math.fsum(1 / i for i in range(1, k + 1))


def _power_series(order: int, terms: int, weight: Callable[[int], float]) -> list[float]:
    """Of (x^2 / 4)^k: weight(k) / (k! (k + order)!)."""
    return [weight(k) / (math.factorial(k) * math.factorial(k + order)) for k in range(terms)]


def _expansion(order: int) -> list[float]:
    """a(k) of 9.2.5 and 9.7.1, of 1 / x^k."""
    terms = [1.0]
    for k in range(1, EXPANSION_TERMS):
        terms.append(terms[-1] * (4 * order * order - (2 * k - 1) ** 2) / (8 * k))
    return terms


# -- J and Y


def _backward(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """J0, J1 and the sums over k of (-1)^k J_2k / k and of (-1)^k J_2k' / k, for NEAR <= x <= FAR."""
    above, here = torch.zeros_like(x), torch.full_like(x, 1e-280)
    norm, sum0, sum1, j1 = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x), here
    double = 2 / x
    for order in range(BACKWARD_FROM, 0, -1):
        below = double * order * here - above
        if order % 2 == 0:
            k = order // 2
            norm = norm + 2 * here
            sum0 = sum0 + (-1) ** k / k * here
            sum1 = sum1 + (-1) ** k / (2 * k) * (below - above)
        if order == 1:
            j1 = here
        above, here = here, below
    norm = norm + here
    return here / norm, j1 / norm, sum0 / norm, sum1 / norm


def _far(order: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """J and Y for x >= FAR: 9.2.5 and 9.2.6."""
    terms, inverse = _expansion(order), 1 / x
    signed = [(-1) ** (k // 2) * term for k, term in enumerate(terms)]
    square = inverse * inverse
    p, q = _horner(square, signed[::2]), _horner(square, signed[1::2]) * inverse
    c, s = x.cos(), x.sin()
    # cos and sin of x - pi / 4, or of x - 3 pi / 4, times sqrt 2
    cosine, sine = (c + s, s - c) if order == 0 else (s - c, -(s + c))
    size = (1 / (math.pi * x)).sqrt()
    return size * (p * cosine - q * sine), size * (p * sine + q * cosine)


def _near(order: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """J and Y for 0 <= x <= NEAR: 9.1.10, 9.1.11 and 9.1.13."""
    square, half = x * x / 4, x / 2
    j = _horner(square, _power_series(order, SERIES_TERMS, lambda k: (-1) ** k))
    logarithm = half.log()
    if order == 0:
        rest = _horner(square, _power_series(0, SERIES_TERMS, lambda k: -((-1) ** k) * _harmonic(k)))
        return j, 2 / math.pi * ((logarithm + EULER) * j + rest)
    j = j * half
    digammas = _power_series(
        1, SERIES_TERMS, lambda k: (-1) ** k * (_harmonic(k) + _harmonic(k + 1) - 2 * EULER)
    )
    return j, (2 * logarithm * j - half * _horner(square, digammas) - 2 / x) / math.pi


def _oscillating(order: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """J and Y of x >= 0."""
    near_j, near_y = _near(order, x)
    middle = x.clamp(NEAR, FAR)
    j0, j1, sum0, sum1 = _backward(middle)
    logarithm = (middle / 2).log() + EULER
    if order == 0:
        middle_j, middle_y = j0, 2 / math.pi * (logarithm * j0 - 2 * sum0)
    else:  # -Y0'
        middle_j, middle_y = j1, 2 / math.pi * (logarithm * j1 - j0 / middle + 2 * sum1)
    far_j, far_y = _far(order, x.clamp(min=FAR))
    near, far = x <= NEAR, x >= FAR

    def of(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return torch.where(x.isnan(), x, torch.where(near, a, torch.where(far, c, b)))

    return of(near_j, middle_j, far_j), of(near_y, middle_y, far_y)


# -- I and K


def _growing(order: int, x: Tensor, scaled: bool) -> Tensor:
    """I of |x|, times e^-|x| if `scaled`."""
    x = x.abs()
    near = x.clamp(max=FAR)
    value = _horner(near * near / 4, _power_series(order, GROWING_TERMS, lambda k: 1.0))
    if order == 1:
        value = value * near / 2
    away = x.clamp(min=FAR)
    expansion = _horner(1 / away, [(-1) ** k * term for k, term in enumerate(_expansion(order))])
    far = expansion / (math.sqrt(2 * math.pi) * away.sqrt())
    if scaled:
        value = value * (-near).exp()
        far = torch.where(away.isinf(), 0.0, far)
    else:
        half = (away / 2).exp()  # e^x alone overflows first
        far = far * half * half
    return torch.where(x <= FAR, value, far)


def _odd(value: Tensor, x: Tensor) -> Tensor:
    return torch.where(x < 0, -value, value)


def _decaying(order: int, x: Tensor, scaled: bool) -> Tensor:
    """K of x, times e^x if `scaled`; infinite at 0, NaN below."""
    near = x.clamp(max=1.0)
    square, logarithm = near * near / 4, (near / 2).log()
    i = _horner(square, _power_series(order, SERIES_TERMS, lambda k: 1.0))
    if order == 0:
        rest = _horner(square, _power_series(0, SERIES_TERMS, _harmonic))
        small = rest - (logarithm + EULER) * i
    else:
        digammas = _power_series(1, SERIES_TERMS, lambda k: _harmonic(k) + _harmonic(k + 1) - 2 * EULER)
        small = 1 / near + logarithm * i * near / 2 - near / 4 * _horner(square, digammas)
    away = x.clamp(min=1.0)
    step = 0.5 / away.clamp(min=4.0).sqrt()
    total = torch.full_like(x, 0.5)
    for n in range(1, STEPS):
        grown = (step * (n / 2)).sinh()
        rise = 2 * grown * grown  # cosh(step n) - 1
        term = (-away * rise).exp()
        total = total + (term if order == 0 else term * (rise + 1))
    large = total * step
    large, small = (large, small * near.exp()) if scaled else (large * (-away).exp(), small)
    value = torch.where(x <= 1, small, torch.where(x.isinf(), 0.0, large))
    value = torch.where(x == 0, float("inf"), value)
    return torch.where((x < 0) | x.isnan(), float("nan"), value)


# -- Airy's function

AIRY_NEAR, AIRY_FAR = 2.0, -7.0  # the power series keep their digits between
AIRY_STEP, AIRY_STEPS = 0.125, 48  # of the trapezoidal rule: exp(-sqrt(2) t^2) is 0 beyond
AIRY_TERMS = 40


def _airy_series(x: Tensor) -> Tensor:
    """10.4.2: Ai(0) f(x) + Ai'(0) g(x)."""
    f, g = [1.0], [1.0]
    for k in range(1, AIRY_TERMS):
        f.append(f[-1] / ((3 * k - 1) * (3 * k)))
        g.append(g[-1] / ((3 * k) * (3 * k + 1)))
    cube = x * x * x
    at_zero, slope = 1 / (3 ** (2 / 3) * math.gamma(2 / 3)), 1 / (3 ** (1 / 3) * math.gamma(1 / 3))
    return at_zero * _horner(cube, f) - slope * x * _horner(cube, g)


def _airy_decaying(x: Tensor) -> Tensor:
    """For x >= AIRY_NEAR, the integral along the path of steepest descent by the trapezoidal rule: e^-z / pi
    times that of exp(-sqrt(x) t^2) cos(t^3 / 3) over t > 0, with z = 2/3 x^(3/2).
    """
    root = x.sqrt()
    total = torch.full_like(x, 0.5)
    for n in range(1, AIRY_STEPS):
        t = n * AIRY_STEP
        total = total + (root * -(t * t)).exp() * math.cos(t**3 / 3)
    return total * (AIRY_STEP / math.pi) * (-2 / 3 * x * root).exp()


def _airy_oscillating(x: Tensor) -> Tensor:
    """Of -x, for x >= -AIRY_FAR: 10.4.60."""
    terms = [1.0]
    for k in range(1, EXPANSION_TERMS):
        terms.append(terms[-1] * (6 * k - 5) * (6 * k - 3) * (6 * k - 1) / (216 * k * (2 * k - 1)))
    signed = [(-1) ** (k // 2) * term for k, term in enumerate(terms)]
    z = 2 / 3 * x * x.sqrt()
    square = 1 / (z * z)
    angle = z + math.pi / 4
    wave = angle.sin() * _horner(square, signed[::2]) - angle.cos() / z * _horner(square, signed[1::2])
    return wave / (math.pi * x.sqrt()).sqrt()


def _airy(x: Tensor) -> Tensor:
    value = _airy_series(x.clamp(AIRY_FAR, AIRY_NEAR))
    value = torch.where(x > AIRY_NEAR, _airy_decaying(x.clamp(AIRY_NEAR, 200.0)), value)
    value = torch.where(x < AIRY_FAR, _airy_oscillating(-x.clamp(max=AIRY_FAR)), value)
    return torch.where(x.isinf(), float("nan"), torch.where(x > 200.0, 0.0, value))


def _spherical(x: Tensor) -> Tensor:
    value = torch.where(x == 0, 1.0, x.sin() / x)
    return torch.where(x.isinf(), 0.0, value)


# -- the ops


def _in_float64(*targets: object, but_float64: bool = False) -> Callable[[Callable[[Tensor], Tensor]], None]:
    """Registers a function of float64 as the decomposition of ops on any real dtype."""

    def register(function: Callable[[Tensor], Tensor]) -> None:
        def decomposed(x: Tensor) -> Any:
            if but_float64 and x.dtype is torch.float64:
                return NotImplemented
            given = x.dtype if x.is_floating_point() else torch.get_default_dtype()
            return function(x.double()).to(given)

        decomposition(*targets)(decomposed)

    return register


def _second_kind(order: int, x: Tensor) -> Tensor:
    value = torch.where(x == 0, -float("inf"), _oscillating(order, x)[1])
    return torch.where(x < 0, float("nan"), value)


# PyTorch's own J and Y of float64 are off by up to 5e-7, its Ai by 3e-6: these stay its own.
_in_float64(aten.special_bessel_j0.default, but_float64=True)(lambda x: _oscillating(0, x.abs())[0])
_in_float64(aten.special_bessel_j1.default, but_float64=True)(lambda x: _odd(_oscillating(1, x.abs())[0], x))
_in_float64(aten.special_bessel_y0.default, but_float64=True)(lambda x: _second_kind(0, x))
_in_float64(aten.special_bessel_y1.default, but_float64=True)(lambda x: _second_kind(1, x))
_in_float64(aten.i0.default, aten.special_modified_bessel_i0.default)(lambda x: _growing(0, x, False))
_in_float64(aten.special_i0e.default)(lambda x: _growing(0, x, True))
_in_float64(aten.special_i1.default, aten.special_modified_bessel_i1.default)(
    lambda x: _odd(_growing(1, x, False), x)
)
_in_float64(aten.special_i1e.default)(lambda x: _odd(_growing(1, x, True), x))
_in_float64(aten.special_modified_bessel_k0.default)(lambda x: _decaying(0, x, False))
_in_float64(aten.special_modified_bessel_k1.default)(lambda x: _decaying(1, x, False))
_in_float64(aten.special_scaled_modified_bessel_k0.default)(lambda x: _decaying(0, x, True))
_in_float64(aten.special_scaled_modified_bessel_k1.default)(lambda x: _decaying(1, x, True))
_in_float64(aten.special_airy_ai.default, but_float64=True)(_airy)
_in_float64(aten.special_spherical_bessel_j0.default)(_spherical)
