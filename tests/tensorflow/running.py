"""Compiled beside TensorFlow's own results."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from typing import Any

import deepseek as ds
import numpy as np
import tensorflow as tf

WHOLE = os.environ.get("DEEPSEEK_WHOLE_SUITES") == "1"
RTOL = 1e-5  # of the largest element


def compare(got: Any, want: Any, what: str, rtol: float = RTOL, together: bool = False) -> None:
    """Structures of arrays, element by element, relative to the largest (of all arrays where `together`)."""
    got, want = tf.nest.flatten(got), tf.nest.flatten(want)
    assert len(got) == len(want), f"{what}: {len(got)} results, not {len(want)}"
    largest = max((_largest(np.asarray(b)) for b in want), default=0.0)
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape, f"{what}: result {i} of shape {a.shape}, not {b.shape}"
        assert a.dtype == b.dtype, f"{what}: result {i} of {a.dtype}, not {b.dtype}"
        if a.dtype.kind != "f":
            assert (a == b).all(), f"{what}: result {i} differs"
            continue
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        error = np.abs(np.where(same, 0, a.astype(np.float64) - b)).max(initial=0)
        scale = max(largest if together else _largest(b), 1e-30)
        assert error <= rtol * scale, f"{what}: result {i} off by {error / scale:.2e}"


def _largest(x: np.ndarray[Any, Any]) -> float:
    return float(np.abs(np.where(np.isfinite(x), x, 0).astype(np.float64)).max(initial=0))


def random_array(shape: Sequence[int], dtype: str, seed: int, most: int = 5) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, most, shape).astype(dtype)


def target_of(name: str) -> str:
    """Most run on the interpreter, which compiles nothing; the whole suite runs them as machine code."""
    return "cpu" if WHOLE or zlib.crc32(name.encode()) % 6 == 0 else "interpreter"


def check_model(
    model: Any, shapes: Sequence[Sequence[int | None]], dtype: str, name: str, batches: Sequence[int] = (1, 3)
) -> None:
    """A Keras model compiled once, at several batch sizes."""
    compiled = ds.compile(model, target=target_of(name), tune="off")
    for batch in batches:
        given = [
            random_array((batch, *(6 + batch if n is None else n for n in shape)), dtype, batch + i)
            for i, shape in enumerate(shapes)
        ]
        want = model(given if len(given) > 1 else given[0], training=False)
        compare(compiled(*given), want, f"{name}, batch {batch}")
