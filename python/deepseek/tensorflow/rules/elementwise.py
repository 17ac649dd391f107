"""Arithmetic, comparisons, logic and activations, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorflow.python.framework import ops

from deepseek import Value
from deepseek.tensorflow.builder import Builder, Item, Tensor, rule
from deepseek.tensorflow.shapes import INTEGERS, Unsupported, dtype_name

# TensorFlow's op: ours, with the same inputs.
SAME = {
    "Abs": "abs",
    "Acos": "acos",
    "Acosh": "acosh",
    "Add": "add",
    "AddV2": "add",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atan2": "atan2",
    "Atanh": "atanh",
    "BitwiseAnd": "bit_and",
    "BitwiseOr": "bit_or",
    "BitwiseXor": "bit_xor",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Digamma": "digamma",
    "Div": "div",
    "Elu": "elu",
    "Equal": "equal",
    "Erf": "erf",
    "Erfc": "erfc",
    "Exp": "exp",
    "Expm1": "expm1",
    "Floor": "floor",
    "FloorDiv": "floor_div",
    "FloorMod": "mod",
    "Greater": "greater",
    "GreaterEqual": "greater_equal",
    "Inv": "reciprocal",
    "Invert": "bit_not",
    "IsFinite": "is_finite",
    "IsInf": "is_inf",
    "IsNan": "is_nan",
    "LeftShift": "shift_left",
    "Less": "less",
    "LessEqual": "less_equal",
    "Lgamma": "lgamma",
    "Log": "log",
    "Log1p": "log1p",
    "LogicalAnd": "logical_and",
    "LogicalNot": "logical_not",
    "LogicalOr": "logical_or",
    "Mod": "rem",
    "Mul": "mul",
    "Neg": "neg",
    "NotEqual": "not_equal",
    "Pow": "pow",
    "RealDiv": "div",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Relu6": "relu6",
    "RightShift": "shift_right",
    "Rint": "round",
    "Round": "round",
    "Rsqrt": "rsqrt",
    "SelectV2": "select",
    "Selu": "selu",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sqrt": "sqrt",
    "StopGradient": "stop_gradient",
    "Sub": "sub",
    "Tan": "tan",
    "Tanh": "tanh",
    "TruncateDiv": "div",
    "TruncateMod": "rem",
}


def _same(name: str) -> Callable[..., Value]:
    def translate(b: Builder, *inputs: Tensor) -> Value:
        return b.op(name, *inputs)

    return translate


for _type, _name in SAME.items():
    rule(_type)(_same(_name))


@rule("Identity", "Snapshot", "PreventGradient", "CheckNumerics", "EnsureShape", "PlaceholderWithDefault")
def identity(b: Builder, x: Item) -> Item:
    return x


@rule("IdentityN")
def identities(b: Builder, *xs: Item) -> Item:
    if b.differentiable and not _as_differentiated(b.node):
        raise Unsupported("gradients as the function's ops have them, not those of a tf.custom_gradient")
    return xs[0] if len(xs) == 1 else xs


@rule("AddN", "AccumulateNV2")
def add_n(b: Builder, first: Tensor, *rest: Tensor) -> Value:
    total = b.value(first)
    for x in rest:
        total = b.op("add", total, x)
    return total


@rule("Square")
def square(b: Builder, x: Tensor) -> Value:
    return b.op("mul", x, x)


@rule("SquaredDifference")
def squared_difference(b: Builder, x: Tensor, y: Tensor) -> Value:
    difference = b.op("sub", x, y)
    return b.op("mul", difference, difference)


def _where_zero(b: Builder, at: Tensor, x: Value) -> Value:
    """Zero where `at` is zero, x elsewhere."""
    zero = b.scalar(0, x.dtype)
    return b.op("select", b.op("equal", at, zero), zero, x)


@rule("DivNoNan")
def div_no_nan(b: Builder, x: Tensor, y: Tensor) -> Value:
    return _where_zero(b, y, b.op("div", x, y))


@rule("MulNoNan")
def mul_no_nan(b: Builder, x: Tensor, y: Tensor) -> Value:
    return _where_zero(b, y, b.op("mul", x, y))


@rule("Xlogy")
def xlogy(b: Builder, x: Tensor, y: Tensor) -> Value:
    return _where_zero(b, x, b.op("mul", x, b.op("log", y)))


@rule("Xlog1py")
def xlog1py(b: Builder, x: Tensor, y: Tensor) -> Value:
    return _where_zero(b, x, b.op("mul", x, b.op("log1p", y)))


@rule("Xdivy")
def xdivy(b: Builder, x: Tensor, y: Tensor) -> Value:
    return _where_zero(b, x, b.op("div", x, y))


@rule("LogicalXor")
def logical_xor(b: Builder, x: Tensor, y: Tensor) -> Value:
    return b.op("logical_xor", x, y)


@rule("LeakyRelu")
def leaky_relu(b: Builder, x: Tensor) -> Value:
    return b.op("leaky_relu", x, slope=b.attr("alpha"))


@rule("ClipByValue")
def clip(b: Builder, x: Tensor, low: Tensor, high: Tensor) -> Value:
    return b.op("clamp", x, low, high)


@rule("ApproximateEqual")
def approximately_equal(b: Builder, x: Tensor, y: Tensor) -> Value:
    distance = b.op("abs", b.op("sub", x, y))
    return b.op("less", distance, b.scalar(b.attr("tolerance"), distance.dtype))


@rule("Select")
def select(b: Builder, condition: Tensor, yes: Tensor, no: Tensor) -> Value:
    if len(condition.shape) == 1 and len(yes.shape) > 1:  # a row is taken as a whole
        condition = b.reshape(condition, [condition.shape[0]] + [1] * (len(yes.shape) - 1))
    return b.op("select", condition, yes, no)


@rule("Cast")
def cast(b: Builder, x: Tensor) -> Value:
    to = b.result_dtype()
    value = b.value(x)
    if b.attr("Truncate") and value.dtype not in INTEGERS:
        raise Unsupported("a cast that rounds")
    return b.cast(value, to)


@rule("Bitcast")
def bitcast(b: Builder, x: Tensor) -> Value:
    source, target = dtype_name(b.node.inputs[0].dtype), b.result_dtype()
    if b.node.inputs[0].dtype.size != b.node.outputs[0].dtype.size:
        raise Unsupported(f"bits of {source} as {target}, of one size")
    return b.op("bitcast", x, dtype=target)


def _as_differentiated(op: Any) -> bool:
    """Whether the gradient that an op has is the one that its results have.

    That of TensorFlow's and Keras's own functions (silu) is, in another form; a user's may be anything.
    """
    try:
        name = op.get_attr("_gradient_op_type").decode()
    except ValueError:
        return True  # none of its own
    registered = ops.gradient_registry.lookup(name)
    given = _closed_over(_closed_over(registered, "tape_grad_fn"), "grad_fn")
    return str(getattr(given, "__module__", "")).split(".")[0] in ("tensorflow", "keras")


def _closed_over(function: Any, name: str) -> Any:
    """The variable of that name that a function was made with."""
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    return function.__closure__[names.index(name)].cell_contents if name in names else None
