"""Arithmetic, comparisons, logic and activations, element by element with PyTorch's dtype promotion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from deepseek import Value
from deepseek.torch.builder import Builder, Operand, Scalar, loop, rule
from deepseek.torch.shapes import INTEGER_NAMES, Unsupported

aten = torch.ops.aten

# ATen op: ours. The operand is cast to the result's dtype first (exp of an integer is a float).
UNARY = {
    aten.abs.default: "abs",
    aten.neg.default: "neg",
    aten.exp.default: "exp",
    aten.expm1.default: "expm1",
    aten.log.default: "log",
    aten.log1p.default: "log1p",
    aten.log2.default: "log2",
    aten.log10.default: "log10",
    aten.sin.default: "sin",
    aten.cos.default: "cos",
    aten.tan.default: "tan",
    aten.asin.default: "asin",
    aten.acos.default: "acos",
    aten.atan.default: "atan",
    aten.sinh.default: "sinh",
    aten.cosh.default: "cosh",
    aten.tanh.default: "tanh",
    aten.asinh.default: "asinh",
    aten.acosh.default: "acosh",
    aten.atanh.default: "atanh",
    aten.sigmoid.default: "sigmoid",
    aten.erf.default: "erf",
    aten.erfc.default: "erfc",
    aten.exp2.default: "exp2",
    aten.lgamma.default: "lgamma",
    aten.digamma.default: "digamma",
    aten.sqrt.default: "sqrt",
    aten.rsqrt.default: "rsqrt",
    aten.relu.default: "relu",
    aten.silu.default: "silu",
    aten.hardswish.default: "hard_swish",
    aten.hardsigmoid.default: "hard_sigmoid",
    aten.mish.default: "mish",
    aten.softplus.default: "softplus",
}
ROUNDING = {
    aten.floor.default: "floor",
    aten.ceil.default: "ceil",
    aten.round.default: "round",
    aten.trunc.default: "trunc",
}
BINARY = {
    aten.maximum.default: "maximum",
    aten.minimum.default: "minimum",
    aten.pow.Tensor_Tensor: "pow",
    aten.pow.Scalar: "pow",
    aten.atan2.default: "atan2",
    aten.bitwise_left_shift.Tensor: "shift_left",
    aten.bitwise_right_shift.Tensor: "shift_right",
    aten.__lshift__.Scalar: "shift_left",
    aten.__lshift__.Tensor: "shift_left",
    aten.__rshift__.Scalar: "shift_right",
    aten.__rshift__.Tensor: "shift_right",
}
COMPARISONS = {
    aten.eq: "equal",
    aten.ne: "not_equal",
    aten.lt: "less",
    aten.le: "less_equal",
    aten.gt: "greater",
    aten.ge: "greater_equal",
}
LOGICAL = {
    aten.logical_and.default: "logical_and",
    aten.logical_or.default: "logical_or",
    aten.logical_xor.default: "logical_xor",
}
BITWISE = {
    aten.bitwise_and: ("logical_and", "bit_and"),
    aten.bitwise_or: ("logical_or", "bit_or"),
    aten.bitwise_xor: ("logical_xor", "bit_xor"),
}
# The same on truth values.
_OF_BOOLS = {"maximum": "logical_or", "minimum": "logical_and"}


def _unary(name: str) -> Callable[..., Value]:
    def translate(b: Builder, x: Value, *rest: Any) -> Value:
        if rest:
            raise Unsupported(f"{name} with other than default parameters")
        return b.op(name, b.cast(x, b.dtype()))

    return translate


def _rounding(name: str) -> Callable[..., Value]:
    def translate(b: Builder, x: Value) -> Value:
        return x if x.dtype in INTEGER_NAMES else b.op(name, x)

    return translate


def _binary(name: str) -> Callable[..., Value]:
    def translate(b: Builder, x: Operand, y: Operand) -> Value:
        if b.dtype() == "bool":
            return b.op(_OF_BOOLS[name], b.tensor(x, "bool"), b.tensor(y, "bool"))
        return b.op(name, b.tensor(x, b.dtype()), b.tensor(y, b.dtype()))

    return translate


def _comparison(name: str) -> Callable[..., Value]:
    def translate(b: Builder, x: Operand, y: Operand) -> Value:
        x, y = b.promoted(x, y)
        if x.dtype == "bool" and name not in ("equal", "not_equal"):
            x, y = b.cast(x, "uint8"), b.cast(y, "uint8")
        return b.op(name, x, y)

    return translate


def _logical(name: str) -> Callable[..., Value]:
    def translate(b: Builder, x: Value, y: Value) -> Value:
        return b.op(name, truth(b, x), truth(b, y))

    return translate


def _bitwise(for_bool: str, for_integers: str) -> Callable[..., Value]:
    def translate(b: Builder, x: Operand, y: Operand) -> Value:
        dtype = b.dtype()
        return b.op(for_bool if dtype == "bool" else for_integers, b.tensor(x, dtype), b.tensor(y, dtype))

    return translate


for _target, _name in UNARY.items():
    rule(_target)(_unary(_name))
for _target, _name in ROUNDING.items():
    rule(_target)(_rounding(_name))
for _target, _name in BINARY.items():
    rule(_target)(_binary(_name))
for _packet, _name in COMPARISONS.items():
    rule(_packet.Tensor, _packet.Scalar)(_comparison(_name))
for _target, _name in LOGICAL.items():
    rule(_target)(_logical(_name))
for _packet, (_bool, _integers) in BITWISE.items():
    rule(_packet.Tensor, _packet.Scalar)(_bitwise(_bool, _integers))


def truth(b: Builder, x: Value) -> Value:
    """x != 0."""
    return x if x.dtype == "bool" else b.op("not_equal", x, b.constant(0, x.dtype))


@rule(aten.logical_not.default)
def logical_not(b: Builder, x: Value) -> Value:
    return b.op("logical_not", truth(b, x))


@rule(aten.bitwise_not.default)
def bitwise_not(b: Builder, x: Value) -> Value:
    return b.op("logical_not" if x.dtype == "bool" else "bit_not", x)


@rule(aten.sign.default)
def sign(b: Builder, x: Value) -> Value:
    """Of NaN 0, as PyTorch has it."""
    if x.dtype == "bool":
        return x
    y = b.op("sign", x)
    return y if x.dtype in INTEGER_NAMES else b.op("select", b.op("is_nan", x), b.constant(0, x.dtype), y)


@rule(aten.mul.Tensor, aten.mul.Scalar)
def mul(b: Builder, x: Operand, y: Operand) -> Value:
    if b.dtype() == "bool":
        return b.op("logical_and", b.tensor(x, "bool"), b.tensor(y, "bool"))
    return b.arithmetic("mul", x, y)


@rule(aten.add.Tensor, aten.add.Scalar)
def add(b: Builder, x: Operand, y: Operand, alpha: Operand = 1) -> Value:
    if b.dtype() == "bool":
        return b.op("logical_or", b.tensor(x, "bool"), b.tensor(y, "bool"))
    return _sum(b, "add", x, y, alpha)


@rule(aten.sub.Tensor, aten.sub.Scalar)
def sub(b: Builder, x: Operand, y: Operand, alpha: Operand = 1) -> Value:
    return _sum(b, "sub", x, y, alpha)


@rule(aten.rsub.Tensor, aten.rsub.Scalar)
def rsub(b: Builder, x: Operand, y: Operand, alpha: Operand = 1) -> Value:
    return _sum(b, "sub", y, x, alpha)


def _sum(b: Builder, name: str, x: Operand, y: Operand, alpha: Operand) -> Value:
    """Numbers are rounded here, in eager PyTorch as well; the product is not."""
    dtype = b.dtype()
    x, y = b.tensor(x, dtype), b.tensor(y, dtype)
    if alpha == 1:
        return b.op(name, x, y)
    wide, *factors = b.wide(x, y, b.tensor(alpha, dtype))
    return b.cast(b.op(name, wide, b.op("mul", *factors)), dtype)


@rule(aten.div.Tensor, aten.div.Scalar, aten.true_divide.Tensor)
def div(b: Builder, x: Operand, y: Operand) -> Value:
    return b.arithmetic("div", x, y)


@rule(aten.div.Tensor_mode, aten.div.Scalar_mode)
def div_mode(b: Builder, x: Operand, y: Operand, rounding_mode: str | None = None) -> Value:
    dtype = b.dtype()
    if dtype in INTEGER_NAMES:
        return b.op(
            "floor_div" if rounding_mode == "floor" else "div", b.tensor(x, dtype), b.tensor(y, dtype)
        )
    x, y = b.operands(x, y)
    if rounding_mode == "floor":
        return _floor_of_quotient(b, x, y)
    quotient = b.op("div", x, y)
    return b.cast(quotient if rounding_mode is None else b.op(rounding_mode, quotient), dtype)


def _floor_of_quotient(b: Builder, x: Value, y: Value) -> Value:
    """Exact where x / y rounds up to a whole number: from the remainder."""
    dtype = b.dtype()
    if dtype in ("bfloat16", "float16"):
        x, y = b.cast(x, "float32"), b.cast(y, "float32")
    rest, zero, one = b.op("rem", x, y), b.constant(0, x.dtype), b.constant(1, x.dtype)
    quotient = b.op("div", b.op("sub", x, rest), y)
    below = b.op("not_equal", b.op("less", y, zero), b.op("less", rest, zero))
    below = b.op("logical_and", below, b.op("not_equal", rest, zero))
    quotient = b.op("round", b.op("select", below, b.op("sub", quotient, one), quotient))
    return b.cast(b.op("select", b.op("equal", y, zero), b.op("div", x, y), quotient), dtype)


@rule(aten.pow.Tensor_Scalar)
def pow_scalar(b: Builder, x: Value, exponent: Operand) -> Value:
    x = b.cast(x, b.dtype())
    if exponent == 1:
        return x
    if exponent == 2:
        return b.op("mul", x, x)
    if exponent == 3:
        return b.op("mul", b.op("mul", x, x), x)
    if exponent == 0.5:
        return b.op("sqrt", x)
    if exponent == -0.5:
        return b.op("rsqrt", x)
    return b.op("pow", x, b.tensor(exponent, b.dtype()))


@rule(aten.reciprocal.default)
def reciprocal(b: Builder, x: Value) -> Value:
    return b.op("div", b.constant(1, b.dtype()), b.cast(x, b.dtype()))


@rule(aten.gelu.default)
def gelu(b: Builder, x: Value, approximate: str = "none") -> Value:
    return b.op("gelu", x, approximate=approximate)


@rule(aten.leaky_relu.default)
def leaky_relu(b: Builder, x: Value, slope: Scalar = 0.01) -> Value:
    positive = b.op("greater", x, b.constant(0, x.dtype))
    return b.op("select", positive, x, b.arithmetic("mul", x, slope))


@rule(aten.elu.default)
def elu(b: Builder, x: Value, alpha: Scalar = 1, scale: Scalar = 1, input_scale: Scalar = 1) -> Value:
    (wide,) = b.wide(x)
    assert wide is not None
    positive = b.op("mul", wide, b.constant(scale, wide.dtype))
    inner = b.op("expm1", b.op("mul", wide, b.constant(input_scale, wide.dtype)))
    negative = b.op("mul", inner, b.constant(alpha * scale, wide.dtype))
    y = b.op("select", b.op("greater", wide, b.constant(0, wide.dtype)), positive, negative)
    return b.cast(y, x.dtype)


@rule(aten.clamp.default, aten.clamp.Tensor, aten.hardtanh.default)
def clamp(b: Builder, x: Value, low: Operand | None = None, high: Operand | None = None) -> Value:
    if b.node is not None and b.node.target is aten.hardtanh.default:
        low, high = -1 if low is None else low, 1 if high is None else high
    dtype = b.dtype()
    x = b.cast(x, dtype)
    maximum, minimum = (_OF_BOOLS[n] if dtype == "bool" else n for n in ("maximum", "minimum"))
    if low is not None:
        x = b.op(maximum, x, b.tensor(low, dtype))
    return x if high is None else b.op(minimum, x, b.tensor(high, dtype))


@rule(aten.where.self)
def where(b: Builder, condition: Value, x: Value, y: Value) -> Value:
    return b.op("select", condition, b.cast(x, b.dtype()), b.cast(y, b.dtype()))


@rule(aten.isnan.default, aten.isinf.default)
def is_special(b: Builder, x: Value) -> Value:
    if x.dtype == "bool" or x.dtype in INTEGER_NAMES:
        return b.op("full", shape=b.shape(), value=0.0, dtype="bool")
    assert b.node is not None
    return b.op("is_nan" if b.node.target is aten.isnan.default else "is_inf", x)


@rule(aten.remainder.Tensor, aten.remainder.Scalar, aten.remainder.Scalar_Tensor)
def remainder(b: Builder, x: Operand, y: Operand) -> Value:
    return b.op("mod", b.tensor(x, b.dtype()), b.tensor(y, b.dtype()))


@rule(aten.fmod.Tensor, aten.fmod.Scalar)
def fmod(b: Builder, x: Operand, y: Operand) -> Value:
    return b.op("rem", b.tensor(x, b.dtype()), b.tensor(y, b.dtype()))


@rule("prims::fma")  # which Dynamo makes of addcmul and addcdiv in optimizers
def fma(b: Builder, x: Operand, y: Operand, z: Operand) -> Value:
    dtype = b.dtype()
    x, y, z = (b.tensor(operand, dtype) for operand in (x, y, z))
    if dtype in INTEGER_NAMES:
        return b.op("add", b.op("mul", x, y), z)
    return b.op("fma", x, y, z)


@rule(aten.fmax.default, aten.fmin.default)
def fmax(b: Builder, x: Value, y: Value) -> Value:
    """The other operand where one is NaN."""
    assert b.node is not None
    dtype = b.dtype()
    name = "maximum" if b.node.target is aten.fmax.default else "minimum"
    if dtype == "bool" or dtype in INTEGER_NAMES:
        return _binary(name)(b, x, y)
    x, y = b.cast(x, dtype), b.cast(y, dtype)
    either = b.op("select", b.op("is_nan", y), x, b.op(name, x, y))
    return b.op("select", b.op("is_nan", x), b.broadcast(y, b.shape()), either)


def _absolute(b: Builder, x: Value) -> Value:
    return b.broadcast(x if x.dtype == "uint8" else b.op("abs", x), b.shape())


@rule(aten.gcd.default)
def gcd(b: Builder, x: Value, y: Value) -> Value:
    """Euclid's algorithm."""

    def goes_on(b: Builder, v: dict[str, Value]) -> Value:
        return b.op("not_equal", v["rest"], b.constant(0, v["rest"].dtype))

    def step(b: Builder, v: dict[str, Value]) -> dict[str, Value]:
        more, rest = goes_on(b, v), v["rest"]
        divisor = b.op("select", more, rest, b.constant(1, rest.dtype))
        following = b.op("select", more, b.op("rem", v["whole"], divisor), rest)
        return {"whole": b.op("select", more, rest, v["whole"]), "rest": following}

    x, y = (_absolute(b, b.cast(value, b.dtype())) for value in (x, y))
    return loop(b, {"whole": x, "rest": y}, {}, goes_on, step)["whole"]


