"""Normalisations, forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deepseek import Value
from deepseek.torch.builder import Builder, rule
from deepseek.torch.shapes import Dim, Unsupported, product

aten = torch.ops.aten


def channels(x: Value, rank: int) -> list[Dim]:
    """Shape in which a vector over channels broadcasts over [N, C, ...]."""
    return [x.shape[0]] + [1] * (rank - 2)


def moments(b: Builder, x: Value, over: Sequence[int]) -> tuple[Value, Value, Value]:
    """Mean, x - mean, biased variance; the reduced axes are kept."""
    mean = b.op("mean", x, axes=list(over), keepdims=True)
    centred = b.op("sub", x, mean)
    return mean, centred, b.op("mean", b.op("mul", centred, centred), axes=list(over), keepdims=True)


def inverse_deviation(b: Builder, variance: Value, eps: float) -> Value:
    return b.op("rsqrt", b.op("add", variance, b.constant(eps, variance.dtype)))


@rule(aten.native_layer_norm.default)
def layer_norm(
    b: Builder, x: Value, shape: Sequence[Dim], weight: Value | None, bias: Value | None, eps: float
) -> tuple[Value | None, ...]:
    axis = len(x.shape) - len(shape)
    return b.as_traced(*b.ops("layer_norm", *b.wide(x, weight, bias), axis=axis, epsilon=eps))


@rule(aten._native_batch_norm_legit_no_training.default)
def batch_norm_inference(
    b: Builder,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value,
    variance: Value,
    momentum: float,
    eps: float,
) -> tuple[Value | None, ...]:
    return b.as_traced(*_by_statistics(b, x, weight, bias, mean, variance, eps))


def _by_statistics(
    b: Builder,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value,
    variance: Value,
    eps: float,
) -> tuple[Value, Value, Value]:
    y = b.op("batch_norm", *b.wide(x, weight, bias, mean, variance), epsilon=eps)
    nothing = b.op("full", shape=[0], value=0.0, dtype="float32")  # there are no statistics of the batch
    return y, nothing, nothing


@rule(aten._native_batch_norm_legit_functional.default, aten._native_batch_norm_legit.no_stats)
def batch_norm_training(
    b: Builder, x: Value, weight: Value | None, bias: Value | None, *rest: object
) -> tuple[Value | None, ...]:
    """Results: y, mean and inverse deviation of the batch, new running statistics where there are any.

    Not in training: those statistics normalise and stay as they are; there are none of the batch.
    """
    running = rest[:2] if len(rest) == 5 else (None, None)
    training, momentum, eps = rest[-3], rest[-2], rest[-1]
    assert isinstance(momentum, float)
    assert isinstance(eps, float)
    old_mean, old_variance = running
    if not training:
        if not isinstance(old_mean, Value) or not isinstance(old_variance, Value):
            raise Unsupported("batch normalisation without statistics")
        results = _by_statistics(b, x, weight, bias, old_mean, old_variance, eps)
        return b.as_traced(*results, old_mean, old_variance)
    x, weight, bias = b.wide(x, weight, bias)  # type: ignore[assignment]
    y, mean, variance, scale = b.ops("batch_norm_training", x, weight, bias, epsilon=eps)
    found: tuple[Value, ...] = (y, mean, scale)
    if isinstance(old_mean, Value) and isinstance(old_variance, Value):
        count = b.tensor(product([x.shape[0], *x.shape[2:]]), variance.dtype)
        bessel = b.op("div", count, b.op("sub", count, b.constant(1, count.dtype)))
        unbiased = b.op("mul", variance, bessel)
        found += (_blend(b, old_mean, mean, momentum), _blend(b, old_variance, unbiased, momentum))
    return b.as_traced(*found)


def _blend(b: Builder, old: Value, new: Value, momentum: float) -> Value:
    kept = b.op("mul", b.cast(old, new.dtype), b.constant(1 - momentum, new.dtype))
    return b.op("add", kept, b.op("mul", new, b.constant(momentum, new.dtype)))


@rule(aten.native_group_norm.default)
def group_norm(
    b: Builder,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    batch: Dim,
    channel_count: Dim,
    inner: Dim,
    groups: int,
    eps: float,
) -> tuple[Value | None, ...]:
    if not isinstance(channel_count, int):
        raise Unsupported("group normalisation over symbolic channels")
    rank = len(x.shape)
    x, weight, bias = b.wide(x, weight, bias)  # type: ignore[assignment]
    apart = b.reshape(x, [batch, groups, channel_count // groups, *x.shape[2:]])
    mean, centred, variance = moments(b, apart, range(2, rank + 1))
    scale = inverse_deviation(b, variance, eps)
    y = b.reshape(b.op("mul", centred, scale), x.shape)
    if weight is not None:
        y = b.op("mul", y, b.reshape(weight, channels(weight, rank)))
    if bias is not None:
        y = b.op("add", y, b.reshape(bias, channels(bias, rank)))
    return b.as_traced(y, b.reshape(mean, [batch, groups]), b.reshape(scale, [batch, groups]))
