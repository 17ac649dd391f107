"""Tensor lists, which is what TensorFlow's loops keep their steps in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from deepseek import Value
from deepseek.tensorflow.builder import Builder, Tensor, rule, sizes_of
from deepseek.tensorflow.shapes import Dim, Known, Size, Unsupported, dim


@dataclass(frozen=True, eq=False)
class TensorList:
    """Elements of one dtype: apart where each is known (None: not set), else stacked in one tensor.

    `shape`: of an element, None where nothing was stored yet and the function does not say.
    """

    dtype: str
    length: Any
    shape: tuple[Dim, ...] | None
    elements: tuple[Value | None, ...] | None = None
    stacked: Value | None = None


def _declared(b: Builder, shape: Tensor) -> tuple[Dim, ...] | None:
    """An element's shape, where the op states all of it."""
    if not isinstance(shape, Known) or shape.values.ndim == 0:
        return None
    sizes = b.sizes(shape, "a shape")
    if any(not isinstance(size, Size) and size < 0 for size in sizes):
        return None
    return tuple(dim(size) for size in sizes)


def stacked(b: Builder, x: TensorList) -> Value:
    """The list as one tensor; elements that nothing set are zeros."""
    if x.stacked is not None:
        return x.stacked
    if x.shape is None:
        raise Unsupported("a list whose elements have a known shape")
    shape = list(x.shape)
    if x.elements is None or not any(element is not None for element in x.elements):
        return b.op("full", shape=[dim(x.length), *shape], value=0.0, dtype=x.dtype)
    zeros = b.op("full", shape=shape, value=0.0, dtype=x.dtype)
    return b.op("stack", *(zeros if element is None else element for element in x.elements), axis=0)


@rule("TensorListReserve")
def reserve(b: Builder, shape: Tensor, count: Tensor) -> TensorList:
    length = b.sizes(count, "a length")[0]
    elements = None if isinstance(length, Size) else (None,) * length
    return TensorList(_dtype(b), length, _declared(b, shape), elements)


@rule("EmptyTensorList")
def empty(b: Builder, shape: Tensor, most: Tensor) -> TensorList:
    return TensorList(_dtype(b), 0, _declared(b, shape), ())


def _dtype(b: Builder) -> str:
    from deepseek.tensorflow.shapes import dtype_name

    return dtype_name(b.attr("element_dtype"))


@rule("TensorListFromTensor")
def from_tensor(b: Builder, x: Tensor, shape: Tensor) -> TensorList:
    value = b.value(x)
    return TensorList(value.dtype, sizes_of(x)[0], tuple(value.shape[1:]), stacked=value)


def _position(index: Tensor) -> int | None:
    if isinstance(index, Known) and not index.symbolic:
        return int(index.values.reshape(-1)[0])
    return None


@rule("TensorListGetItem")
def get_item(b: Builder, x: TensorList, index: Tensor, shape: Tensor) -> Value:
    at = _position(index)
    if x.elements is not None and at is not None:
        element = x.elements[at]
        if element is not None:
            return element
        said = x.shape or _declared(b, shape)
        if said is None:
            raise Unsupported("a list whose elements have a known shape")
        return b.op("full", shape=list(said), value=0.0, dtype=x.dtype)
    whole = stacked(b, x)
    if at is not None:
        return b.op("squeeze", b.slice_axis(whole, 0, at, at + 1), axes=[0])
    return b.op("gather", whole, index, axis=0)


@rule("TensorListSetItem")
def set_item(b: Builder, x: TensorList, index: Tensor, item: Tensor) -> TensorList:
    at, value = _position(index), b.value(item)
    x = replace(x, shape=tuple(value.shape))
    if x.elements is not None and at is not None:
        return replace(x, elements=(*x.elements[:at], value, *x.elements[at + 1 :]))
    whole, rank = stacked(b, x), len(value.shape)
    corner = [b.reshape(b.cast(index, "int64"), [1])] + [b.value(Known([0] * rank, "int64"))] * bool(rank)
    starts = corner[0] if len(corner) == 1 else b.op("concat", *corner, axis=0)
    update = b.op("unsqueeze", value, axes=[0])
    return replace(x, elements=None, stacked=b.op("dynamic_update_slice", whole, update, starts))


@rule("TensorListPushBack")
def push_back(b: Builder, x: TensorList, item: Tensor) -> TensorList:
    if x.elements is None:
        raise Unsupported("a list whose length is known")
    value = b.value(item)
    return replace(x, length=x.length + 1, shape=tuple(value.shape), elements=(*x.elements, value))


@rule("TensorListPopBack")
def pop_back(b: Builder, x: TensorList, shape: Tensor) -> tuple[TensorList, Value]:
    if not x.elements or x.elements[-1] is None:
        raise Unsupported("a list whose elements are known")
    return replace(x, length=x.length - 1, elements=x.elements[:-1]), x.elements[-1]


@rule("TensorListStack")
def stack(b: Builder, x: TensorList, shape: Tensor) -> Value:
    return stacked(b, x if x.shape is not None else replace(x, shape=_declared(b, shape)))


@rule("TensorListLength")
def length_of(b: Builder, x: TensorList) -> Known:
    import numpy as np

    return Known(np.array(x.length, object), b.result_dtype())


@rule("TensorListGather")
def gather(b: Builder, x: TensorList, indices: Tensor, shape: Tensor) -> Value:
    return b.op("gather", stacked(b, x), indices, axis=0)


@rule("TensorListScatterV2")
def scatter(b: Builder, x: Tensor, indices: Tensor, shape: Tensor, count: Tensor) -> TensorList:
    places = b.ints(indices, "places")
    wanted = b.ints(count, "a length")[0]
    length = max([wanted, *(place + 1 for place in places)])
    elements: list[Value | None] = [None] * length
    for row, place in enumerate(places):
        elements[place] = b.op("squeeze", b.slice_axis(x, 0, row, row + 1), axes=[0])
    value = b.value(x)
    return TensorList(value.dtype, length, tuple(value.shape[1:]), tuple(elements))


@rule("TensorListConcatV2")
def concat(b: Builder, x: TensorList, shape: Tensor, leading: Tensor) -> tuple[Value, None]:
    if not x.elements or any(element is None for element in x.elements):
        raise Unsupported("a list whose elements are known")
    parts: Sequence[Any] = x.elements
    return (parts[0] if len(parts) == 1 else b.op("concat", *parts, axis=0)), None