# Of the same width.
_BITS = {"float16": "int16", "bfloat16": "int16", "float32": "int32", "float64": "int64"}


@rule(aten.nextafter.default)
def nextafter(b: Builder, x: Value, y: Value) -> Value:
    dtype = b.dtype()
    x, y = (b.broadcast(b.cast(value, dtype), b.shape()) for value in (x, y))
    bits, zero = b.op("bitcast", x, dtype=_BITS[dtype]), b.constant(0, dtype)
    one = b.constant(1, _BITS[dtype])
    outward = b.op("equal", b.op("greater", y, x), b.op("greater", x, zero))
    moved = b.op("select", outward, b.op("add", bits, one), b.op("sub", bits, one))
    smallest = b.op("bitcast", one, dtype=dtype)
    from_zero = b.op("select", b.op("greater", y, zero), smallest, b.op("neg", smallest))
    moved = b.op("select", b.op("equal", x, zero), from_zero, b.op("bitcast", moved, dtype=dtype))
    moved = b.op("select", b.op("equal", x, y), y, moved)
    moved = b.op("select", b.op("is_nan", y), y, moved)
    return b.op("select", b.op("is_nan", x), x, moved)


def is_negative(b: Builder, x: Value) -> Value:
    """Whether the sign bit is set, that of -0 and NaN included."""
    if x.dtype in _BITS:
        x = b.op("bitcast", x, dtype=_BITS[x.dtype])
    return b.op("less", x, b.constant(0, x.dtype))


