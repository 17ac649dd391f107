"""Reads and writes at computed positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import fx

from deepseek import Value
from deepseek.torch.builder import Builder, Scalar, axis, rule
from deepseek.torch.rules.creation import filled
from deepseek.torch.rules.reductions import extreme
from deepseek.torch.rules.views import slice_axis
from deepseek.torch.shapes import (
    INTEGER_NAMES,
    TORCH_DTYPES,
    Dim,
    Unsupported,
    dim,
    dims,
    dtype_name,
    expression,
    product,
)

aten = torch.ops.aten


@rule(aten.embedding.default)
def embedding(b: Builder, weight: Value, index: Value, *rest: object) -> Value:
    return b.op("gather", weight, index, axis=0)


@rule(aten.index_select.default)
def index_select(b: Builder, x: Value, along: int, index: Value) -> Value:
    if not x.shape:
        return x
    along = axis(along, len(x.shape))
    return b.reshape(b.op("gather", x, index, axis=along), b.shape())


@rule(aten.gather.default)
def gather(b: Builder, x: Value, along: int, index: Value, *, sparse_grad: bool = False) -> Value:
    if product(index.shape) == 0:
        return filled(b, b.shape(), 0, x.dtype)
    if not x.shape or not index.shape:
        picked = b.op("gather_elements", at_least_vector(b, x), at_least_vector(b, index), axis=0)
        return b.reshape(picked, index.shape)
    return b.op("gather_elements", x, index, axis=axis(along, len(x.shape)))


def at_least_vector(b: Builder, x: Value) -> Value:
    return x if x.shape else b.reshape(x, [1])


def from_front(b: Builder, index: Value, size: Dim) -> Value:
    """Positions that may count from the end, counted from the front."""
    negative = b.op("less", index, b.constant(0, index.dtype))
    return b.op("select", negative, b.op("add", index, b.tensor(size, index.dtype)), index)


@dataclass
class Places:
    """What x[indices] means where tensors stand for some axes of x: those axes go to the front as one."""

    at: list[int]  # the axes that tensors stand for
    others: list[int]
    first: int  # where the result has the tensors' axes
    shape: list[Dim]  # of the tensors, broadcast
    flat: Value  # positions in the indexed axes as one, of that shape

    def moved(self, b: Builder, x: Value) -> Value:
        """x as [positions, other axes ...]."""
        others = [x.shape[i] for i in self.others]
        perm = [*self.at, *self.others]
        return b.reshape(b.transpose(x, perm), [product(x.shape[i] for i in self.at), *others])


def places(b: Builder, x: Value, indices: Sequence[Value | None]) -> Places:
    at = [i for i, position in enumerate(indices) if position is not None]
    picks = [position for position in indices if position is not None]
    if any(position.dtype in ("bool", "uint8") for position in picks):
        raise Unsupported("indexing by a mask")
    assert b.node is not None
    nodes = [node for node in b.node.args[1] if isinstance(node, fx.Node)]  # type: ignore[union-attr]
    sizes = (node.meta["val"].shape for node in nodes)
    shape = dims(torch.broadcast_shapes(*sizes))  # type: ignore[no-untyped-call]
    flat = from_front(b, b.cast(picks[0], "int64"), x.shape[at[0]])
    for i, pick in zip(at[1:], picks[1:], strict=True):
        position = from_front(b, b.cast(pick, "int64"), x.shape[i])
        flat = b.op("add", b.op("mul", flat, b.tensor(x.shape[i], "int64")), position)
    others = [i for i in range(len(x.shape)) if i not in at]
    adjacent = at == list(range(at[0], at[0] + len(at)))
    return Places(at, others, at[0] if adjacent else 0, shape, b.broadcast(flat, shape))


@rule(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(b: Builder, x: Value, indices: Sequence[Value | None]) -> Value:
    picks = [position for position in indices if position is not None]
    if len(picks) == 1 and picks[0].dtype not in ("bool", "uint8"):
        return b.op("gather", x, picks[0], axis=list(indices).index(picks[0]))
    where = places(b, x, indices)
    picked = b.op("gather", where.moved(b, x), where.flat, axis=0)  # [tensors' axes, others]
    count, first = len(where.shape), where.first
    perm = [*range(count, count + first), *range(count), *range(count + first, count + len(where.others))]
    return b.transpose(picked, perm)


@rule(aten.index_put.default, aten._unsafe_index_put.default)
def index_put(
    b: Builder, x: Value, indices: Sequence[Value | None], values: Value, accumulate: bool = False
) -> Value:
    mask = indices[0] if len(indices) == 1 else None
    if mask is not None and mask.dtype == "bool" and not accumulate:
        return _masked_put(b, x, mask, values)
    if x.dtype == "bool" and accumulate:
        return b.cast(_put_at(b, b.cast(x, "uint8"), indices, b.cast(values, "uint8"), "max"), "bool")
    return _put_at(b, x, indices, values, "add" if accumulate else "none")


def _put_at(b: Builder, x: Value, indices: Sequence[Value | None], values: Value, reduction: str) -> Value:
    where = places(b, x, indices)
    others: list[Dim] = [x.shape[i] for i in where.others]
    count, first = len(where.shape), where.first
    values = b.broadcast(values, [*others[:first], *where.shape, *others[first:]])
    perm = [*range(first, first + count), *range(first), *range(first + count, count + len(others))]
    rows = product(where.shape)
    updates = b.reshape(b.transpose(values, perm), [rows, *others])
    moved = where.moved(b, x)
    moved = b.op("scatter_nd", moved, b.reshape(where.flat, [rows, 1]), updates, reduction=reduction)
    back = [0] * len(x.shape)
    for position, i in enumerate([*where.at, *where.others]):
        back[i] = position
    apart: list[Dim] = [x.shape[i] for i in [*where.at, *where.others]]
    return b.transpose(b.reshape(moved, apart), back)


def _masked_put(b: Builder, x: Value, mask: Value, values: Value) -> Value:
    """x with the slices where the mask holds replaced: by one value, or by the rows of `values` in order."""
    rest: list[Dim] = list(x.shape[len(mask.shape) :])
    selected = b.reshape(mask, [*mask.shape, *([1] * len(rest))])
    if len(values.shape) <= len(rest) or values.shape[0] == 1:
        one = b.reshape(values, values.shape[1:]) if len(values.shape) > len(rest) else values
        return b.op("select", selected, b.broadcast(one, x.shape), x)
    rows = b.op("gather", values, _order(b, mask), axis=0)
    return b.op("select", selected, b.reshape(rows, [*mask.shape, *values.shape[1:]]), x)


def _order(b: Builder, mask: Value) -> Value:
    """For each element of a mask, how many before it hold: the row of what replaces it."""
    flat = b.cast(b.reshape(mask, [product(mask.shape)]), "int64")
    before = b.op("cumsum", flat, axis=0, exclusive=True)
    last = b.op("sub", b.op("sum", flat, axes=[0], keepdims=True), b.constant(1, "int64"))
    return b.op("maximum", b.op("minimum", before, last), b.constant(0, "int64"))


@rule(aten.masked_scatter.default)
def masked_scatter(b: Builder, x: Value, mask: Value, source: Value) -> Value:
    mask, x = b.broadcast(mask, b.shape()), b.broadcast(x, b.shape())
    if source.shape and product(source.shape) == 0:
        return x
    flat = b.reshape(source, [product(source.shape)])
    picked = b.op("gather", flat, _order(b, mask), axis=0)
    return b.op("select", mask, b.reshape(picked, b.shape()), x)


def _scattered(
    b: Builder, x: Value, along: int, index: Value, updates: Value, reduction: str = "none"
) -> Value:
    """scatter_elements as PyTorch has it: scalars are vectors of one, updates may exceed the index."""
    shape = b.shape()
    if product(index.shape) == 0:
        return x
    x, index, updates = (at_least_vector(b, value) for value in (x, index, updates))
    if list(updates.shape) != list(index.shape):
        starts = [0] * len(index.shape)
        updates = b.op(
            "slice", updates, starts=starts, limits=list(index.shape), steps=[1] * len(index.shape)
        )
    y = b.op("scatter_elements", x, index, updates, axis=axis(along, len(x.shape)), reduction=reduction)
    return b.reshape(y, shape)


@rule(
    aten.scatter.src,
    aten.scatter.value,
    aten.scatter.reduce,
    aten.scatter.value_reduce,
    aten.scatter_add.default,
)
def scatter(
    b: Builder, x: Value, along: int, index: Value, source: Value | Scalar, *, reduce: str | None = None
) -> Value:
    assert b.node is not None
    updates = source if isinstance(source, Value) else b.broadcast(b.constant(source, x.dtype), index.shape)
    reduction = {None: "none", "add": "add", "multiply": "mul"}[reduce]
    if b.node.target is aten.scatter_add.default:
        reduction = "add"
    if x.dtype != "bool" or reduction == "none":
        return _scattered(b, x, along, index, updates, reduction)
    wide = _scattered(
        b, b.cast(x, "uint8"), along, index, b.cast(updates, "uint8"), {"add": "max", "mul": "min"}[reduction]
    )
    return b.cast(wide, "bool")


@rule(aten.scatter_reduce.two)
def scatter_reduce(
    b: Builder, x: Value, along: int, index: Value, source: Value, reduce: str, *, include_self: bool = True
) -> Value:
    if x.dtype == "bool":
        if reduce == "mean":
            raise Unsupported("a mean of bools")
        same = {"sum": "amax", "prod": "amin"}.get(reduce, reduce)
        numbers = (b.cast(value, "uint8") for value in (x, source))
        whole = scatter_reduce(b, next(numbers), along, index, next(numbers), same, include_self=include_self)
        assert isinstance(whole, Value)
        return b.cast(whole, "bool")
    name = {"sum": "add", "mean": "add", "prod": "mul", "amax": "max", "amin": "min"}[reduce]
    ones = b.broadcast(b.constant(1, "int64"), index.shape)
    hits = _scattered(b, filled(b, x.shape, 0, "int64"), along, index, ones, "add")
    hit = b.op("greater", hits, b.constant(0, "int64"))
    if not include_self:
        last = extreme(x.dtype, largest=reduce == "amin")
        identity = {"add": 0, "mul": 1, "max": last, "min": last}[name]
        x = b.op("select", hit, b.constant(identity, x.dtype), x)
    total = _scattered(b, x, along, index, source, name)
    if reduce != "mean":
        return total
    one = b.constant(1, "int64")
    count = b.cast(b.op("add", hits, one) if include_self else b.op("maximum", hits, one), x.dtype)
    return b.op("floor_div" if x.dtype in INTEGER_NAMES else "div", total, count)


@rule(aten.unfold.default)
def unfold(b: Builder, x: Value, along: int, size: int, step: int) -> Value:
    shape = b.shape()
    if not x.shape:
        return b.broadcast(x, shape)
    at = axis(along, len(x.shape))
    count = shape[at]
    starts = b.op("mul", b.op("iota", shape=[count, size], dtype="int64", axis=0), b.constant(step, "int64"))
    position = b.op("add", starts, b.op("iota", shape=[count, size], dtype="int64", axis=1))
    windows = b.op("gather", x, position, axis=at)  # [..., count, size, ...]
    rank = len(x.shape) + 1
    return b.transpose(windows, [*(i for i in range(rank) if i != at + 1), at + 1])


def _memory_order(b: Builder, size: Sequence[Dim], stride: Sequence[Dim]) -> list[int]:
    """The axes of the node's first argument in the order in which the trace had them in memory."""
    fake = b.argument(0)
    known = [*fake.shape, *fake.stride(), fake.storage_offset(), *size, *stride]
    if any(not isinstance(value, int) for value in known):
        raise Unsupported("strides of symbolic size")
    strides = list(fake.stride())
    order = sorted(range(fake.dim()), key=lambda i: (-strides[i], -fake.shape[i]))
    if not fake.permute(order).is_contiguous():
        raise Unsupported("strides over memory with gaps")
    return order


