"""Special functions, element by element."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from deepseek.torch.decompositions import decomposition

aten = torch.ops.aten


@decomposition(aten.hypot.default)
def _hypot(x: Tensor, y: Tensor) -> Tensor:
    given = torch.result_type(x, y)
    x, y = (value.float() if given in (torch.bfloat16, torch.float16) else value for value in (x, y))
    x, y = x.abs(), y.abs()
    large, small = torch.maximum(x, y), torch.minimum(x, y)
    ratio = torch.where(large == 0, torch.zeros_like(large), small / large)
    root = large * (1 + ratio * ratio).sqrt()
    return torch.where(x.isinf() | y.isinf(), torch.full_like(root, float("inf")), root).to(given)


@decomposition(aten.round.decimals)
def _round(x: Tensor, *, decimals: int) -> Tensor:
    if decimals == 0 or not x.is_floating_point():
        return x.round() if x.is_floating_point() else x.clone()
    scale = 10.0 ** abs(decimals)
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    y = (wide * scale).round() / scale if decimals > 0 else (wide / scale).round() * scale
    return y.to(x.dtype)


# Of the Euler-Maclaurin formula: B_2k / (2k)!.
_BERNOULLI = (
    1 / 12,
    -1 / 720,
    1 / 30240,
    -1 / 1209600,
    1 / 47900160,
    -691 / 1307674368000,
    1 / 74724249600,
)
_DIRECT_TERMS = 10


def _zeta_of_positive(order: int | Tensor, x: Tensor) -> Tensor:
    """Hurwitz's zeta function, the sum of (x + k)^-order for k >= 0, of x >= 1/2."""
    total = torch.zeros_like(x)
    for k in range(_DIRECT_TERMS):
        total = total + (x + k) ** -order
    end = x + _DIRECT_TERMS
    power = end**-order
    total = total + end * power / (order - 1) + power / 2
    factor: Any = order
    for k, weight in enumerate(_BERNOULLI):
        power = power / end
        total = total + weight * factor * power
        power = power / end
        factor = factor * (order + 2 * k + 1) * (order + 2 * k + 2)
    return total


def _cotangent_derivative(n: int, x: Tensor) -> Tensor:
    """The n-th derivative of pi cot(pi x): a polynomial in the cotangent c, since c' = -pi (1 + c^2)."""
    coefficients = [0.0, 1.0]
    for _ in range(n):
        slopes = [k * c for k, c in enumerate(coefficients)][1:]
        coefficients = [
            (slopes[k] if k < len(slopes) else 0.0) + (slopes[k - 2] if k >= 2 else 0.0)
            for k in range(len(slopes) + 2)
        ]
    turn = x - x.round()  # of the same cotangent
    c = (math.pi * turn).cos() / (math.pi * turn).sin()
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * c + coefficient
    return total * math.pi * (-math.pi) ** n


@decomposition(aten.polygamma.default)
def _polygamma(n: int, x: Tensor) -> Any:
    """Derivatives of digamma; below 1/2 by reflection: (-1)^n psi(1 - x) - psi(x) = d^n/dx^n pi cot(pi x)."""
    if n == 0:
        return x.digamma()
    given = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    x = x.double()
    low = x < 0.5
    away = torch.where(low, 1 - x, x)
    value = (-1) ** (n + 1) * math.factorial(n) * _zeta_of_positive(n + 1, away)
    if n == 1:
        value = torch.where(away == float("inf"), 0.0, value)  # of the others ATen makes NaN
    reflected = (-1) ** n * value - _cotangent_derivative(n, x)
    pole = torch.full((), float("inf") if n % 2 else -float("inf"), dtype=x.dtype)
    reflected = torch.where(x == x.floor(), pole, reflected)
    return torch.where(low, reflected, value).to(given)


@decomposition(aten.special_zeta.default)
def _zeta(order: Tensor, x: Tensor) -> Tensor:
    """The sum of (x + k)^-order. Below 0, where order must be whole, the terms with x + k < 0 are the
    difference of two such sums: with f = x - floor(x), (-1)^order (zeta(order, 1 - f) - zeta(order, 1 - x)).
    """
    dtype = torch.result_type(order, x)
    given = dtype if dtype.is_floating_point else torch.get_default_dtype()
    order, x = aten.broadcast_tensors.default([order.double(), x.double()])
    valid = torch.where(order > 1, order, 2.0)  # what the others give is settled below
    whole = x == x.floor()
    part = torch.where(whole, 0.0, x - x.floor())
    negative = _zeta_of_positive(valid, 1 - part) - _zeta_of_positive(valid, 1 - x)
    odd = torch.remainder(valid, 2) != 0
    value = _zeta_of_positive(valid, torch.where(x > 0, x, part))
    value = torch.where(x > 0, value, value + torch.where(odd, -negative, negative))
    pole = (x <= 0) & whole
    value = torch.where(
        pole, float("inf"), torch.where((x <= 0) & (order != order.floor()) & ~pole, float("nan"), value)
    )
    value = torch.where(order == 1, float("inf"), torch.where(order < 1, float("nan"), value))
    return torch.where(order.isnan() | x.isnan(), float("nan"), value).to(given)


