"""Shapes and what is computed from them: sizes where an op's inputs are known, ops of the graph elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from deepseek import Value
from deepseek.tensorflow.builder import Builder, Tensor, axis, fold, rule, sizes_of
from deepseek.tensorflow.rules.views import index_of
from deepseek.tensorflow.shapes import Known, Size, Undecided, Unsupported, dim, larger, product, smaller

Array = np.ndarray[Any, Any]


@rule("Const")
def constant(b: Builder) -> Known:
    from tensorflow.python.framework import tensor_util

    dtype = b.result_dtype()
    return Known(tensor_util.MakeNdarray(b.attr("value")), dtype)


def _vector(b: Builder, values: Any, index: int = 0) -> Known:
    array = np.empty(len(values), object)
    array[:] = values
    return Known(array, b.result_dtype(index))


@rule("Shape")
def shape(b: Builder, x: Tensor) -> Known:
    return _vector(b, sizes_of(x))


@rule("ShapeN")
def shapes(b: Builder, *xs: Tensor) -> tuple[Known, ...]:
    return tuple(_vector(b, sizes_of(x), i) for i, x in enumerate(xs))


@rule("Size")
def element_count(b: Builder, x: Tensor) -> Known:
    return Known(np.array(product(sizes_of(x)), object), b.result_dtype())


@rule("Rank")
def rank_of(b: Builder, x: Tensor) -> Known:
    return Known(len(x.shape), b.result_dtype())


@rule("BroadcastArgs")
def broadcast_shapes(b: Builder, x: Tensor, y: Tensor) -> Known:
    long, short = sorted((b.sizes(x, "a shape"), b.sizes(y, "a shape")), key=len, reverse=True)
    short = [1] * (len(long) - len(short)) + short
    return _vector(
        b, [q if not isinstance(p, Size) and p == 1 else p for p, q in zip(long, short, strict=True)]
    )


@rule("Range")
def steps(b: Builder, start: Tensor, limit: Tensor, step: Tensor) -> Value:
    dtype = b.result_dtype()
    first, last = (_number(b, x, what) for x, what in ((start, "a start"), (limit, "a limit")))
    by = b.number(step, "a step")
    if isinstance(by, Size) or by == 0:
        raise Unsupported("a step without symbols")
    if isinstance(first, Size) or isinstance(last, Size):
        away = last - first if by > 0 else first - last
        count = (away + abs(int(by)) - 1) // abs(int(by))
    else:
        count = max(0, math.ceil((last - first) / by))
    made = b.op("iota", shape=[dim(count)], dtype=dtype, axis=0)
    if by != 1:
        made = b.op("mul", made, b.scalar(by, dtype))
    if isinstance(first, Size) or first != 0:
        made = b.op("add", made, Known(np.array(first, object), dtype))
    return made


def _number(b: Builder, x: Tensor, what: str) -> Any:
    value = b.number(x, what)
    return value if isinstance(value, Size) else value.item()


@rule("Maximum", "Minimum")
def bounded(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    """Also a number that is known because bounds meet: min(n, max(n, x)) is n."""
    value = b.op({"Maximum": "maximum", "Minimum": "minimum"}[b.node.type], x, y)
    other, bound = (x, y) if isinstance(y, Known) else (y, x)
    if isinstance(bound, Known) and not bound.symbolic and bound.values.size == 1 and "int" in bound.dtype:
        number = bound.values.item()
        if b.node.type == "Maximum":
            b.least[value] = number
        elif isinstance(other, Value) and b.least.get(other, number - 1) >= number and other.shape == ():
            return bound
    return value


@rule("LinSpace")
def linear_steps(b: Builder, start: Tensor, stop: Tensor, count: Tensor) -> Value:
    dtype = b.result_dtype()
    n = b.ints(count, "a number of steps")[0]
    places = b.op("iota", shape=[n], dtype=dtype, axis=0)
    step = b.op("div", b.op("sub", stop, start), b.scalar(max(n - 1, 1), dtype))
    return b.op("add", start, b.op("mul", places, step))


# On small known arrays: numbers as NumPy has them, sizes as Python's operators have them.
ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "AddV2": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "FloorDiv": np.floor_divide,
    "FloorMod": np.mod,
    "RealDiv": np.true_divide,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Neg": np.negative,
    "Equal": np.equal,
    "NotEqual": np.not_equal,
    "Less": np.less,
    "LessEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "LogicalAnd": np.logical_and,
    "LogicalOr": np.logical_or,
    "LogicalNot": np.logical_not,
    "Maximum": np.frompyfunc(larger, 2, 1),
    "Minimum": np.frompyfunc(smaller, 2, 1),
    "SelectV2": np.where,
}


def _elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    def compute(b: Builder, *arrays: Array) -> Any:
        with np.errstate(all="ignore"):
            return function(*arrays)

    return compute


for _type, _function in ELEMENTWISE.items():
    fold(_type)(_elementwise(_function))


@fold("Cast")
def fold_cast(b: Builder, x: Array) -> Array:
    if x.dtype == object and "int" not in b.result_dtype():
        raise Undecided
    return x


@fold("Pack")
def fold_pack(b: Builder, *xs: Array) -> Array:
    return np.stack(xs, b.attr("axis"))


@fold("Unpack")
def fold_unpack(b: Builder, x: Array) -> tuple[Array, ...]:
    return tuple(np.moveaxis(x, b.attr("axis"), 0))


@fold("ConcatV2")
def fold_concat(b: Builder, *xs: Array) -> Array:
    return np.concatenate(xs[:-1], int(xs[-1]))


@fold("Reshape")
def fold_reshape(b: Builder, x: Array, to: Array) -> Array:
    return x.reshape([int(n) for n in to])


@fold("ExpandDims")
def fold_expand(b: Builder, x: Array, along: Array) -> Array:
    return np.expand_dims(x, int(along.reshape(-1)[0]))


@fold("Squeeze")
def fold_squeeze(b: Builder, x: Array) -> Array:
    axes = tuple(axis(i, x.ndim) for i in b.attr("squeeze_dims"))
    return np.squeeze(x, axes or None)


@fold("GatherV2")
def fold_gather(b: Builder, x: Array, indices: Array, along: Array) -> Array:
    if b.attr("batch_dims"):
        raise Undecided
    return np.take(x, indices.astype(int), int(along))


@fold("StridedSlice")
def fold_slice(b: Builder, x: Array, begin: Array, end: Array, strides: Array) -> Any:
    index = index_of(b, x.ndim, *([int(i) for i in ends] for ends in (begin, end, strides)))
    return x[tuple(index)]


@fold("Slice")
def fold_box(b: Builder, x: Array, begin: Array, lengths: Array) -> Array:
    ends = [None if n == -1 else i + n for i, n in zip(begin, lengths, strict=True)]
    return x[tuple(slice(int(i), None if e is None else int(e)) for i, e in zip(begin, ends, strict=True))]


@fold("Split")
def fold_split(b: Builder, along: Array, x: Array) -> tuple[Array, ...]:
    return tuple(np.split(x, b.attr("num_split"), int(along)))


@fold("Fill")
def fold_fill(b: Builder, to: Array, value: Array) -> Array:
    return np.full([int(n) for n in to], value)


@fold("Range")
def fold_range(b: Builder, start: Array, limit: Array, step: Array) -> Array:
    if start.dtype.kind == "f":
        raise Undecided
    return np.arange(int(start), int(limit), int(step))


@fold("Transpose")
def fold_transpose(b: Builder, x: Array, perm: Array) -> Array:
    return x.transpose([int(i) for i in perm])


@fold("Tile")
def fold_tile(b: Builder, x: Array, repeats: Array) -> Array:
    return np.tile(x, [int(n) for n in repeats])


@fold("ReverseV2")
def fold_reverse(b: Builder, x: Array, axes: Array) -> Array:
    return np.flip(x, tuple(int(i) for i in axes))


@fold("InvertPermutation")
def fold_invert(b: Builder, x: Array) -> Array:
    return np.argsort(x.astype(int))


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "Sum": np.add.reduce,
    "Prod": np.multiply.reduce,
    "Max": np.maximum.reduce,
    "Min": np.minimum.reduce,
    "All": np.logical_and.reduce,
    "Any": np.logical_or.reduce,
}


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def compute(b: Builder, x: Array, axes: Array) -> Any:
        return function(x, axis=tuple(int(i) for i in axes.reshape(-1)), keepdims=b.attr("keep_dims"))

    return compute


for _type, _function in REDUCTIONS.items():
    fold(_type)(_reduction(_function))