def _strided_positions(b: Builder, size: Sequence[Dim], stride: Sequence[Dim], offset: Any) -> Value:
    """Positions of a strided view's elements in the memory of the node's first argument."""
    fake = b.argument(0)
    if isinstance(offset, str):
        raise Unsupported("an offset of symbolic size")
    start = 0 if offset is None else int(offset) - int(fake.storage_offset())
    reach = sum((int(s) - 1) * int(d) for s, d in zip(size, stride, strict=True)) + start
    if 0 not in size and not 0 <= start <= reach < fake.numel():
        raise Unsupported("strides beyond the tensor")
    position = b.broadcast(b.constant(start, "int64"), size)
    for i, step in enumerate(stride):
        along = b.op("iota", shape=list(size), dtype="int64", axis=i)
        position = b.op("add", position, b.op("mul", along, b.tensor(step, "int64")))
    return position


@rule(aten.as_strided.default, aten.as_strided_copy.default)
def as_strided(b: Builder, x: Value, size: Sequence[Dim], stride: Sequence[Dim], offset: Any = None) -> Value:
    memory = b.transpose(x, _memory_order(b, size, stride))
    position = _strided_positions(b, size, stride, offset)
    return b.op("gather", b.reshape(memory, [product(x.shape)]), position, axis=0)


