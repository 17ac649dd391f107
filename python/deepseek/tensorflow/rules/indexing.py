"""Gathers, scatters, one-hot."""

from __future__ import annotations

from deepseek import Value
from deepseek.tensorflow.builder import Builder, Tensor, axis, rule
from deepseek.tensorflow.shapes import Unsupported, dim


@rule("GatherV2", "ResourceGather")
def gather(b: Builder, x: Tensor, indices: Tensor, along: Tensor | None = None) -> Value:
    at = 0 if along is None else axis(b.ints(along, "an axis")[0], len(x.shape))
    shared = axis(b.attr("batch_dims"), len(indices.shape))
    if shared == 0:
        return b.op("gather", x, indices, axis=at)
    if at != shared:  # the axes between the shared ones and this come first, as a part of each index's slice
        raise Unsupported("a gather along the axis after the shared ones")
    return b.op("gather_nd", x, b.op("unsqueeze", indices, axes=[len(indices.shape)]), batch_dims=shared)


@rule("Gather")
def gather_rows(b: Builder, x: Tensor, indices: Tensor) -> Value:
    return b.op("gather", x, indices, axis=0)


@rule("GatherNd")
def gather_nd(b: Builder, x: Tensor, indices: Tensor) -> Value:
    return b.op("gather_nd", x, indices)


@rule("OneHot")
def one_hot(b: Builder, indices: Tensor, depth: Tensor, on: Tensor, off: Tensor) -> Value:
    rank = len(indices.shape) + 1
    along = axis(b.attr("axis"), rank)
    shape = [1] * rank
    steps = [dim(b.sizes(depth, "the depth")[0]) if i == along else n for i, n in enumerate(shape)]
    places = b.op("iota", shape=steps, dtype=b.value(indices).dtype, axis=along)
    return b.op("select", b.op("equal", b.op("unsqueeze", indices, axes=[along]), places), on, off)


@rule("ScatterNd")
def scatter_nd(b: Builder, indices: Tensor, updates: Tensor, shape: Tensor) -> Value:
    sizes = [dim(size) for size in b.sizes(shape, "a shape")]
    zeros = b.op("full", shape=sizes, value=0.0, dtype=b.value(updates).dtype)
    return b.op("scatter_nd", zeros, indices, updates, reduction="add")


@rule("TensorScatterUpdate", "TensorScatterAdd", "TensorScatterMax", "TensorScatterMin")
def tensor_scatter(b: Builder, x: Tensor, indices: Tensor, updates: Tensor) -> Value:
    kinds = {"Update": "none", "Add": "add", "Max": "max", "Min": "min"}
    kind = kinds[b.node.type.removeprefix("TensorScatter")]
    return b.op("scatter_nd", x, indices, updates, reduction=kind)


@rule("MatrixBandPart")
def band_part(b: Builder, x: Tensor, lower: Tensor, upper: Tensor) -> Value:
    below, above = b.ints(lower, "the number of diagonals")[0], b.ints(upper, "the number of diagonals")[0]
    value = b.value(x)
    if below >= 0:
        value = b.op("triangular", value, upper=True, k=[-below])
    if above >= 0:
        value = b.op("triangular", value, upper=False, k=[above])
    return value


@rule("InvertPermutation")
def invert_permutation(b: Builder, x: Tensor) -> Value:
    return b.cast(b.ops("sort", x)[1], b.result_dtype())


@rule("Where")
def where(b: Builder, x: Tensor) -> Value:
    symbol = f"count_{len(b.graph)}"
    found = b.op("nonzero", x, symbol=symbol)
    b.symbols[symbol] = found
    return b.transpose(found, [1, 0])
