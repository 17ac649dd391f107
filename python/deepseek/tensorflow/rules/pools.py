"""Poolings."""

from __future__ import annotations

from typing import Any

from deepseek import Value
from deepseek.tensorflow.builder import Builder, Tensor, rule
from deepseek.tensorflow.rules.window import layout_of, padded, paddings, spatial, spatial_sizes
from deepseek.tensorflow.shapes import Size, Unsupported


def _windows(b: Builder, x: Tensor, name: str, fill: float, window: Any, strides: Any) -> Value:
    layout = layout_of(b, len(x.shape))
    if any(n != 1 for n, letter in zip(window, layout, strict=True) if letter in "NC"):
        raise Unsupported("windows over spatial dims alone")
    window, strides = spatial(layout, window), spatial(layout, strides)
    low, high = paddings(b, layout, spatial_sizes(x, layout), window, strides)
    if name == "avg_pool" and any(isinstance(pad, Size) for pad in (*low, *high)):
        raise Unsupported("padding without symbols")
    x, pads = padded(b, x, layout, low, high, fill)
    return b.op(name, x, window=window, strides=strides, layout=layout, **pads)


@rule("MaxPool", "MaxPool3D")
def max_pool(b: Builder, x: Tensor) -> Value:
    return _windows(b, x, "max_pool", float("-inf"), b.attr("ksize"), b.attr("strides"))


@rule("MaxPoolV2")
def max_pool_with_inputs(b: Builder, x: Tensor, window: Tensor, strides: Tensor) -> Value:
    return _windows(b, x, "max_pool", float("-inf"), b.ints(window, "windows"), b.ints(strides, "strides"))


@rule("AvgPool", "AvgPool3D")
def avg_pool(b: Builder, x: Tensor) -> Value:
    return _windows(b, x, "avg_pool", 0, b.attr("ksize"), b.attr("strides"))
