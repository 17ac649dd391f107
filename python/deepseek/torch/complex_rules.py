"""Ops on complex tensors, written for their real and imaginary parts.

A rule is called with the op's arguments, complex tensors among them as `Complex`. It returns a Tensor, a
Complex, or a list of such where the op has several results; their dtypes are set right afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from deepseek.torch import fourier
from deepseek.torch.shapes import Unsupported

aten = torch.ops.aten


class Complex(NamedTuple):
    re: Any
    im: Any


RULES: dict[Any, Callable[..., Any]] = {}
Rule = TypeVar("Rule", bound=Callable[..., Any])


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for target in targets:
            RULES[target] = function
        return function

    return register


def parted(value: Any) -> Complex:
    """A tensor or number as a pair; the imaginary part of a real one is the number 0."""
    if isinstance(value, complex):
        return Complex(value.real, value.imag)
    return value if isinstance(value, Complex) else Complex(value, 0)


def is_zero(part: Any) -> bool:
    return not isinstance(part, Tensor) and part == 0


def filled(part: Any, like: Tensor) -> Tensor:
    return part if isinstance(part, Tensor) else torch.full_like(like, part)


# -- the same on each part

EACH = (
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.expand.default,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.split_with_sizes.default,
    aten.flip.default,
    aten.repeat.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.resolve_conj.default,
    aten.neg.default,
    aten.cumsum.default,
    aten.diagonal.default,
    aten.tril.default,
    aten.triu.default,
    aten.unfold.default,
    aten.as_strided.default,
    aten.gather.default,
    aten.index_select.default,
    aten.index.Tensor,
    aten.constant_pad_nd.default,
    aten.cat.default,
    aten.slice_scatter.default,
    aten.select_scatter.default,
    aten.diagonal_scatter.default,
    aten.index_put.default,
    aten.scatter_add.default,
    aten.index_add.default,
    aten.where.self,
)


def _each(target: Any) -> Callable[..., Any]:
    def pick(part: int) -> Callable[[Any], Any]:
        def of(leaf: Any) -> Any:
            if isinstance(leaf, Complex):
                return leaf[part]
            values = isinstance(leaf, Tensor) and leaf.is_floating_point()
            return torch.zeros_like(leaf) if values and part == 1 else leaf

        return of

    def apply(*args: Any, **kwargs: Any) -> Any:
        kept = {name: value for name, value in kwargs.items() if name not in ("dtype", "memory_format")}
        re, im = (
            target(
                *pytree.tree_map(pick(part), args, is_leaf=lambda leaf: isinstance(leaf, Complex)),
                **pytree.tree_map(pick(part), kept, is_leaf=lambda leaf: isinstance(leaf, Complex)),
            )
            for part in (0, 1)
        )
        if isinstance(re, Tensor):
            return Complex(re, im)
        return [Complex(*pair) for pair in zip(re, im, strict=True)]

    return apply


for _target in EACH:
    rule(_target)(_each(_target))


def _reduced(target: Any) -> Callable[..., Any]:
    def apply(x: Any, *args: Any, dtype: Any = None) -> Complex:
        pair = parted(x)
        return Complex(target(pair.re, *args), target(filled(pair.im, pair.re), *args))

    return apply


for _target in (aten.sum.dim_IntList, aten.sum.default, aten.mean.dim, aten.mean.default):
    rule(_target)(_reduced(_target))


# -- making complex tensors, and taking them apart


@rule(aten.view_as_real.default)
def _view_as_real(x: Complex) -> Tensor:
    return torch.stack([x.re, x.im], -1)


@rule(aten.view_as_complex.default)
def _view_as_complex(x: Tensor) -> Complex:
    return Complex(x.select(-1, 0), x.select(-1, 1))


def _check_parts(a: Tensor, b: Tensor) -> None:
    if a.dtype != b.dtype:
        raise Unsupported("parts of two dtypes")  # PyTorch raises its error


@rule(aten.complex.default)
def _complex(re: Tensor, im: Tensor) -> Complex:
    _check_parts(re, im)
    return Complex(*aten.broadcast_tensors.default([re, im]))


@rule(aten.polar.default)
def _polar(size: Tensor, angle: Tensor) -> Complex:
    _check_parts(size, angle)
    return Complex(size * angle.cos(), size * angle.sin())


@rule(aten._to_copy.default)
def _to_copy(x: Any, **kwargs: Any) -> Any:
    pair = parted(x)
    if kwargs.get("dtype") is not None and not kwargs["dtype"].is_complex:
        return pair.re.clone()
    re = pair.re.clone() if pair.re.is_floating_point() else pair.re.to(torch.float64)
    return Complex(re, filled(pair.im, re))


@rule(aten.full.default, aten.full_like.default)
def _full(like: Any, value: Any, **kwargs: Any) -> Complex:
    shape = parted(like).re.shape if isinstance(like, (Complex, Tensor)) else like
    pair = parted(value)
    return Complex(*(torch.full(shape, part, dtype=torch.float64) for part in pair))


@rule(aten.scalar_tensor.default)
def _scalar_tensor(value: Any, **kwargs: Any) -> Complex:
    return _full([], value)


@rule(aten.copy.default)
def _copy(x: Any, source: Any, non_blocking: bool = False) -> Any:
    shape, pair = parted(x).re.shape, parted(source)
    if not isinstance(x, Complex):
        return pair.re.expand(shape)
    return Complex(pair.re.expand(shape), filled(pair.im, pair.re).expand(shape))


@rule(
    aten.zeros.default,
    aten.zeros_like.default,
    aten.empty.memory_format,
    aten.empty_like.default,
    aten._efficientzerotensor.default,
)
def _zeros(like: Any, **kwargs: Any) -> Complex:
    return _full(like, 0)


@rule(aten.new_zeros.default, aten.new_empty.default)
def _new_zeros(x: Any, shape: Sequence[int], **kwargs: Any) -> Complex:
    return _full(shape, 0)


# -- arithmetic


@rule(aten._conj.default, aten._conj_physical.default, aten.conj_physical.default)
def _conj(x: Complex | complex) -> Complex:
    return Complex(x.re, -x.im) if isinstance(x, Complex) else _full([], x.conjugate())


@rule(aten.add.Tensor, aten.add.Scalar)
def _add(x: Any, y: Any, alpha: Any = 1) -> Complex:
    x, y = parted(x), _mul(y, alpha) if alpha != 1 else parted(y)
    re = x.re + y.re
    return Complex(re, filled(x.im + y.im, re).expand(re.shape))


@rule(aten.sub.Tensor, aten.sub.Scalar)
def _sub(x: Any, y: Any, alpha: Any = 1) -> Complex:
    return _add(x, y, -alpha)


@rule(aten.mul.Tensor, aten.mul.Scalar)
def _mul(x: Any, y: Any) -> Complex:
    x, y = parted(x), parted(y)
    if is_zero(x.im):
        x, y = y, x
    if is_zero(y.im):
        return Complex(x.re * y.re, x.im * y.re)
    return Complex(x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re)


@rule(aten.div.Tensor, aten.div.Scalar)
def _div(x: Any, y: Any) -> Complex:
    """Of both by the larger part of y, so that squares do not overflow."""
    x, y = parted(x), parted(y)
    if is_zero(y.im):
        return Complex(x.re / y.re, x.im / y.re)
    if not isinstance(y.re, Tensor):
        return _mul(x, 1 / complex(y.re, y.im))
    size = torch.maximum(y.re.abs(), y.im.abs())
    c, d = y.re / size, y.im / size
    whole = (c * c + d * d) * size
    return Complex((x.re * c + x.im * d) / whole, (x.im * c - x.re * d) / whole)


@rule(aten.reciprocal.default)
def _reciprocal(x: Complex) -> Complex:
    return _div(torch.ones_like(x.re), x)


@rule(aten.mm.default, aten.bmm.default)
def _product(x: Any, y: Any) -> Complex:
    x, y = parted(x), parted(y)
    if is_zero(x.im):
        return Complex(x.re @ y.re, x.re @ y.im)
    if is_zero(y.im):
        return Complex(x.re @ y.re, x.im @ y.re)
    return Complex(x.re @ y.re - x.im @ y.im, x.re @ y.im + x.im @ y.re)


@rule(aten.abs.default)
def _abs(x: Complex) -> Tensor:
    return torch.hypot(x.re, x.im)


@rule(aten.angle.default)
def _angle(x: Complex) -> Tensor:
    return torch.atan2(x.im, x.re)


@rule(aten.sgn.default)
def _sgn(x: Complex) -> Complex:
    size = _abs(x)
    size = torch.where(size == 0, torch.ones_like(size), size)
    return Complex(x.re / size, x.im / size)


@rule(aten.exp.default)
def _exp(x: Complex) -> Complex:
    return _polar(x.re.exp(), x.im)


@rule(aten.log.default)
def _log(x: Complex) -> Complex:
    return Complex(_abs(x).log(), _angle(x))


@rule(aten.sqrt.default)
def _sqrt(x: Complex) -> Complex:
    """The root with a real part of at least 0, without a difference of like numbers."""
    large = ((_abs(x) + x.re.abs()) / 2).sqrt()
    small = torch.where(large == 0, large, x.im.abs() / (2 * torch.where(large == 0, 1.0, large)))
    right = x.re >= 0
    return Complex(torch.where(right, large, small), torch.where(right, small, large).copysign(x.im))


MOST_FACTORS = 4  # of a power that is a product


@rule(aten.pow.Tensor_Scalar)
def _pow(x: Complex, exponent: Any) -> Complex:
    if isinstance(exponent, complex) or not float(exponent).is_integer() or not 1 <= exponent <= MOST_FACTORS:
        raise Unsupported(f"complex numbers to the power {exponent}")
    y = x
    for _ in range(int(exponent) - 1):
        y = _mul(y, x)
    return y


@rule(aten.eq.Tensor, aten.eq.Scalar)
def _eq(x: Any, y: Any) -> Tensor:
    x, y = parted(x), parted(y)
    same: Tensor = (x.re == y.re) & (x.im == y.im)
    return same


@rule(aten.ne.Tensor, aten.ne.Scalar)
def _ne(x: Any, y: Any) -> Tensor:
    return ~_eq(x, y)


# -- Fourier transforms


@rule(aten._fft_c2c.default)
def _fft_c2c(x: Complex, axes: Sequence[int], normalization: int, forward: bool) -> Complex:
    return Complex(*fourier.transform(x.re, x.im, list(axes), normalization, forward))


@rule(aten._fft_r2c.default)
def _fft_r2c(x: Tensor, axes: Sequence[int], normalization: int, onesided: bool) -> Complex:
    re, im = fourier.transform(x, None, list(axes), normalization, forward=True)
    half = re.shape[axes[-1]] // 2 + 1 if onesided else re.shape[axes[-1]]
    return Complex(re.narrow(axes[-1], 0, half), im.narrow(axes[-1], 0, half))


@rule(aten._fft_c2r.default)
def _fft_c2r(x: Complex, axes: Sequence[int], normalization: int, size: int) -> Tensor:
    if isinstance(size, torch.SymInt):
        raise Unsupported("a Fourier transform of symbolic size")
    return fourier.real_inverse(x.re, x.im, list(axes), normalization, size)
