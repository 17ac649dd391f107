"""Cases of elementwise ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from case import FLOATS, SIGNED, UNSIGNED, Array, Case, Draw, case, numpy_dtype
from torch.nn import functional as F

Fn = Callable[..., torch.Tensor]


def first_symbolic(x: Array) -> list[tuple[int, int]]:
    return [(0, 0)] if x.ndim else []


def register_unary(
    op: str,
    fn: Fn,
    low: float = -3,
    high: float = 3,
    slack: float = 1,
    special: bool = True,
    attrs: Any = None,
    smooth: tuple[float, float] | None = None,
    scale: float | None = None,
) -> None:
    """An op on floats; its arguments are drawn from [low, high], some of them special.

    `smooth`: where it has a derivative, if that is less. `scale`: of what its error is relative to.
    """

    @case(op)
    def make(d: Draw) -> Case:
        x = d.floats(d.shape(), d.dtype(), *(smooth if smooth and d.smooth else (low, high)), special)
        given = attrs(d) if attrs else {}
        return Case([x], given, lambda t: fn(t, **given), slack, symbolic=first_symbolic(x), scale=scale)


def signed_zero_free_sign(x: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.isnan(x), x, torch.sign(x))


register_unary("neg", torch.neg)
register_unary("abs", torch.abs)
register_unary("sign", signed_zero_free_sign)
register_unary("floor", torch.floor)
register_unary("ceil", torch.ceil)
register_unary("round", torch.round)
register_unary("trunc", torch.trunc)
register_unary("sqrt", torch.sqrt, smooth=(0.1, 3))
register_unary("rsqrt", torch.rsqrt, 0.01, 4)
register_unary("reciprocal", torch.reciprocal)
register_unary("exp", torch.exp, -20, 20, 4)
register_unary("exp2", torch.exp2, -20, 20, 4)
register_unary("expm1", torch.expm1, -20, 20, 4)
register_unary("log", torch.log, -1, 9, smooth=(0.1, 9))
register_unary("log1p", torch.log1p, -1.5, 9, smooth=(-0.9, 9))
register_unary("log2", torch.log2, -1, 9, smooth=(0.1, 9))
register_unary("log10", torch.log10, -1, 9, smooth=(0.1, 9))
register_unary("sin", torch.sin, -30, 30)
register_unary("cos", torch.cos, -30, 30)
register_unary("tan", torch.tan, -1.4, 1.4, 4)
register_unary("asin", torch.asin, -1.1, 1.1, smooth=(-0.9, 0.9))
register_unary("acos", torch.acos, -1.1, 1.1, smooth=(-0.9, 0.9))
register_unary("atan", torch.atan, -30, 30)
register_unary("sinh", torch.sinh, -9, 9, 4)
register_unary("cosh", torch.cosh, -9, 9, 4)
register_unary("tanh", torch.tanh)
register_unary("asinh", torch.asinh, -30, 30)
register_unary("acosh", torch.acosh, 0.5, 30, smooth=(1.1, 30))
register_unary("atanh", torch.atanh, -1.1, 1.1, 4, smooth=(-0.9, 0.9))
register_unary("erf", torch.erf)
register_unary("erfc", torch.erfc, slack=4)
register_unary("lgamma", torch.lgamma, 0.1, 30, 4, special=False)
register_unary("digamma", torch.digamma, 0.1, 30, 4, special=False)
register_unary("is_nan", torch.isnan)
register_unary("is_finite", torch.isfinite)
register_unary("copy", lambda x: x)
register_unary("stop_gradient", lambda x: x.detach())


@case("is_inf")
def is_inf(d: Draw) -> Case:
    x = d.floats(d.shape(), d.dtype(), special=True)
    positive, negative = d.flag(), d.flag()

    def expect(t: torch.Tensor) -> torch.Tensor:
        return (torch.isposinf(t) & positive) | (torch.isneginf(t) & negative)

    return Case([x], {"positive": positive, "negative": negative}, expect, symbolic=first_symbolic(x))


# -- casts -------------------------------------------------------------------------------------------------


def saturated(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """A float as an integer: truncated, limited to the dtype's range, 0 for NaN."""
    info = np.iinfo(dtype)
    values = np.trunc(np.nan_to_num(x.numpy(), nan=0.0, posinf=np.inf, neginf=-np.inf))
    with np.errstate(invalid="ignore"):
        exact = [
            max(info.min, min(info.max, int(v))) if np.isfinite(v) else (info.max if v > 0 else info.min)
            for v in values.reshape(-1)
        ]
    return torch.tensor(np.array(exact, dtype).astype("int64").reshape(values.shape))


