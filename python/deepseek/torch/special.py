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
    x, y = x.abs(), y.abs()
    large, small = torch.maximum(x, y), torch.minimum(x, y)
    ratio = torch.where(large == 0, torch.zeros_like(large), small / large)
    root = large * (1 + ratio * ratio).sqrt()
    return torch.where(x.isinf() | y.isinf(), torch.full_like(root, float("inf")), root)


@decomposition(aten.round.decimals)
def _round(x: Tensor, *, decimals: int) -> Tensor:
    if decimals == 0 or not x.is_floating_point():
        return x.round() if x.is_floating_point() else x.clone()
    scale = 10.0 ** abs(decimals)
    return (x * scale).round() / scale if decimals > 0 else (x / scale).round() * scale


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


def _zeta_of_positive(order: int, x: Tensor) -> Tensor:
    """Hurwitz's zeta function, the sum of (x + k)^-order for k >= 0, of x >= 1/2."""
    total = torch.zeros_like(x)
    for k in range(_DIRECT_TERMS):
        total = total + (x + k) ** -order
    end = x + _DIRECT_TERMS
    power = end**-order
    total = total + end * power / (order - 1) + power / 2
    factor = float(order)
    for k, weight in enumerate(_BERNOULLI):
        power = power / end
        total = total + weight * factor * power
        power = power / end
        factor *= (order + 2 * k + 1) * (order + 2 * k + 2)
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
    reflected = (-1) ** n * value - _cotangent_derivative(n, x)
    pole = torch.full((), float("inf") if n % 2 else float("nan"), dtype=x.dtype)
    reflected = torch.where(x == x.floor(), pole, reflected)
    return torch.where(low, reflected, value).to(given)
