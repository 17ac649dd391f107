"""Cases of the conformance suite: one op applied to arrays, and what PyTorch makes of them in float64.

A case is drawn by a function registered with `@case("op", ...)`; `Draw` makes the choices through hypothesis,
so that a failure shrinks. `expect` gets the inputs as torch tensors (floats as float64) and says what the op
gives; since it is written in torch, its gradient is PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st

Array = npt.NDArray[Any]
T = TypeVar("T")

SIZES = [0, 1, 2, 3, 5, 7, 8, 13, 16, 17, 33]
FLOATS = ["float32", "float32", "float32", "float64", "float16", "bfloat16"]
SIGNED = ["int8", "int16", "int32", "int64"]
UNSIGNED = ["uint8", "uint16", "uint32", "uint64"]

# Relative error allowed by dtype: a few units in the last place of the result's scale.
TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}


def numpy_dtype(name: str) -> Any:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


@dataclass
class Case:
    inputs: Sequence[Array | None]
    attrs: dict[str, Any]
    expect: Callable[..., Any]
    # Times TOLERANCE: for long sums and functions that amplify their input's error.
    slack: float = 1.0
    # Which results to compare; None: all that `expect` gives.
    results: int | None = None
    # Axes (input, axis) that may be symbolic together, as one dim N.
    symbolic: Sequence[tuple[int, int]] = field(default_factory=list)
    # Attributes that say N where it is symbolic.
    symbolic_attrs: dict[str, Any] = field(default_factory=dict)
    # Which inputs' gradients to compare; None: all floats.
    differentiable: Sequence[int] | None = None
    # What errors are relative to besides the element; None: the largest element, 1 at most.
    scale: float | None = None


class Draw:
    """Choices of one case of an op."""

    def __init__(self, data: st.DataObject, op: str, smooth: bool = False) -> None:
        self.op = op
        # For gradients: float32 or float64, no infinities and NaN, nothing exactly on a corner.
        self.smooth = smooth
        self._data = data
        self._rng = np.random.default_rng(data.draw(st.integers(0, 2**16), label="seed"))

    def one(self, options: Sequence[T]) -> T:
        return self._data.draw(st.sampled_from(list(options)))

    def integer(self, low: int, high: int) -> int:
        return self._data.draw(st.integers(low, high))

    def flag(self) -> bool:
        return self._data.draw(st.booleans())

    def size(self, least: int = 0, most: int = 33) -> int:
        return self.one([s for s in SIZES if least <= s <= most])

    def shape(
        self, ranks: Sequence[int] = (0, 1, 2, 3, 4), least: int = 0, elements: int = 5000
    ) -> list[int]:
        shape = [self.size(least) for _ in range(self.one(ranks))]
        while int(np.prod(shape)) > elements:
            shape[int(np.argmax(shape))] = max(least, 2)
        return shape

    def axis(self, rank: int) -> int:
        return self.integer(-rank, rank - 1)

    def axes(self, rank: int) -> list[int]:
        """Distinct axes, sorted; none of them means all to a reduction."""
        return sorted(self._data.draw(st.sets(st.integers(0, rank - 1)))) if rank else []

    def permutation(self, n: int) -> list[int]:
        return list(self._data.draw(st.permutations(range(n))))

    def dtype(self, options: Sequence[str] = FLOATS) -> str:
        return self.one([t for t in options if not self.smooth or t in ("float32", "float64")])

    def floats(
        self,
        shape: Sequence[int],
        dtype: str = "float32",
        low: float = -1,
        high: float = 1,
        special: bool = False,
    ) -> Array:
        values = self._rng.uniform(low, high, list(shape))
        if special and not self.smooth and values.size and self.flag():
            picks = [np.nan, np.inf, -np.inf, 0.0, -0.0, low, high]
            where = self._rng.integers(0, values.size, 3)
            values.reshape(-1)[where] = self._rng.choice(picks, 3)
        return self._strided(values.astype(numpy_dtype(dtype)))

    def distinct(self, shape: Sequence[int], dtype: str = "float32") -> Array:
        """Floats without ties, far enough apart for finite differences."""
        count = int(np.prod(shape))
        values = (self._rng.permutation(count) - count / 2) / max(count, 8)
        return self._strided(values.reshape(list(shape)).astype(numpy_dtype(dtype)))

    def integers(self, shape: Sequence[int], dtype: str = "int64", low: int = -9, high: int = 9) -> Array:
        info = np.iinfo(dtype)
        low, high = max(low, info.min), min(high, info.max)
        return self._strided(self._rng.integers(low, high, list(shape), endpoint=True).astype(dtype))

    def indices(self, shape: Sequence[int], size: int, negative: bool = True) -> Array:
        """Positions on an axis of that size, some counted from its end."""
        values = self._rng.integers(-size if negative else 0, size, list(shape))
        return self._strided(values.astype(self.one(["int32", "int64"])))

    def unique_rows(self, limits: Sequence[int], count: int) -> Array:
        """Distinct coordinates in a box."""
        total = int(np.prod(limits))
        flat = self._rng.permutation(total)[:count]
        rows = np.stack(np.unravel_index(flat, list(limits)), -1) if limits else np.zeros((len(flat), 0))
        return rows.astype("int64")

    def bools(self, shape: Sequence[int]) -> Array:
        return self._strided(self._rng.integers(0, 2, list(shape)).astype(bool))

    def _strided(self, values: Array) -> Array:
        """The same values, sometimes not contiguous."""
        how = self.one(["plain", "plain", "plain", "transposed", "every other"])
        if how == "transposed":
            return np.array(values.T, order="C").T
        if how == "every other" and values.ndim:
            wide = np.repeat(values, 2, axis=-1)
            return wide[..., ::2]
        return values


Maker = Callable[[Draw], Case]
CASES: dict[str, Maker] = {}


def case(*ops: str) -> Callable[[Maker], Maker]:
    """Registers what draws cases of these ops."""

    def register(make: Maker) -> Maker:
        for op in ops:
            assert op not in CASES, op
            CASES[op] = make
        return make

    return register


def to_torch(x: Array | None) -> torch.Tensor | None:
    """Floats as float64, bools as bool, integers as they are (unsigned ones as int64)."""
    if x is None:
        return None
    dense = np.array(x, order="C")
    if x.dtype.kind == "b":
        return torch.tensor(dense)
    if x.dtype.kind in "iu":
        wide = x.dtype.kind == "u" and x.dtype.itemsize > 1
        return torch.tensor(dense.astype("int64") if wide else dense)
    return torch.tensor(dense.astype("float64"))


def results_of(case: Case, inputs: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
    outputs = case.expect(*inputs)
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
