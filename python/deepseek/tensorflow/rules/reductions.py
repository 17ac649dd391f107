"""Reductions, sorts, running sums."""

from __future__ import annotations

from collections.abc import Callable

from deepseek import Value
from deepseek.tensorflow.builder import Builder, Tensor, axis, rule
from deepseek.tensorflow.shapes import dim

SAME = {"Sum": "sum", "Mean": "mean", "Max": "max", "Min": "min", "Prod": "prod", "All": "all", "Any": "any"}


def _reduction(name: str) -> Callable[..., Value]:
    def translate(b: Builder, x: Tensor, axes: Tensor) -> Value:
        along = sorted({axis(i, len(x.shape)) for i in b.ints(axes, "axes")})
        if not along:
            return b.value(x)
        return b.op(name, x, axes=along, keepdims=b.attr("keep_dims"))

    return translate


for _type, _name in SAME.items():
    rule(_type)(_reduction(_name))


@rule("EuclideanNorm")
def euclidean_norm(b: Builder, x: Tensor, axes: Tensor) -> Value:
    return b.op("sqrt", _reduction("sum")(b, b.op("mul", x, x), axes))


@rule("ArgMax", "ArgMin")
def position(b: Builder, x: Tensor, along: Tensor) -> Value:
    name = {"ArgMax": "argmax", "ArgMin": "argmin"}[b.node.type]
    at = axis(b.ints(along, "an axis")[0], len(x.shape))
    return b.cast(b.op(name, x, axis=at), b.result_dtype())


@rule("TopKV2")
def topk(b: Builder, x: Tensor, k: Tensor) -> tuple[Value, Value]:
    values, indices = b.ops("topk", x, k=[dim(b.sizes(k, "k")[0])], axis=-1)
    return values, b.cast(indices, b.result_dtype(1))


@rule("InTopKV2")
def in_top_k(b: Builder, predictions: Tensor, targets: Tensor, k: Tensor) -> Value:
    columns = b.op("iota", shape=[1, predictions.shape[1]], dtype=b.value(targets).dtype, axis=1)
    at = b.op("equal", columns, b.op("unsqueeze", targets, axes=[1]))
    low = b.scalar(float("-inf"), "float32")
    own = b.op("max", b.op("select", at, predictions, low), axes=[1], keepdims=True)
    above = b.op("sum", b.op("cast", b.op("greater", predictions, own), dtype="int32"), axes=[1])
    finite = b.op("all", b.op("is_finite", predictions), axes=[1])
    return b.op("logical_and", finite, b.op("less", above, b.cast(k, "int32")))


@rule("Cumsum", "Cumprod")
def running(b: Builder, x: Tensor, along: Tensor) -> Value:
    name = {"Cumsum": "cumsum", "Cumprod": "cumprod"}[b.node.type]
    at = axis(b.ints(along, "an axis")[0], len(x.shape))
    return b.op(name, x, axis=at, exclusive=b.attr("exclusive"), reverse=b.attr("reverse"))


@rule("SegmentSum", "UnsortedSegmentSum")
def segment_sum(b: Builder, x: Tensor, segments: Tensor, count: Tensor) -> Value:
    rank = len(segments.shape)
    flat = b.reshape(segments, [-1]) if rank != 1 else segments
    if rank != 1:
        x = b.reshape(x, [-1, *x.shape[rank:]])
    return b.op("index_add", x, flat, axis=0, size=[dim(b.sizes(count, "the number of segments")[0])])


@rule("Bucketize")
def bucketize(b: Builder, x: Tensor) -> Value:
    total = b.cast(b.op("full", shape=list(x.shape), value=0.0, dtype="int32"), "int32")
    for boundary in b.attr("boundaries"):
        above = b.op("greater_equal", x, b.scalar(boundary, b.value(x).dtype))
        total = b.op("add", total, b.op("cast", above, dtype="int32"))
    return total


@rule("DenseBincount", "Bincount")
def bincount(b: Builder, x: Tensor, size: Tensor, weights: Tensor) -> Value:
    """How often each number below `size` stands in x (in each row of it), or the sum of its weights."""
    dtype = b.result_dtype()
    depth = b.sizes(size, "the number of bins")[0]
    bins = b.op("iota", shape=[dim(depth)], dtype=b.value(x).dtype, axis=0)
    hits = b.op("equal", b.op("unsqueeze", x, axes=[len(x.shape)]), bins)
    if b.node.type == "DenseBincount" and b.attr("binary_output"):
        return b.cast(b.op("any", hits, axes=[len(x.shape) - 1]), dtype)
    weighted = b.cast(hits, dtype)
    if 0 not in weights.shape:
        weighted = b.op("mul", weighted, b.op("unsqueeze", weights, axes=[len(x.shape)]))
    return b.op("sum", weighted, axes=[len(x.shape) - 1])
