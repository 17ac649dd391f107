"""Images in other sizes: each result is a weighted sum of elements, along one axis after the other.

The positions and weights are those of TensorFlow's kernels; they depend on sizes alone: they are constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from deepseek import Value
from deepseek.tensorflow.builder import Builder, Tensor, rule, sizes_of
from deepseek.tensorflow.shapes import Known, Size, Unsupported

Array = np.ndarray[Any, Any]
Taps = tuple[Array, Array]  # positions and weights, [taps, size of the result]


def _sizes(b: Builder, x: Tensor, size: Tensor) -> list[tuple[int, int, int]]:
    """Axis, size before and size after of height and width."""
    found = []
    for along, to in zip((1, 2), b.ints(size, "a size"), strict=True):
        given = sizes_of(x)[along]
        if isinstance(given, Size):
            raise Unsupported("an image whose height and width have no symbols")
        found.append((along, given, to))
    return found


def _scale(b: Builder, given: int, to: int) -> np.float32:
    if b.attr("align_corners") and to > 1:
        return np.float32(given - 1) / np.float32(to - 1)
    return np.float32(given) / np.float32(to)


def _places(b: Builder, given: int, to: int) -> Array:
    """Where each result lies in the image."""
    steps, scale = np.arange(to, dtype=np.float32), _scale(b, given, to)
    if b.attr("half_pixel_centers"):
        return (steps + np.float32(0.5)) * scale - np.float32(0.5)
    return steps * scale


def _summed(b: Builder, x: Value, along: int, taps: Taps) -> Value:
    rank = len(x.shape)
    total: Value | None = None
    for positions, weights in zip(*taps, strict=True):
        if not weights.any():
            continue
        part = b.op("gather", x, Known(positions.astype(np.int64), "int64"), axis=along)
        if not (weights == 1).all():
            spread = weights.reshape([-1 if i == along else 1 for i in range(rank)])
            part = b.op("mul", part, b.cast(Known(spread, "float32"), x.dtype))
        total = part if total is None else b.op("add", total, part)
    assert total is not None
    return total


def _resampled(b: Builder, x: Tensor, size: Tensor, taps_of: Callable[[int, int], Taps]) -> Value:
    value = b.value(x)
    if value.dtype != b.result_dtype():
        value = b.cast(value, b.result_dtype())
    for along, given, to in _sizes(b, x, size):
        value = _summed(b, value, along, taps_of(given, to))
    return value


@rule("ResizeNearestNeighbor")
def nearest(b: Builder, x: Tensor, size: Tensor) -> Value:
    def taps(given: int, to: int) -> Taps:
        steps, scale = np.arange(to, dtype=np.float32), _scale(b, given, to)
        if b.attr("half_pixel_centers"):
            steps = steps + np.float32(0.5)
        at = np.floor(steps * scale + np.float32(0.5)) if b.attr("align_corners") else np.floor(steps * scale)
        positions = np.minimum(at.astype(np.int64), given - 1)
        return positions[None], np.ones((1, to), np.float32)

    return _resampled(b, x, size, taps)


@rule("ResizeBilinear")
def bilinear(b: Builder, x: Tensor, size: Tensor) -> Value:
    def taps(given: int, to: int) -> Taps:
        at = _places(b, given, to)
        low = np.floor(at)
        share = (at - low).astype(np.float32)
        positions = np.stack([np.maximum(low, 0), np.minimum(low + 1, given - 1)])
        return positions, np.stack([1 - share, share])

    return _resampled(b, x, size, taps)


@rule("ResizeBicubic")
def bicubic(b: Builder, x: Tensor, size: Tensor) -> Value:
    half_pixels = b.attr("half_pixel_centers")
    a = -0.5 if half_pixels else -0.75  # Keys, 1981; the old kernel's
    table = 1024  # the kernel looks its weights up

    def near(t: Array) -> Array:
        return ((a + 2) * t - (a + 3)) * t * t + 1

    def far(t: Array) -> Array:
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a

    def taps(given: int, to: int) -> Taps:
        at = _places(b, given, to)
        low = np.floor(at).astype(np.int64)
        t = np.rint((at - low) * table) / table
        weights = np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)])
        places = low + np.arange(-1, 3)[:, None]
        if half_pixels:  # what lies outside does not count
            weights = np.where((places >= 0) & (places < given), weights, 0)
            sums = weights.sum(0)
            weights = np.where(np.abs(sums) >= 1000 * np.finfo(np.float32).tiny, weights / sums, weights)
        return np.clip(places, 0, given - 1), weights.astype(np.float32)

    return _resampled(b, x, size, taps)


@rule("ResizeArea")
def area(b: Builder, x: Tensor, size: Tensor) -> Value:
    def taps(given: int, to: int) -> Taps:
        scale = float(_scale(b, given, to))
        starts = np.arange(to) * scale
        ends = starts + scale
        most = int(np.ceil(scale)) + 1
        places = np.floor(starts)[None] + np.arange(most)[:, None]
        covered = np.clip(np.minimum(places + 1, ends) - np.maximum(places, starts), 0, None)
        return np.clip(places, 0, given - 1), (covered / scale).astype(np.float32)

    return _resampled(b, x, size, taps)


def _lanczos(radius: float) -> Callable[[Array], Array]:
    return lambda t: np.where(np.abs(t) < radius, np.sinc(t) * np.sinc(t / radius), 0)


def _keys(t: Array) -> Array:
    t = np.abs(t)
    near = ((1.5 * t - 2.5) * t) * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return np.where(t >= 2, 0, np.where(t >= 1, far, near))


def _mitchell(t: Array) -> Array:
    t = np.abs(t)
    near = ((7 * t / 6 - 2) * t) * t + 16 / 18
    far = ((-7 * t / 18 + 2) * t - 10 / 3) * t + 16 / 9
    return np.where(t >= 2, 0, np.where(t >= 1, far, near))


def _gaussian(t: Array) -> Array:
    return np.where(np.abs(t) < 1.5, np.exp(-t * t / (2 * 0.5 * 0.5)), 0)


KERNELS: dict[str, tuple[float, Callable[[Array], Array]]] = {  # radius and weight at a distance
    "lanczos1": (1, _lanczos(1)),
    "lanczos3": (3, _lanczos(3)),
    "lanczos5": (5, _lanczos(5)),
    "gaussian": (1.5, _gaussian),
    "box": (0.5, lambda t: np.where(np.abs(t) < 0.5, 1.0, np.where(np.abs(t) == 0.5, 0.5, 0.0))),
    "triangle": (1, lambda t: np.maximum(1 - np.abs(t), 0)),
    "keyscubic": (2, _keys),
    "mitchellcubic": (2, _mitchell),
}


@rule("ScaleAndTranslate")
def scale_and_translate(b: Builder, x: Tensor, size: Tensor, scale: Tensor, shift: Tensor) -> Value:
    radius, kernel = KERNELS[b.attr("kernel_type")]
    scales, shifts = b.known(scale, "a scale"), b.known(shift, "a shift")
    value = b.cast(x, "float32")
    for (along, given, to), factor, offset in zip(_sizes(b, x, size), scales, shifts, strict=True):
        value = _summed(b, value, along, _spans(given, to, 1 / factor, -offset / factor, radius, kernel, b))
    return value


def _spans(
    given: int,
    to: int,
    step: float,
    offset: float,
    radius: float,
    kernel: Callable[[Array], Array],
    b: Builder,
) -> Taps:
    width = max(step, 1.0) if b.attr("antialias") else 1.0
    at = (np.arange(to) + 0.5) * step + offset
    starts = np.ceil(at - radius * width - 0.5)
    most = int(np.floor(2 * radius * width)) + 2
    places = starts[None] + np.arange(most)[:, None]
    inside = (places >= 0) & (places < given)
    weights = np.where(inside, kernel((places + 0.5 - at) / width), 0)
    sums = weights.sum(0)
    used = (np.abs(sums) >= 1000 * np.finfo(np.float32).tiny) & (at >= 0) & (at <= given)
    weights = np.where(used, weights / np.where(used, sums, 1), 0)
    return np.clip(places, 0, given - 1), weights.astype(np.float32)
