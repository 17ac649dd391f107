"""Discrete Fourier transforms of pairs of real tensors, as products with their matrices.

Long axes are transformed in two factors (Cooley and Tukey, 1965). Definitions and normalisation are those of
ATen's `_fft_c2c`, `_fft_r2c` and `_fft_c2r`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deepseek.torch.shapes import Unsupported

DIRECT = 128  # elements of an axis that is one product
LONGEST_PRIME = 2048


def _angles(rows: int, columns: int, period: int) -> Tensor:
    """2 pi (row column mod period) / period, in float64."""
    turns = torch.arange(rows).unsqueeze(1) * torch.arange(columns).unsqueeze(0) % period
    return turns.to(torch.float64) * (2 * math.pi / period)


def _factor(size: int) -> int:
    """The largest divisor up to the root of `size`, or 1 for what is one product."""
    if size <= DIRECT:
        return 1
    factor = next(f for f in range(math.isqrt(size), 0, -1) if size % f == 0)
    if factor == 1 and size > LONGEST_PRIME:
        raise Unsupported(f"a Fourier transform of {size} elements, a prime number")
    return factor


def _product(re: Tensor, im: Tensor | None, sign: int) -> tuple[Tensor, Tensor]:
    size = re.shape[-1]
    angle = _angles(size, size, size)
    cosine, sine = angle.cos().to(re.dtype), (angle.sin() * sign).to(re.dtype)
    matrix = torch.cat([cosine, -sine], 1)
    rows = re
    if im is not None:
        matrix = torch.cat([matrix, torch.cat([sine, cosine], 1)])
        rows = torch.cat([re, im], -1)
    count = math.prod(re.shape[:-1])
    both = torch.mm(rows.reshape(count, rows.shape[-1]), matrix).reshape(*re.shape[:-1], 2 * size)
    return both[..., :size], both[..., size:]


def _last_axis(re: Tensor, im: Tensor | None, sign: int) -> tuple[Tensor, Tensor]:
    """sum over j of x[..., j] e^(-2 pi i sign j k / size)."""
    size = re.shape[-1]
    first = _factor(size)
    if first == 1:
        return _product(re, im, sign)
    second = size // first

    def columns(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], first, second).transpose(-2, -1)

    re, im = _last_axis(columns(re), None if im is None else columns(im), sign)
    angle = _angles(second, first, size)
    cosine, sine = angle.cos().to(re.dtype), (angle.sin() * sign).to(re.dtype)
    re, im = re * cosine + im * sine, im * cosine - re * sine
    parts = _last_axis(re.transpose(-2, -1), im.transpose(-2, -1), sign)
    shape = [*parts[0].shape[:-2], size]
    return parts[0].transpose(-2, -1).reshape(shape), parts[1].transpose(-2, -1).reshape(shape)


def _along(re: Tensor, im: Tensor | None, axis: int, sign: int) -> tuple[Tensor, Tensor]:
    re, im = _last_axis(re.movedim(axis, -1), None if im is None else im.movedim(axis, -1), sign)
    return re.movedim(-1, axis), im.movedim(-1, axis)


def scale(sizes: Sequence[int], normalization: int) -> float:
    """ATen's 0: none, 1: by the root of the number of elements, 2: by the number."""
    return math.pow(math.prod(sizes), -normalization / 2)


def transform(
    re: Tensor, im: Tensor | None, axes: Sequence[int], normalization: int, forward: bool
) -> tuple[Tensor, Tensor]:
    """Along all of `axes`; of a real tensor where `im` is None. Raises Unsupported for long primes."""
    factor = scale([re.shape[axis] for axis in axes], normalization)
    if not axes:
        return re, torch.zeros_like(re) if im is None else im
    for axis in reversed(axes):
        re, im = _along(re, im, axis, 1 if forward else -1)
    assert im is not None
    return (re, im) if factor == 1 else (re * factor, im * factor)


def real_inverse(re: Tensor, im: Tensor, axes: Sequence[int], normalization: int, size: int) -> Tensor:
    """The real tensor of `size` elements along the last of `axes` whose spectrum's first half this is."""
    last, half = axes[-1], re.shape[axes[-1]]
    factor = scale([*(re.shape[axis] for axis in axes[:-1]), size], normalization)
    re, im = transform(re, im, axes[:-1], 0, forward=False)
    mirrored = [part.narrow(last, 1, size - half).flip(last) for part in (re, im)]
    whole = [torch.cat([re, mirrored[0]], last), torch.cat([im, -mirrored[1]], last)]
    return transform(whole[0], whole[1], [last], 0, forward=False)[0] * factor
