"""What convolutions and poolings share: layouts, strides, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepseek.tensorflow.builder import Builder, Tensor, sizes_of
from deepseek.tensorflow.shapes import Size, Unsupported, dim, larger


def layout_of(b: Builder, rank: int) -> str:
    """The node's data format as a layout of ours: "N01C" for NHWC."""
    spatial = "".join(str(i) for i in range(rank - 2))
    return f"NC{spatial}" if b.attr("data_format").startswith("NC") else f"N{spatial}C"


def spatial(layout: str, values: Sequence[Any]) -> list[Any]:
    """Of values by axis, those of the spatial dims."""
    return [value for letter, value in zip(layout, values, strict=True) if letter.isdigit()]


def paddings(
    b: Builder, layout: str, sizes: Sequence[Any], window: Sequence[int], strides: Sequence[int]
) -> tuple[list[Any], list[Any]]:
    """What stands before and after each spatial dim; `window`: its extent, holes included."""
    kind = b.attr("padding")
    if kind == "VALID":
        return [0] * len(sizes), [0] * len(sizes)
    if kind == "EXPLICIT":
        pads = list(b.attr("explicit_paddings"))
        return spatial(layout, pads[::2]), spatial(layout, pads[1::2])
    low, high = [], []
    for size, extent, stride in zip(sizes, window, strides, strict=True):
        over = size % stride  # of the last window's stride
        if stride == 1:
            total: Any = extent - 1
        elif isinstance(over, int):
            total = larger(extent - (over or stride), 0)
        else:
            total = larger((((size + stride - 1) // stride) - 1) * stride + extent - size, 0)
        low.append(total // 2)
        high.append(total - total // 2)
    return low, high


def padded(
    b: Builder, x: Tensor, layout: str, low: list[Any], high: list[Any], fill: float
) -> tuple[Tensor, dict[str, list[int]]]:
    """Padding as the attributes of a window or, where it depends on symbols, as elements of x."""
    if not any(isinstance(value, Size) for value in (*low, *high)):
        return x, {"pad_low": low, "pad_high": high}
    before, after = iter(low), iter(high)
    lows = [dim(next(before)) if letter.isdigit() else 0 for letter in layout]
    highs = [dim(next(after)) if letter.isdigit() else 0 for letter in layout]
    return b.op("pad", x, low=lows, high=highs, value=fill), {}


def spatial_sizes(x: Tensor, layout: str) -> list[Any]:
    return spatial(layout, sizes_of(x))


def static_window(b: Builder, sizes: Sequence[Any], what: str) -> list[int]:
    if any(isinstance(size, Size) for size in sizes):
        raise Unsupported(f"{what} of static size")
    return [int(size) for size in sizes]