@rule(aten.signbit.default)
def signbit(b: Builder, x: Value) -> Value:
    if x.dtype in ("bool", "uint8"):
        return b.op("logical_and", truth(b, x), b.constant(False, "bool"))
    return is_negative(b, x)


@rule(aten.copysign.Tensor, aten.copysign.Scalar)
def copysign(b: Builder, x: Operand, y: Operand) -> Value:
    dtype = b.dtype()
    sign = b.tensor(y, dtype)
    size = b.op("abs", b.tensor(x, dtype))
    return b.op("select", is_negative(b, sign), b.op("neg", size), size)


@rule(aten.copy.default)
def copy(b: Builder, x: Value, source: Value, non_blocking: bool = False) -> Value:
    return b.broadcast(b.cast(source, b.dtype()), b.shape())


@rule(aten._to_copy.default)
def to_copy(b: Builder, x: Operand, **kwargs: Any) -> Value:
    return b.tensor(x, b.dtype())


@rule(torch.ops.prims.convert_element_type.default)
def convert_element_type(b: Builder, x: Value, dtype: torch.dtype) -> Value:
    return b.cast(x, b.dtype())


@rule(
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
    aten.contiguous.default,
)
def identity(b: Builder, x: Value, **kwargs: Any) -> Value:
    return x


@rule(aten.view.dtype)
def reinterpreted(b: Builder, x: Value, dtype: torch.dtype) -> Value:
    if b.argument(0).element_size() != b.fake().element_size():
        raise Unsupported("bits read in another width")
    return b.op("bitcast", x, dtype=b.dtype())