@rule(aten.as_strided_scatter.default)
def as_strided_scatter(
    b: Builder, x: Value, source: Value, size: Sequence[Dim], stride: Sequence[Dim], offset: Any = None
) -> Value:
    order = _memory_order(b, size, stride)
    memory = b.transpose(x, order)
    position = b.reshape(_strided_positions(b, size, stride, offset), [product(size), 1])
    flat = b.reshape(memory, [product(x.shape)])
    y = b.op("scatter_nd", flat, position, b.reshape(source, [product(size)]))
    return b.transpose(b.reshape(y, memory.shape), [order.index(i) for i in range(len(order))])


def _write_slices(b: Builder, x: Value, along: int, positions: Value, source: Value) -> Value:
    """x with its slices at `positions` of one axis replaced by those of `source`."""
    perm = [along, *(i for i in range(len(x.shape)) if i != along)]
    back = [perm.index(i) for i in range(len(perm))]
    rows = b.reshape(positions, [positions.shape[0], 1])
    return b.transpose(b.op("scatter_nd", b.transpose(x, perm), rows, b.transpose(source, perm)), back)


@rule(aten.slice_scatter.default)
def slice_scatter(
    b: Builder, x: Value, source: Value, along: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Value:
    at = axis(along, len(x.shape))
    size, count = expression(b.argument(0).shape[at]), expression(b.argument(1).shape[at])
    first = b.size_argument(3)
    first = sympy.Integer(0) if first is None else first
    if first.is_Integer and size.is_Integer:
        first = sympy.Integer(min(max(int(first + size if first < 0 else first), 0), int(size)))
    elif first.is_Integer and first < 0:
        first = size + first
    source = b.cast(source, x.dtype)
    if count == size and step == 1:
        return source
    if step == 1:
        before = slice_axis(b, x, at, 0, dim(first))
        return b.op("concat", before, source, slice_axis(b, x, at, dim(first + count), dim(size)), axis=at)
    steps = b.op("mul", b.op("iota", shape=[dim(count)], dtype="int64", axis=0), b.constant(step, "int64"))
    return _write_slices(b, x, at, b.op("add", steps, b.tensor(dim(first), "int64")), source)


def _diagonal(b: Builder, x: Value, count: Dim, offset: int, dim1: int, dim2: int) -> tuple[list[int], Value]:
    """x's axes with the two of the diagonal last, and the positions of its `count` elements in those two as
    one.
    """
    rank = len(x.shape)
    first, second = axis(dim1, rank), axis(dim2, rank)
    perm = [*(i for i in range(rank) if i not in (first, second)), first, second]
    columns = b.tensor(x.shape[second], "int64")
    steps = b.op("iota", shape=[count], dtype="int64", axis=0)
    right, down = b.constant(max(offset, 0), "int64"), b.constant(max(-offset, 0), "int64")
    row = b.op("mul", b.op("add", steps, down), columns)
    return perm, b.op("add", row, b.op("add", steps, right))


def _last_two_as_one(b: Builder, x: Value, perm: Sequence[int]) -> Value:
    moved = b.transpose(x, perm)
    return b.reshape(moved, [*moved.shape[:-2], product(moved.shape[-2:])])


@rule(aten.diagonal.default, aten.diagonal_copy.default)
def diagonal(b: Builder, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    perm, position = _diagonal(b, x, b.shape()[-1], offset, dim1, dim2)
    return b.op("gather", _last_two_as_one(b, x, perm), position, axis=len(perm) - 2)


@rule(aten.diagonal_scatter.default)
def diagonal_scatter(
    b: Builder, x: Value, source: Value, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Value:
    perm, position = _diagonal(b, x, source.shape[-1], offset, dim1, dim2)
    flat = _last_two_as_one(b, x, perm)
    written = _write_slices(b, flat, len(perm) - 2, position, b.cast(source, x.dtype))
    apart: list[Dim] = [x.shape[i] for i in perm]
    back = [perm.index(i) for i in range(len(perm))]
    return b.transpose(b.reshape(written, apart), back)


def promoted_name(first: str, second: str) -> str:
    return dtype_name(torch.promote_types(TORCH_DTYPES[first], TORCH_DTYPES[second]))


def _before(b: Builder, boundaries: Value, values: Value, right: bool) -> Value:
    """Which boundaries lie before each value; NaN lies after every number."""
    before = b.op("less_equal" if right else "less", boundaries, values)
    if values.dtype == "bool" or values.dtype in INTEGER_NAMES:
        return before
    nan = b.op("is_nan", values)
    if right:
        return b.op("logical_or", before, nan)
    number = b.op("logical_not", b.op("is_nan", boundaries))
    return b.op("logical_or", before, b.op("logical_and", nan, number))


def _searched(b: Builder, boundaries: Value, values: Value | Scalar, right: bool) -> Value:
    value = b.tensor(values, boundaries.dtype)
    dtype = promoted_name(boundaries.dtype, value.dtype)
    boundaries, value = b.cast(boundaries, dtype), b.cast(value, dtype)
    ones: list[Dim] = [1] * len(value.shape) if len(boundaries.shape) == 1 else [*boundaries.shape[:-1], 1]
    edges = b.reshape(boundaries, [*ones, boundaries.shape[-1]])
    before = _before(b, edges, b.reshape(value, [*value.shape, 1]), right)
    count = b.op("sum", b.cast(before, "int64"), axes=[len(before.shape) - 1], keepdims=False)
    return b.reshape(b.cast(count, b.dtype()), b.shape())


@rule(aten.searchsorted.Tensor, aten.searchsorted.Scalar)
def searchsorted(
    b: Builder,
    boundaries: Value,
    values: Value | Scalar,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Value | None = None,
) -> Value:
    if sorter is not None:
        boundaries = b.op("gather_elements", boundaries, sorter, axis=len(sorter.shape) - 1)
    return _searched(b, boundaries, values, right or side == "right")


@rule(aten.bucketize.Tensor, aten.bucketize.Scalar)
def bucketize(
    b: Builder, values: Value | Scalar, boundaries: Value, *, out_int32: bool = False, right: bool = False
) -> Value:
    if len(boundaries.shape) != 1:
        raise Unsupported("boundaries of other than one axis")  # PyTorch raises its error
    return _searched(b, boundaries, values, right)