@case("cast")
def cast(d: Draw) -> Case:
    shape = d.shape()
    if d.flag():
        x = d.floats(shape, d.dtype(), -300, 300, special=True)
        to = d.one([*FLOATS, "bool", "int8", "uint8", "int32", "int64", "uint16"])
    else:
        x = d.integers(shape, d.one(SIGNED + UNSIGNED), -300, 300) if d.flag() else d.bools(shape)
        to = d.one([*FLOATS, "bool", *SIGNED, *UNSIGNED])

    def expect(t: torch.Tensor) -> torch.Tensor:
        if to == "bool":
            return t != 0
        if to in FLOATS:
            rounded = torch.tensor(x.astype("float64").astype(numpy_dtype(to)).astype("float64"))
            return t + (rounded - t).detach() if t.requires_grad else rounded
        if t.is_floating_point():
            return saturated(t, to)
        return torch.tensor(np.array(x, order="C").astype(to).astype("int64"))

    return Case(
        [x], {"dtype": to}, expect, symbolic=first_symbolic(x), differentiable=[0] if to in FLOATS else []
    )


@case("bitcast")
def bitcast(d: Draw) -> Case:
    pairs = {
        "float32": ["int32", "uint32"],
        "float64": ["int64"],
        "float16": ["int16", "uint16"],
        "int32": ["uint32", "float32"],
        "uint8": ["int8"],
        "int64": ["uint64"],
    }
    start = d.one(sorted(pairs))
    to = d.one(pairs[start])
    shape = d.shape()
    x = d.integers(shape, start, -9999, 9999) if "int" in start else d.floats(shape, start)

    def expect(t: torch.Tensor) -> torch.Tensor:
        bits = np.array(x, order="C").view(to)
        return torch.tensor(bits.astype("float64" if to == "float32" else "int64"))

    return Case([x], {"dtype": to}, expect, symbolic=first_symbolic(x), differentiable=[])


# -- two operands ------------------------------------------------------------------------------------------


def pair(d: Draw, dtype: str, low: float = -3, high: float = 3) -> tuple[Array, Array]:
    """Two arrays whose shapes broadcast, either with fewer or size-1 axes."""
    shape = d.shape()

    def part() -> list[int]:
        own = [1 if d.integer(0, 3) == 0 else s for s in shape]
        return own[d.integer(0, len(own)) if d.integer(0, 3) == 0 else 0 :]

    def values(s: list[int]) -> Array:
        if "int" in dtype:
            return d.integers(s, dtype, int(low * 3), int(high * 3))
        return d.floats(s, dtype, low, high, special=True)

    return values(part()), values(part())


def last_axes(*arrays: Array) -> list[tuple[int, int]]:
    """The last axis of every array that is not broadcast along it."""
    size = max((x.shape[-1] for x in arrays if x.ndim), default=1)
    return [(i, x.ndim - 1) for i, x in enumerate(arrays) if x.ndim and x.shape[-1] == size and size > 1]


def register_binary(
    op: str,
    fn: Fn,
    dtypes: list[str],
    low: float = -3,
    high: float = 3,
    slack: float = 1,
    *,
    divides: bool = False,  # which integers cannot do by 0
) -> None:
    @case(op)
    def make(d: Draw) -> Case:
        dtype = d.one(dtypes)
        a, b = pair(d, dtype, low, high)
        if divides and "int" in dtype:
            b = np.where(b == 0, np.ones_like(b), b)
        return Case([a, b], {}, fn, slack, symbolic=last_axes(a, b))


NUMBERS = [*FLOATS, *SIGNED, "uint8"]