def _normal_quantile(p: Tensor) -> Tensor:
    """x with P(normal < x) = p for 0 < p <= 1/2: a first guess (Abramowitz and Stegun, 26.2.23), then
    Halley's steps on erfc, which keeps its digits there.
    """
    t = (-2 * p.log()).sqrt()
    guess = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (
        1 + t * (1.432788 + t * (0.189269 + t * 0.001308))
    )
    x = -guess
    for _ in range(3):
        density = (-x * x / 2).exp() / math.sqrt(2 * math.pi)
        step = (torch.erfc(-x / math.sqrt(2)) / 2 - p) / density
        x = x - step / (1 + x * step / 2)
    return x


@decomposition(aten.special_ndtri.default)
def _ndtri(p: Tensor) -> Tensor:
    given = p.dtype if p.is_floating_point() else torch.get_default_dtype()
    p = p.double()
    inside = (p > 0) & (p < 1)
    low = torch.where(p > 0.5, 1 - p, p)
    x = _normal_quantile(torch.where(inside, low, 0.5))
    x = torch.where(p > 0.5, -x, torch.where(p == 0.5, 0.0, x))
    ends = torch.where(p == 0, -float("inf"), torch.where(p == 1, float("inf"), float("nan")))
    return torch.where(inside, x, ends).to(given)


@decomposition(aten.erfinv.default)
def _erfinv(y: Tensor) -> Tensor:
    given = y.dtype if y.is_floating_point() else torch.get_default_dtype()
    y = y.double()
    size = y.abs()
    inside = size < 1
    far = -_normal_quantile((1 - torch.where(inside, size, 0.5)) / 2) / math.sqrt(2)
    near = torch.where(inside, size, 0.0).clamp(max=0.5)
    x = near * (math.sqrt(math.pi) / 2)
    for _ in range(4):
        step = (torch.erf(x) - near) * (math.sqrt(math.pi) / 2) * (x * x).exp()
        x = x - step / (1 + x * step)
    x = torch.where(size < 0.5, x, far)
    x = torch.where(inside, x, torch.where(size == 1, float("inf"), float("nan")))
    return torch.where(y < 0, -x, x).to(given)


@decomposition(aten.special_erfcx.default)
def _erfcx(x: Tensor) -> Tensor:
    """e^(x^2) erfc(x); beyond 10 by the expansion of erfc (Abramowitz and Stegun, 7.1.23)."""
    given = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    x = x.double()
    near = x.clamp(max=10.0)
    far = x.clamp(min=10.0)
    step = 1 / (2 * far * far)
    total = torch.ones_like(x)
    for k in range(12, 0, -1):
        total = 1 - (2 * k - 1) * step * total
    value = torch.where(x < 10, (near * near).exp() * torch.erfc(near), total / (far * math.sqrt(math.pi)))
    return torch.where(x.isnan(), x, value).to(given)


@decomposition(aten.lcm.default)
def _lcm(x: Tensor, y: Tensor) -> Tensor:
    divisor = torch.gcd(x, y)
    return (x // torch.where(divisor == 0, torch.ones_like(divisor), divisor) * y).abs()


@decomposition(aten.frexp.Tensor)
def _frexp(x: Tensor) -> tuple[Tensor, Tensor]:
    """x as m 2^e with 1/2 <= |m| < 1, from the bits of its float64."""
    wide = x.double()
    small = wide.abs() < 2.0**-1022  # which has fewer bits of mantissa
    bits = torch.where(small, wide * 2.0**54, wide).view(torch.int64)
    exponent = ((bits >> 52) & 0x7FF) - 1022
    mantissa = ((bits & ~(0x7FF << 52)) | (1022 << 52)).view(torch.float64)
    exponent = torch.where(small, exponent - 54, exponent)
    same = (wide == 0) | ~wide.isfinite()
    return torch.where(same, wide, mantissa).to(x.dtype), torch.where(same, 0, exponent).to(torch.int32)
