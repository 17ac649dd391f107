"""Arrays at the border: dtypes by name, values cast to what an input takes, memory shared both ways."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from deepseek._core import Array
from deepseek.errors import invalid

if TYPE_CHECKING:
    import numpy.typing as npt

# deepseek's name: ml_dtypes' name, and NumPy's type of the same size in which the border carries it.
NARROW: dict[str, tuple[str, str]] = {
    "bfloat16": ("bfloat16", "uint16"),
    "float8_e4m3": ("float8_e4m3fn", "uint8"),
    "float8_e5m2": ("float8_e5m2", "uint8"),
    "float8_e4m3fnuz": ("float8_e4m3fnuz", "uint8"),
    "float8_e5m2fnuz": ("float8_e5m2fnuz", "uint8"),
    "float8_e8m0": ("float8_e8m0fnu", "uint8"),
    "float4_e2m1": ("float4_e2m1fn", "uint8"),
    "int4": ("int4", "int8"),
    "uint4": ("uint4", "uint8"),
    "int2": ("int2", "int8"),
    "uint2": ("uint2", "uint8"),
}
_NAMES = {ml_name: name for name, (ml_name, _) in NARROW.items()}


@functools.cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's (or ml_dtypes') dtype of that name of ours."""
    if name in NARROW:
        import ml_dtypes

        narrow: np.dtype[Any] = np.dtype(getattr(ml_dtypes, NARROW[name][0]))
        return narrow
    return np.dtype(name)


def dtype_name(dtype: Any) -> str:
    """Our name of a dtype given as a name, a NumPy or PyTorch dtype, or a scalar type."""
    if isinstance(dtype, str):
        name = dtype
    elif type(dtype).__module__ == "torch":
        name = str(dtype).removeprefix("torch.")
    else:
        name = np.dtype(dtype).name
    return _NAMES.get(name, name)


def to_array(values: npt.NDArray[Any], name: str, copy: bool = False) -> Array:
    """NumPy's array of exactly that dtype as an Array."""
    if name in NARROW:
        values = values.view(NARROW[name][1])
    return Array.of(values, name, copy)


def to_numpy(array: Array) -> npt.NDArray[Any]:
    """The array's memory as NumPy's array."""
    values: npt.NDArray[Any] = array.numpy()
    return values.view(numpy_dtype(array.dtype)) if array.dtype in NARROW else values


def as_numpy(value: Any) -> npt.NDArray[Any]:
    """Anything that is like an array, as NumPy sees it."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__array__") and not hasattr(value, "__dlpack__"):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        return to_numpy(Array.from_dlpack(value))
    return np.asarray(value)


def castable(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Whether casting keeps the kind: floats to narrower floats, integers to floats, not floats to ints."""
    if np.can_cast(source, target, "same_kind"):
        return True
    return target.name in _NAMES and source.kind in "biuf" and "float" in target.name


def cast_to(value: Any, name: str, what: str, source: str = "") -> Array | npt.NDArray[Any]:
    """`value` with that dtype, in the form that the C++ side takes; `what` and
    `source` name it in errors.
    """
    held = getattr(value, "_array", value)
    if isinstance(held, Array):
        if held.dtype == name:
            return held
        held = to_numpy(held)
    target = numpy_dtype(name)
    values = as_numpy(held)
    if values.dtype != target:
        if not castable(values.dtype, target):
            raise invalid(
                "run", f"{what} of {name}", f"{values.dtype.name}, which does not cast to it safely", source
            )
        values = values.astype(target)
    values = np.ascontiguousarray(values).reshape(values.shape)  # it makes an array of rank 1 of a scalar
    return values.view(NARROW[name][1]) if name in NARROW else values
