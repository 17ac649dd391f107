"""Arrays of our own: DLPack both ways, operators that run on any target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from deepseek._core import Array
from deepseek.arrays import as_numpy, dtype_name, numpy_dtype, to_array, to_numpy

if TYPE_CHECKING:
    import numpy.typing as npt

# What print shows in full; longer arrays are shortened as NumPy does.
_SHOWN = 1000


class Tensor:
    """A row-major array on the host.

    Made from numbers (Python floats become float32), from anything with `__dlpack__` or the buffer protocol
    (memory is shared) or with `__array__`. `torch.from_dlpack(t)` and `np.asarray(t)` share its memory too.
    """

    __slots__ = ("_array",)
    _array: Array
    __array_ufunc__ = None  # an operator between NumPy's array and a Tensor is the Tensor's

    def __init__(self, data: Any, dtype: Any = None) -> None:
        if isinstance(data, Tensor):
            data = data._array
        if isinstance(data, Array) and dtype is None:
            self._array = data
            return
        if hasattr(data, "__dlpack__") and not isinstance(data, (Array, np.ndarray)) and dtype is None:
            self._array = Array.from_dlpack(data)
            return
        values = to_numpy(data) if isinstance(data, Array) else as_numpy(data)
        if dtype is not None:
            values = values.astype(numpy_dtype(dtype_name(dtype)), copy=False)
        elif values.dtype == np.float64 and not isinstance(data, (np.ndarray, np.generic)):
            values = values.astype(np.float32)
        self._array = to_array(values, dtype_name(values.dtype))

    @property
    def dtype(self) -> str:
        return self._array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(dim) for dim in self._array.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def numpy(self) -> npt.NDArray[Any]:
        """The same memory as NumPy's array."""
        return to_numpy(self._array)

    def tolist(self) -> Any:
        return self.numpy().tolist()

    def item(self) -> Any:
        return self.numpy().item()

    def astype(self, dtype: Any) -> Tensor:
        name = dtype_name(dtype)
        return self if name == self.dtype else self._op("cast", [self], {"dtype": name})

    def reshape(self, *shape: int) -> Tensor:
        return Tensor(self.numpy().reshape(*shape))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        values = self.numpy()
        if dtype is not None and values.dtype != dtype:
            return values.astype(dtype)
        return values.copy() if copy else values

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    def __str__(self) -> str:
        values = self.numpy()
        if values.size <= _SHOWN:
            return str(values.tolist())
        return np.array2string(values, separator=", ")

    def __repr__(self) -> str:
        return f"Tensor({self}, dtype={self.dtype})"

    def __len__(self) -> int:
        return len(self.numpy())

    def __iter__(self) -> Iterator[Tensor]:
        return (Tensor(row) for row in self.numpy())

    def __getitem__(self, index: Any) -> Tensor:
        return Tensor(np.asarray(self.numpy()[index]))

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __float__(self) -> float:
        return float(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    __hash__ = None  # type: ignore[assignment]

    def _op(self, op: str, inputs: list[Any], attrs: dict[str, Any] | None = None) -> Tensor:
        from deepseek import hdl

        result = hdl.run_op(op, inputs, attrs or {})
        assert isinstance(result, Tensor)
        return result

    def __add__(self, other: Any) -> Tensor:
        return self._op("add", [self, other])

    def __radd__(self, other: Any) -> Tensor:
        return self._op("add", [other, self])

    def __sub__(self, other: Any) -> Tensor:
        return self._op("sub", [self, other])

    def __rsub__(self, other: Any) -> Tensor:
        return self._op("sub", [other, self])

    def __mul__(self, other: Any) -> Tensor:
        return self._op("mul", [self, other])

    def __rmul__(self, other: Any) -> Tensor:
        return self._op("mul", [other, self])

    def __truediv__(self, other: Any) -> Tensor:
        return self._op("div", [self, other])

    def __rtruediv__(self, other: Any) -> Tensor:
        return self._op("div", [other, self])

    def __pow__(self, other: Any) -> Tensor:
        return self._op("pow", [self, other])

    def __rpow__(self, other: Any) -> Tensor:
        return self._op("pow", [other, self])

    def __matmul__(self, other: Any) -> Tensor:
        return self._op("matmul", [self, other])

    def __rmatmul__(self, other: Any) -> Tensor:
        return self._op("matmul", [other, self])

    def __neg__(self) -> Tensor:
        return self._op("neg", [self])

    def __abs__(self) -> Tensor:
        return self._op("abs", [self])

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._op("equal", [self, other])

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._op("not_equal", [self, other])

    def __lt__(self, other: Any) -> Tensor:
        return self._op("less", [self, other])

    def __le__(self, other: Any) -> Tensor:
        return self._op("less_equal", [self, other])

    def __gt__(self, other: Any) -> Tensor:
        return self._op("greater", [self, other])

    def __ge__(self, other: Any) -> Tensor:
        return self._op("greater_equal", [self, other])
