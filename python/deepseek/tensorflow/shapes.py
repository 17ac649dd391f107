"""Dtypes, symbolic sizes and small tensors whose elements are known while translating.

TensorFlow computes shapes with ops on integers. Those are carried out while a function is translated, on
arrays whose elements are ints or `Size`s, so that an open dim is a symbol wherever a shape is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deepseek import _core

Dim: TypeAlias = int | str
INTEGERS = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"})
NAMES = INTEGERS | {"bool", "float16", "bfloat16", "float32", "float64"}


class Unsupported(Exception):
    """What this op needs and deepseek lacks."""


class Undecided(Exception):
    """The answer depends on the value of a symbol: it is left to the run."""


class Size:
    """An integer that depends on symbolic dims, in the normal form of deepseek's dims."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __add__(self, other: Any) -> int | Size:
        return evaluated(f"({self})+({other})")

    __radd__ = __add__

    def __sub__(self, other: Any) -> int | Size:
        return evaluated(f"({self})-({other})")

    def __rsub__(self, other: Any) -> int | Size:
        return evaluated(f"({other})-({self})")

    def __mul__(self, other: Any) -> int | Size:
        return evaluated(f"({self})*({other})")

    __rmul__ = __mul__

    def __neg__(self) -> int | Size:
        return evaluated(f"0-({self})")

    def __floordiv__(self, other: Any) -> int | Size:
        return evaluated(f"floordiv({self},{other})")

    def __mod__(self, other: Any) -> int | Size:
        return evaluated(f"mod({self},{other})")

    def _difference(self, other: Any) -> int:
        if isinstance(other, (int, np.integer, Size)):
            difference = self - (other if isinstance(other, Size) else int(other))
            if isinstance(difference, int):
                return difference
            if isinstance(other, (int, np.integer)) and other < 0 and "-" not in self.text:
                return 1  # symbols are not negative
        raise Undecided

    def __eq__(self, other: object) -> bool:
        return self._difference(other) == 0

    def __lt__(self, other: Any) -> bool:
        return self._difference(other) < 0

    def __le__(self, other: Any) -> bool:
        return self._difference(other) <= 0

    def __gt__(self, other: Any) -> bool:
        return self._difference(other) > 0

    def __ge__(self, other: Any) -> bool:
        return self._difference(other) >= 0

    def __hash__(self) -> int:
        return hash(self.text)

    def __int__(self) -> int:
        raise Undecided

    __float__ = __bool__ = __index__ = __int__

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def evaluated(text: str) -> int | Size:
    """The value of a dim's text."""
    value = _core.dim(text)
    return value if isinstance(value, int) else Size(value)


def size(dim: Dim) -> int | Size:
    """A dim of a Value's shape as something to calculate with."""
    return dim if isinstance(dim, int) else Size(dim)


def dim(value: Any) -> Dim:
    """What came of a calculation, as a dim."""
    return value.text if isinstance(value, Size) else int(value)


def larger(a: Any, b: Any) -> Any:
    return evaluated(f"max({a},{b})") if isinstance(a, Size) or isinstance(b, Size) else max(a, b)


def smaller(a: Any, b: Any) -> Any:
    return evaluated(f"min({a},{b})") if isinstance(a, Size) or isinstance(b, Size) else min(a, b)


def product(dims: Iterable[Any]) -> Any:
    total: Any = 1
    for value in dims:
        total = (size(value) if isinstance(value, str) else value) * total
    return total


class Known:
    """A tensor whose elements are known: a constant of the function, or sizes (an array of objects)."""

    __slots__ = ("dtype", "values")

    def __init__(self, values: Any, dtype: str) -> None:
        array = np.asarray(values)
        if array.dtype == object and not any(isinstance(value, Size) for value in array.reshape(-1)):
            array = array.astype(numpy_name(dtype))
        self.values: npt.NDArray[Any] = array
        self.dtype = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def symbolic(self) -> bool:
        return self.values.dtype == object


def numpy_name(dtype: str) -> Any:
    """NumPy's dtype of that name."""
    return tf.dtypes.as_dtype(dtype).as_numpy_dtype


def dtype_name(dtype: Any) -> str:
    """Our name of TensorFlow's dtype."""
    name: str = dtype.name
    if name not in NAMES:
        raise Unsupported(f"dtype {name}")
    return name