def truncating_div(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def floor_div(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.floor(a / b) if a.is_floating_point() else torch.div(a, b, rounding_mode="floor")


register_binary("add", torch.add, NUMBERS)
register_binary("sub", torch.sub, NUMBERS)
register_binary("mul", torch.mul, NUMBERS)
register_binary("div", truncating_div, NUMBERS, divides=True)
register_binary("floor_div", floor_div, ["float64", *SIGNED, "uint8"], divides=True)
register_binary("mod", torch.remainder, ["float32", "float64", *SIGNED, "uint8"], slack=4, divides=True)
register_binary("rem", torch.fmod, ["float32", "float64", *SIGNED, "uint8"], divides=True)
register_binary("atan2", torch.atan2, FLOATS)
register_binary("minimum", torch.minimum, NUMBERS)
register_binary("maximum", torch.maximum, NUMBERS)
for _name, _fn in {
    "equal": torch.eq,
    "not_equal": torch.ne,
    "less": torch.lt,
    "less_equal": torch.le,
    "greater": torch.gt,
    "greater_equal": torch.ge,
}.items():
    register_binary(_name, _fn, NUMBERS)
for _name, _fn in {
    "bit_and": torch.bitwise_and,
    "bit_or": torch.bitwise_or,
    "bit_xor": torch.bitwise_xor,
}.items():
    register_binary(_name, _fn, [*SIGNED, "uint8"])


@case("pow")
def pow_(d: Draw) -> Case:
    if d.flag():
        a, b = pair(d, d.dtype(), 0.1, 3)
        return Case([a, b], {}, torch.pow, 8, symbolic=last_axes(a, b))
    dtype = d.one([*SIGNED, "uint8"])
    shape = d.shape()
    a = d.integers(shape, dtype, -7, 7)
    return Case([a, d.integers(shape, dtype, -9, 63)], {}, torch.pow)


@case("shift_left", "shift_right")
def shift(d: Draw) -> Case:
    dtype = d.one([*SIGNED, "uint8"])
    shape = d.shape()
    a, b = d.integers(shape, dtype, -100, 100), d.integers(shape, dtype, 0, np.iinfo(dtype).bits - 1)
    fn = torch.bitwise_left_shift if d.op == "shift_left" else torch.bitwise_right_shift
    return Case([a, b], {}, fn, symbolic=[(0, 0), (1, 0)] if shape else [])


@case("logical_and", "logical_or", "logical_xor")
def logic(d: Draw) -> Case:
    shape = d.shape()
    return Case(
        [d.bools(shape), d.bools(shape)], {}, getattr(torch, d.op), symbolic=[(0, 0), (1, 0)] if shape else []
    )


@case("logical_not", "bit_not")
def negation(d: Draw) -> Case:
    x = (
        d.bools(d.shape())
        if d.op == "logical_not" or d.flag()
        else d.integers(d.shape(), d.one([*SIGNED, "uint8"]))
    )
    return Case([x], {}, torch.bitwise_not, symbolic=first_symbolic(x))


# -- three operands ----------------------------------------------------------------------------------------


@case("select")
def select(d: Draw) -> Case:
    x, y = pair(d, d.one(NUMBERS))
    condition = d.bools(np.broadcast_shapes(x.shape, y.shape))
    return Case(
        [condition, x, y], {}, torch.where, symbolic=last_axes(condition, x, y), differentiable=[1, 2]
    )


@case("clamp")
def clamp(d: Draw) -> Case:
    x, low = pair(d, d.one(NUMBERS))
    high = low + np.ones((), low.dtype)
    bounds = d.one([(low, high), (low, None), (None, high), (None, None)])
    inputs = [x, *bounds]
    while inputs[-1] is None:
        inputs.pop()

    def expect(
        t: torch.Tensor, lo: torch.Tensor | None = None, hi: torch.Tensor | None = None
    ) -> torch.Tensor:
        y = t if lo is None else torch.maximum(t, lo)
        return y if hi is None else torch.minimum(y, hi)

    given = [v for v in inputs if v is not None]
    return Case(
        inputs,
        {},
        expect,
        symbolic=last_axes(*given) if len(given) == len(inputs) else [],
        differentiable=[0],
    )


@case("fma")
def fma(d: Draw) -> Case:
    dtype = d.dtype()
    a, b = pair(d, dtype)
    c, _ = d.floats(np.broadcast_shapes(a.shape, b.shape), dtype), None
    return Case([a, b, c], {}, lambda x, y, z: x * y + z, symbolic=last_axes(a, b, c))


# -- activations -------------------------------------------------------------------------------------------


def number(key: str, low: float, high: float) -> Any:
    return lambda d: {key: d.integer(int(low * 8), int(high * 8)) / 8}


register_unary("relu", torch.relu)
register_unary("relu6", F.relu6, -9, 9)
register_unary("leaky_relu", lambda x, slope: torch.where(x > 0, x, x * slope), attrs=number("slope", -1, 2))
register_unary(
    "thresholded_relu",
    lambda x, alpha: torch.where(x > alpha, x, torch.zeros_like(x)),
    attrs=number("alpha", -1, 2),
)
register_unary("elu", lambda x, alpha: F.elu(x, alpha), attrs=number("alpha", 0.5, 2))
register_unary("celu", lambda x, alpha: F.celu(x, alpha), attrs=number("alpha", 0.5, 2))
register_unary("selu", F.selu)
register_unary("sigmoid", torch.sigmoid, -30, 30, 4)
register_unary("log_sigmoid", F.logsigmoid, -30, 30)
register_unary("softplus", lambda x, beta: F.softplus(x, beta, 1e9), -9, 9, 4, False, number("beta", 0.5, 2))
register_unary("softsign", F.softsign, special=False)
register_unary("silu", F.silu, -9, 9, 4, False)
register_unary("mish", F.mish, -9, 9, 4, False)
register_unary("hard_sigmoid", lambda x: F.relu6(x + 3) / 6, -5, 5)
register_unary("hard_swish", F.hardswish, -5, 5)
register_unary(
    "gelu",
    lambda x, approximate: F.gelu(x, approximate=approximate),
    -6,
    6,
    4,
    False,
    lambda d: {"approximate": d.one(["none", "tanh"])},
    scale=1.0,  # 1 + erf(x) rounds at 1: the left tail is right to an ulp of x, as in PyTorch
)


@case("shrink")
def shrink(d: Draw) -> Case:
    x = d.floats(d.shape(), d.dtype(), -2, 2)
    lambd, bias = d.integer(0, 8) / 8, d.integer(-8, 8) / 8

    def expect(t: torch.Tensor) -> torch.Tensor:
        return torch.where(t < -lambd, t + bias, torch.where(t > lambd, t - bias, torch.zeros_like(t)))

    return Case([x], {"lambda": lambd, "bias": bias}, expect, symbolic=first_symbolic(x))


@case("prelu")
def prelu(d: Draw) -> Case:
    x, slope = pair(d, d.dtype())
    return Case([x, slope], {}, lambda t, s: torch.where(t > 0, t, t * s), symbolic=last_axes(x, slope))


# -- quantisation ------------------------------------------------------------------------------------------


@case("quantize")
def quantize(d: Draw) -> Case:
    x = d.floats(d.shape(), "float32", -9, 9)
    dtype = d.one(["int8", "uint8", "int16"])
    scale = np.array(d.one([0.125, 0.25, 1.0]), "float32")
    zero = np.array(d.integer(0, 9), dtype) if d.flag() else None
    info = np.iinfo(dtype)

    def expect(t: torch.Tensor, s: torch.Tensor, z: torch.Tensor | None = None) -> torch.Tensor:
        return (torch.round(t / s) + (0 if z is None else z)).clamp(info.min, info.max)

    inputs = [x, scale] if zero is None else [x, scale, zero]
    return Case(inputs, {"dtype": dtype}, expect, symbolic=first_symbolic(x), differentiable=[])


@case("dequantize")
def dequantize(d: Draw) -> Case:
    dtype = d.one(["int8", "uint8", "int32"])
    x = d.integers(d.shape(), dtype, -200, 200)
    scale = np.array(0.125, "float32")
    zero = np.array(d.integer(0, 9), dtype) if d.flag() else None

    def expect(t: torch.Tensor, s: torch.Tensor, z: torch.Tensor | None = None) -> torch.Tensor:
        return (t.double() - (0 if z is None else z)) * s

    inputs = [x, scale] if zero is None else [x, scale, zero]
    return Case(inputs, {}, expect, symbolic=first_symbolic(x), differentiable=[])


@case("dequantize_blocks")
def dequantize_blocks(d: Draw) -> Case:
    dtype = d.one(["int8", "uint8", "int32"])
    x = d.integers(d.shape((1, 2, 3)), dtype, -200, 200)
    axis, block = d.axis(x.ndim), d.integer(1, 5)
    blocks = [-(-n // block) if i == axis % x.ndim else n for i, n in enumerate(x.shape)]
    scale = d.integers(tuple(blocks), "int32", -9, 9).astype("float32") / 8
    zero = d.integers(tuple(blocks), dtype, 0, 9) if d.flag() else None

    def expect(t: torch.Tensor, s: torch.Tensor, z: torch.Tensor | None = None) -> torch.Tensor:
        def spread(part: torch.Tensor) -> torch.Tensor:
            return part.repeat_interleave(block, axis).narrow(axis, 0, t.shape[axis])

        return (t.double() - (0 if z is None else spread(z).double())) * spread(s)

    inputs = [x, scale] if zero is None else [x, scale, zero]
    other = 0 if axis % x.ndim != 0 else x.ndim - 1  # a dim that blocks do not divide
    symbolic = [(i, other) for i in range(len(inputs))] if x.ndim > 1 else []
    return Case(inputs, {"axis": axis, "block": block}, expect, symbolic=symbolic, differentiable=[])
